"""Today's Tiles with this server swapped in: its exact spawn, and all that its CLI, daemon and app send, in order."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests import tiles_library, tiny_model
from tests.conftest import wait_for
from tests.tiles_cli import REQUESTS, SYSTEM, Tiles, agent_body, swapped_in
from tests.tiles_daemon import tiles_daemon

pytestmark = pytest.mark.slow

FIRST, SECOND = "mlx-community/Nano-4bit", "mlx-community/Other-4bit"
DAEMON = {"context_length": 8000, "gpu_layers": -1}


@pytest.fixture(scope="module")
def models(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two models, by their names in Tiles."""
    other = tiny_model.build(tmp_path_factory.mktemp("models") / "other", seed=7, layers=1)
    return {FIRST: tiny, SECOND: other}


@pytest.fixture(scope="module")
def tiles(models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tiles]:
    """One that runs already."""
    with tiles_daemon(models, DAEMON) as daemon, swapped_in(tmp_path_factory.mktemp("swapped"), daemon.url) as tiles:
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


def test_the_app_switches_it_on_and_models_and_off(models: dict[str, Path], tmp_path: Path) -> None:
    with tiles_daemon(models, DAEMON) as daemon, swapped_in(tmp_path, daemon.url) as tiles:
        assert tiles.start() == "server started successfully"
        assert tiles.warm_up(FIRST) is False  # nobody has sent a prompt yet
        assert tiles.agent(FIRST)["model"] == FIRST
        assert tiles.warm_up(SECOND) is False
        assert tiles.agent(SECOND)["model"] == SECOND
        assert tiles.warm_up(FIRST) is True
        assert tiles.agent(FIRST)["usage"]["input_tokens_details"]["cached_tokens"] > 100
        unknown = tiles.client.post(f"{tiles.url}/v1/responses", json=agent_body("unsloth/nothing:Q4_K_M"))
        assert unknown.status_code == 404
        assert tiles.stop() == "Server stopped"
        assert tiles.process is not None
        assert tiles.process.wait(20) == 0


def test_tiles_run_loads_a_model_and_talks_to_it(tiles: Tiles, models: dict[str, Path]) -> None:
    tiles.start()
    assert tiles.load(FIRST, models[FIRST], SYSTEM) == []
    for name, (items, more) in REQUESTS.items():
        response = tiles.agent(FIRST, items, **more)
        assert response["usage"]["input_tokens"] > 0, name
        assert response["error"] is None, name


def test_a_data_folder_that_is_not_there_is_a_warning(tiles: Tiles, models: dict[str, Path]) -> None:
    warnings = tiles.load(FIRST, models[FIRST], SYSTEM, memory=Path("/proc/nowhere/memory"))
    assert any("memory_path" in warning for warning in warnings)


def test_a_model_that_cannot_be_loaded_is_no_200_and_leaves_the_one_before(
    tiles: Tiles, models: dict[str, Path], tmp_path: Path
) -> None:
    tiles.load(FIRST, models[FIRST], SYSTEM)
    with pytest.raises(AssertionError, match="model_load_failed"):
        tiles.load("broken/model", tmp_path, SYSTEM)
    assert tiles.agent(FIRST)["model"] == FIRST


def test_a_stop_in_the_middle_of_an_answer_is_a_stop_for_the_next_start(
    tmp_path: Path, models: dict[str, Path]
) -> None:
    with tiles_daemon(models) as daemon, swapped_in(tmp_path, daemon.url) as tiles:
        tiles.start()
        tiles.wait_until_up()
        body = agent_body(FIRST, max_output_tokens=6000, ignore_eos=True)
        with tiles.client.stream("POST", f"{tiles.url}/v1/responses", json=body) as answer:
            assert answer.status_code == 200
            first = tiles.process
            assert tiles.stop() == "Server stopped"
            wait_for(lambda: not httpx_ping(tiles), what="the port to close")
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


def test_models_are_found_in_tiles_own_folder_without_its_daemon(tiny: Path, tmp_path: Path) -> None:
    with swapped_in(tmp_path, "http://127.0.0.1:9") as tiles:
        hub = tiles.data / "data/models/huggingface/hub/models--mlx-community--Nano-4bit/snapshots/abc"
        shutil.copytree(tiny, hub)
        tiles.start()
        tiles.wait_until_up()
        assert tiles.agent(FIRST)["model"] == FIRST
