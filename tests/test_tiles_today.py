"""Today's Tiles with this server swapped in: its exact spawn, and all that its CLI, daemon and app send, in order."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

from tests import gguf_files, tiles_library, tiny_model
from tests.conftest import wait_for
from tests.model_hub import running_hub
from tests.tiles_cli import REQUESTS, SYSTEM, Tiles, agent_body, swapped_in
from tests.tiles_daemon import tiles_daemon

pytestmark = pytest.mark.slow

DAEMON = {"context_length": 8000, "gpu_layers": -1}
KINDS = ("gguf", "mlx")
REPOS = {
    "gguf": {"unsloth/gemma-4-E4B-it-GGUF": "Q4_K_M", "unsloth/gemma-4-12b-it-GGUF": "Q8_0"},
    "mlx": {"mlx-community/Nano-4bit": None, "mlx-community/Other-4bit": None},
}


class Model(NamedTuple):
    """A model that Tiles has downloaded."""

    name: str  # as Tiles has it: with the quantization, if its Modelfile names one
    path: Path  # that `tiles run` finds: a file, or the snapshot where there is no quantization
    snapshot: Path  # what the daemon finds


Models = tuple[Model, Model]


@pytest.fixture(scope="module", params=KINDS)
def models(request: pytest.FixtureRequest, tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Models:
    folder = tmp_path_factory.mktemp("models")
    other = tiny_model.build(folder / "other", seed=7, layers=1)
    first, second = zip(REPOS[request.param].items(), (tiny, other), strict=True)
    return download(folder, *first[0], first[1]), download(folder, *second[0], second[1])


def download(hub: Path, repo: str, quantization: str | None, source: Path) -> Model:
    """Put a model into a cache as Hugging Face's and Tiles' downloaders do: links to blobs, whose names say nothing."""
    entry = hub / f"models--{repo.replace('/', '--')}"
    snapshot, blobs = entry / "snapshots/abc", entry / "blobs"
    snapshot.mkdir(parents=True)
    if quantization is None:
        shutil.copytree(source, blobs)
        for path in blobs.iterdir():
            (snapshot / path.name).symlink_to(f"../../blobs/{path.name}")
        return Model(repo, snapshot, snapshot)
    types = {"attn_q": "Q4_0", "ffn_up": "Q4_1", "ffn_down": "Q8_0"}
    name = f"{repo.rpartition('/')[2].removesuffix('-GGUF')}-{quantization}.gguf"
    gguf_files.write(source, blobs / "b10b", types)
    (snapshot / name).symlink_to("../../blobs/b10b")
    return Model(f"{repo}:{quantization}", snapshot / name, snapshot)


@contextmanager
def with_daemon(models: Models, folder: Path) -> Iterator[Tiles]:
    snapshots = {model.name: model.snapshot for model in models}
    with tiles_daemon(snapshots, DAEMON) as daemon, swapped_in(folder, daemon.url) as tiles:
        yield tiles


@pytest.fixture(scope="module")
def tiles(models: Models, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tiles]:
    """One that runs already."""
    with with_daemon(models, tmp_path_factory.mktemp("swapped")) as tiles:
        tiles.start()
        tiles.wait_until_up()
        yield tiles


@pytest.mark.parametrize("is_debug", [False, True], ids=["release", "debug"])
def test_tiles_starts_and_stops_it_as_its_own(tmp_path: Path, is_debug: bool) -> None:
    with swapped_in(tmp_path, "http://127.0.0.1:9", is_debug=is_debug) as tiles:
        assert tiles.stop() == "Server is not running"
        assert tiles.start() == "server started successfully"
        tiles.wait_until_up()
        assert tiles.process is not None
        pid = int((tiles.config / "server.pid").read_text())
        assert (os.getsid(pid), os.getpgid(pid)) == (pid, pid)
        assert tiles.start() == "server already up"
        assert tiles.stop() == "Server stopped"
        assert tiles.process.wait(20) == 0
        assert not tiles.ping()
        assert tiles.stop() == "Server is not running"
        assert "Traceback" not in tiles.log
        assert tiles.start() == "server started successfully"  # the logs are appended to
        tiles.wait_until_up()
        assert len(tiles.log) > tiles.seen > 0


def test_a_second_start_before_the_port_opens_does_no_harm(tmp_path: Path) -> None:
    with swapped_in(tmp_path, "http://127.0.0.1:9") as tiles:
        tiles.start()
        tiles.wait_until_up()
        command = [tiles.library / "server" / tiles_library.PYTHON, "-m", "server.main"]
        port = str(httpx.URL(tiles.url or "").port)
        environ = {"HOME": str(tiles.home), "TILES_PORT": port}
        second = subprocess.run(command, cwd=tiles.library, env=environ, capture_output=True, text=True, timeout=60)
        assert (second.returncode, "in use" in second.stderr) == (2, True)
        assert tiles.ping()


def test_the_app_switches_it_on_and_models_and_off(models: Models, tmp_path: Path) -> None:
    first, second = models
    with with_daemon(models, tmp_path) as tiles:
        assert tiles.start() == "server started successfully"
        assert tiles.warm_up(first.name) is False  # nobody has sent a prompt yet
        assert tiles.agent(first.name)["model"] == first.name
        assert tiles.warm_up(second.name) is False
        assert tiles.agent(second.name)["model"] == second.name
        assert tiles.warm_up(first.name) is True
        assert tiles.agent(first.name)["usage"]["input_tokens_details"]["cached_tokens"] > 100
        unknown = tiles.client.post(f"{tiles.url}/v1/responses", json=agent_body("unsloth/nothing:Q4_K_M"))
        assert unknown.status_code == 404
        assert tiles.stop() == "Server stopped"
        assert tiles.process is not None
        assert tiles.process.wait(20) == 0


def test_tiles_run_loads_a_model_and_talks_to_it(tiles: Tiles, models: Models) -> None:
    assert tiles.start() == "server already up"
    assert tiles.load(models[0].name, models[0].path, SYSTEM) == []
    for name, (items, more) in REQUESTS.items():
        response = tiles.agent(models[0].name, items, **more)
        assert response["model"] == models[0].name, name
        assert response["usage"]["input_tokens"] > 0, name
        assert response["error"] is None, name


def test_a_modelfile_without_a_quantization_names_the_snapshot(tiles: Tiles, models: Models) -> None:
    name = models[1].name.partition(":")[0]
    assert tiles.load(name, models[1].snapshot, SYSTEM) == []
    assert tiles.agent(name)["model"] == name


def test_a_data_folder_that_is_not_there_is_a_warning(tiles: Tiles, models: Models) -> None:
    warnings = tiles.load(models[0].name, models[0].path, SYSTEM, memory=Path("/proc/nowhere/memory"))
    assert any("memory_path" in warning for warning in warnings)


def test_a_model_that_cannot_be_loaded_is_no_200_and_leaves_the_one_before(
    tiles: Tiles, models: Models, tmp_path: Path
) -> None:
    tiles.load(models[0].name, models[0].path, SYSTEM)
    with pytest.raises(AssertionError, match="model_load_failed"):
        tiles.load("broken/model", tmp_path, SYSTEM)
    assert tiles.agent(models[0].name)["model"] == models[0].name


def test_a_stop_in_the_middle_of_an_answer_is_one_for_the_next_start(models: Models, tmp_path: Path) -> None:
    with with_daemon(models, tmp_path) as tiles:
        tiles.start()
        tiles.wait_until_up()
        body = agent_body(models[0].name, max_output_tokens=6000, ignore_eos=True)
        with tiles.client.stream("POST", f"{tiles.url}/v1/responses", json=body) as answer:
            assert answer.status_code == 200
            first = tiles.process
            assert tiles.stop() == "Server stopped"
            # Over a new connection and over the one that is there: that may be answered for a moment longer.
            wait_for(lambda: not httpx_ping(tiles) and not tiles.ping(), what="the port to close")
            assert tiles.start() == "server started successfully"
            tiles.wait_until_up()
        assert first is not None
        assert first.wait(30) == 0


def httpx_ping(tiles: Tiles) -> bool:
    """Ping over a connection of its own."""
    try:
        httpx.get(f"{tiles.url}/ping", timeout=20)
    except httpx.TransportError:
        return False
    return True


@pytest.mark.parametrize("kind", KINDS)
def test_models_are_found_in_tiles_own_folder_without_its_daemon(kind: str, tiny: Path, tmp_path: Path) -> None:
    with swapped_in(tmp_path, "http://127.0.0.1:9") as tiles:
        repo, quantization = next(iter(REPOS[kind].items()))
        model = download(tiles.data / "data/models/huggingface/hub", repo, quantization, tiny)
        tiles.start()
        tiles.wait_until_up()
        assert tiles.agent(model.name)["model"] == model.name


def test_onboarding_asks_what_the_machine_has_and_what_models_need(models: Models, tmp_path: Path) -> None:
    if models[0].path.is_dir():
        pytest.skip("Tiles asks of GGUF files only")
    with running_hub() as hub, swapped_in(tmp_path, "http://127.0.0.1:9") as tiles:
        tiles.variables["HF_ENDPOINT"] = hub.url  # in the place of huggingface.co
        tiles.start()
        tiles.wait_until_up()
        hardware = tiles.hardware()
        assert hardware["free"] > 0
        for model in models:
            path = f"/{model.name.partition(':')[0]}/resolve/main/{model.path.name}"
            hub.files[path] = model.path.read_bytes()
            needed, experts = tiles.estimate(f"{hub.url}{path}", len(hub.files[path]))
            assert len(hub.files[path]) < needed < hardware["free"]
            assert experts == 0
        with pytest.raises(httpx.HTTPStatusError, match="502"):
            tiles.estimate(f"{hub.url}/nobody/nothing.gguf", 1000)
