"""Models that are downloaded and deleted through HTTP: real servers, and a hub on this machine."""

import json
import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner

from app.commands.models import models
from app.commands.ps import ps
from app.commands.pull import pull
from app.commands.rm import rm
from app.commands.stop import stop
from app.services.downloads.service import Downloads
from app.services.errors import DownloadsForbidden
from app.services.model_events import ModelEvents
from app.settings import Settings
from tests import gguf_files, tiny_model
from tests.conftest import Server, running, wait_for
from tests.hub_stand_in import Hub, Repo, running_hub
from tests.refusals import error_of

WEIGHTS = "model.safetensors"
LARGE = {"config.json": b"{}", WEIGHTS: os.urandom(6 * 2**20)}  # no model, but something to wait for


@pytest.fixture(scope="module")
def own_hub(tiny: Path) -> Iterator[Hub]:
    with running_hub() as hub:
        for name in ("org/tiny", "org/other", "org/small"):
            hub.add(name, tiny)
        hub.repos["org/large"] = Repo(dict(LARGE))
        hub.repos["org/empty"] = Repo({"README.md": b""})
        hub.repos["org/ggufs"] = Repo({"tiny-Q4_0.gguf": b"GGUF", "tiny-Q8_0.gguf": b"GGUF"})
        yield hub


@pytest.fixture(autouse=True)
def untroubled(own_hub: Hub) -> None:
    own_hub.requests.clear()
    own_hub.hold.clear()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of models with one of the user's own."""
    folder = tmp_path_factory.mktemp("home") / "models"
    tiny_model.build(folder / "org" / "mine", layers=1)
    return folder


@contextmanager
def router(folder: Path, hub: Hub, *flags: str) -> Iterator[Server]:
    env = {"HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0"}
    with running(folder.parent, "--models-dir", str(folder), *flags, env=env) as server:
        yield server
        assert server.errors() == []


@pytest.fixture(scope="module")
def server(folder: Path, own_hub: Hub) -> Iterator[Server]:
    with router(folder, own_hub) as server:
        yield server


@contextmanager
def following(server: Server) -> Iterator[Iterator[dict[str, Any]]]:
    """Give the events of models from now on."""
    with httpx.stream("GET", f"{server.url}/models/sse", timeout=60) as answer:
        assert answer.status_code == 200
        lines = (json.loads(line[6:]) for line in answer.iter_lines() if line.startswith("data: "))
        with closing(lines):
            yield lines


def download(server: Server, name: str) -> dict[str, Any]:
    answer = server.client.post("/models", json={"model": name})
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def until(changes: Iterator[dict[str, Any]], name: str, *kinds: str) -> list[dict[str, Any]]:
    """The events of a model up to one of these kinds."""
    seen = []
    for change in changes:
        if change["model"] == name:
            seen.append(change)
            if change["event"] in kinds:
                return seen
    raise AssertionError(f"no {kinds} of {name}: {seen}")


def delete(server: Server, name: str, confirmation: str | None = None) -> httpx.Response:
    confirmation = name if confirmation is None else confirmation
    headers = {"X-Confirm-Delete": confirmation}
    return server.client.request("DELETE", "/models", json={"model": name}, headers=headers)


def statuses(server: Server) -> dict[str, str]:
    return {row["id"]: row["status"]["value"] for row in server.client.get("/v1/models").json()["data"]}


def row_of(server: Server, name: str) -> Any:
    """What the list of models says of one."""
    return next(row for row in server.client.get("/models").json()["data"] if row["id"] == name)


def bytes_done(server: Server, name: str) -> int:
    """How much there is of the weights that are being downloaded."""
    return int(row_of(server, name)["status"].get("progress", {}).get(WEIGHTS, {}).get("done", 0))


def is_downloaded(server: Server, name: str) -> bool:
    return server.client.get("/v1/activity").json()["downloads"] == [] and statuses(server).get(name) == "unloaded"


def test_a_downloaded_model_answers_at_once_and_can_be_deleted(server: Server, folder: Path, own_hub: Hub) -> None:
    with following(server) as changes:
        held = own_hub.pause(WEIGHTS)
        assert download(server, "https://huggingface.co/org/tiny") == {"success": True, "id": "org/tiny"}
        own_hub.begun[WEIGHTS].wait(60)
        name = "org/tiny"
        row = row_of(server, name)
        assert row["status"]["value"] == "downloading"
        assert row["status"]["progress"][WEIGHTS]["total"] == len(own_hub.repos["org/tiny"].files[WEIGHTS])
        held.set()
        events = until(changes, name, "download_finished", "download_failed")
        assert {one["event"] for one in events} == {"download_progress", "models_reload", "download_finished"}
        progress = events[-1]["data"]["progress"]
        assert progress and all(file["done"] == file["total"] for file in progress.values())
        assert statuses(server)["org/tiny"] == "unloaded"
        assert server.chat(model="org/tiny").status_code == 200
        assert error_of(delete(server, "org/tiny"), 400)["code"] == "model_in_use"
        server.client.post("/models/unload", json={"model": "org/tiny"})
        wait_for(lambda: statuses(server)["org/tiny"] == "unloaded")
        rows = {row["id"]: row for row in server.client.get("/models").json()["data"]}
        assert (rows["org/tiny"]["can_remove"], rows["org/mine"]["can_remove"]) == (True, False)
        assert delete(server, "org/tiny").json() == {"success": True}
        until(changes, "org/tiny", "model_remove")
        assert "org/tiny" not in statuses(server)
        assert not list(folder.glob("*tiny*"))


def test_a_model_is_deleted_only_if_it_is_named_twice(server: Server, folder: Path) -> None:
    client, name = server.client, "org/small"
    download(server, name)
    wait_for(lambda: is_downloaded(server, name))
    header = {"X-Confirm-Delete": name}
    for answer in (
        delete(server, name, ""),
        delete(server, name, "org/mine"),
        client.request("DELETE", "/models", json={"model": name}),
        client.request("DELETE", f"/models?model={name}", headers=header),
        client.request("DELETE", "/models?model=org/mine", json={"model": name}, headers=header),
        client.request("DELETE", "/models"),
    ):
        assert error_of(answer, 400)["code"] == "deletion_not_confirmed"
    for other in ("org/mine", "org/none", "mine", "org/small:Q8_0"):
        error_of(delete(server, other), 404)
    for other in ("../..", "/", "a/b/c", str(folder)):
        error_of(delete(server, other), 400)
    assert {"org/mine", "org/small"} <= set(statuses(server))
    assert (folder / "org/mine" / WEIGHTS).exists()
    assert delete(server, name).status_code == 200
    assert "org/small" not in statuses(server)


def test_downloads_wait_for_each_other_and_one_that_is_stopped_goes_on_later(server: Server, own_hub: Hub) -> None:
    with following(server) as changes:
        held = own_hub.pause(WEIGHTS)
        download(server, "org/large")
        own_hub.begun[WEIGHTS].wait(60)
        assert download(server, "org/large") == {"success": True, "id": "org/large"}  # it is under way
        assert error_of(delete(server, "org/large:Q8_0"), 400)["code"] == "model_in_use"
        download(server, "org/other")
        rows = {row["id"]: row["status"] for row in server.client.get("/v1/activity").json()["downloads"]}
        assert rows == {"org/large": "downloading", "org/other": "queued"}
        wait_for(lambda: bytes_done(server, "org/large") >= 2**20, what="the first part on the disk")
        assert server.client.post("/models/unload", json={"model": "org/large"}).json() == {"success": True}
        held.set()
        assert "stopped" in until(changes, "org/large", "download_failed")[-1]["data"]["error"]
        until(changes, "org/other", "download_finished")

        del own_hub.hold[WEIGHTS]
        download(server, "org/large")
        until(changes, "org/large", "download_finished")
        again = [asked for asked in own_hub.ranges(WEIGHTS) if asked]
        assert again and all(int(asked.removeprefix("bytes=").removesuffix("-")) >= 2**20 for asked in again)
        assert delete(server, "org/large").status_code == 200


@pytest.mark.slow
def test_a_server_that_is_killed_leaves_a_download_that_the_next_one_finishes(own_hub: Hub, tmp_path: Path) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    held = own_hub.pause(WEIGHTS)
    with router(folder, own_hub) as server:
        download(server, "org/large")
        own_hub.begun[WEIGHTS].wait(60)
        (begun,) = wait_for(lambda: [path for path in folder.rglob("*.incomplete") if path.stat().st_size >= 2**20])
        server.kill()
    held.set()  # whoever goes on by itself writes now
    wait_for(lambda: not _processes(), what="the end of the process that downloads")
    assert begun.stat().st_size < len(LARGE[WEIGHTS])
    del own_hub.hold[WEIGHTS]
    with router(folder, own_hub) as server, following(server) as changes:
        assert statuses(server) == {"org/large": "unloaded"}
        assert server.client.post("/models/load", json={"model": "org/large"}).status_code == 200
        wait_for(lambda: statuses(server)["org/large"] == "failed")
        download(server, "org/large")
        until(changes, "org/large", "download_finished")
        assert any(own_hub.ranges(WEIGHTS))


def _processes() -> list[str]:
    lines = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if os.access(path, os.R_OK)]
    return [line.decode() for line in lines if b"app.services.downloads" in line]


@pytest.mark.parametrize(
    ("name", "status", "words"),
    [
        ("org/none", 404, "has no model org/none"),
        ("org/empty", 400, "has no MLX model"),
        ("../../etc", 400, "is no repo id"),
        ("org/ggufs", 400, "It has Q4_0, Q8_0"),
    ],
)
def test_what_cannot_be_downloaded_is_refused_at_once(server: Server, name: str, status: int, words: str) -> None:
    error = error_of(server.client.post("/models", json={"model": name}), status)
    assert words in error["message"]
    assert name not in statuses(server)


def test_what_fails_on_the_way_is_said_until_it_is_tried_again(server: Server, own_hub: Hub) -> None:
    own_hub.repos["org/tiny"].gated = True
    with following(server) as changes:
        download(server, "org/tiny")
        assert "is gated" in until(changes, "org/tiny", "download_failed")[-1]["data"]["error"]
        (row,) = server.client.get("/v1/activity").json()["downloads"]
        assert (row["status"], "is gated" in row["error"]) == ("failed", True)
        own_hub.repos["org/tiny"].gated = False
        download(server, "org/tiny")
        until(changes, "org/tiny", "download_finished")
        assert server.client.get("/v1/activity").json()["downloads"] == []


@pytest.mark.slow
def test_a_server_of_one_model_downloads_into_the_cache_and_loads_from_it(tiny: Path, tmp_path: Path) -> None:
    with running_hub() as hub:
        source = tmp_path / "source"
        source.mkdir()
        gguf_files.write(tiny, source / "tiny-Q8_0.gguf", "Q8_0")
        hub.add("org/ggufs", source, tags=("gguf",))
        with running(tmp_path, "--demo", env={"HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0"}) as server:
            found = server.client.get("/models/search", params={"q": "GGUF"}).json()["data"]
            assert [row["id"] for row in found] == ["org/ggufs"]
            with following(server) as changes:
                assert download(server, "org/ggufs")["id"] == "org/ggufs:Q8_0"
                until(changes, "org/ggufs", "download_finished")
            available = server.client.get("/v1/activity").json()["available"]
            assert [row["id"] for row in available] == ["org/ggufs:Q8_0"]
            assert server.client.post("/models/load", json={"model": "org/ggufs:Q8_0"}).json() == {"success": True}
            assert server.chat().json()["model"] == "org/ggufs:Q8_0"
            assert error_of(delete(server, "org/ggufs:Q8_0"), 400)["code"] == "model_in_use"


@pytest.mark.slow
def test_a_server_without_downloads_refuses_them(folder: Path, own_hub: Hub) -> None:
    with router(folder, own_hub, "--no-downloads") as server:
        for answer in (
            server.client.post("/models", json={"model": "org/tiny"}),
            delete(server, "org/mine"),
            server.client.get("/models/search?q=tiny"),
        ):
            assert error_of(answer, 403)["code"] == "downloads_disabled"
    assert not own_hub.requests


@pytest.mark.parametrize(
    ("settings", "is_allowed"),
    [
        ({}, True),
        ({"host": ("0.0.0.0",), "insecure": True}, False),
        ({"host": ("0.0.0.0",), "api_key": ("a-key",)}, True),
        ({"no_downloads": True}, False),
    ],
)
def test_beyond_this_machine_models_come_and_go_only_with_a_key(settings: dict[str, Any], is_allowed: bool) -> None:
    downloads = Downloads(Settings(**settings), None, ModelEvents(), on_change=None)  # type: ignore[arg-type]
    if is_allowed:
        downloads.require_allowed()
    else:
        with pytest.raises(DownloadsForbidden):
            downloads.require_allowed()


def test_the_commands_ask_the_server_that_is_named(server: Server, own_hub: Hub) -> None:
    run = partial(CliRunner(catch_exceptions=False).invoke)
    at = ("--url", server.url)
    lines = [json.loads(line) for line in run(pull, ["org/small", *at]).stdout.splitlines()]
    assert lines[-1] == {"event": "download_finished", "model": "org/small", "server": server.url}
    assert lines[-2]["done"] == lines[-2]["total"] > 0
    assert run(pull, ["org/none", *at]).stderr.splitlines()[0].endswith("then `hf auth login` first.")

    server.client.post("/models/load", json={"model": "org/small"})
    wait_for(lambda: statuses(server)["org/small"] == "loaded")
    assert "org/small  loaded" in run(ps, at).stdout
    assert "org/small  loaded" in run(models, at).stdout
    assert {row["id"] for row in json.loads(run(models, ["--json", *at]).stdout)} == set(statuses(server))
    assert json.loads(run(ps, ["--json", *at]).stdout)["models"][0]["id"] == "org/small"
    assert "unload it first" in run(rm, ["org/small", "--yes", *at]).stderr
    assert run(stop, ["org/small", *at]).stdout == "Stopped org/small.\n"
    wait_for(lambda: statuses(server)["org/small"] == "unloaded")
    assert "no model in memory" in run(ps, at).stdout
    assert run(rm, ["org/small", "--yes", *at]).exit_code == 0
    assert "org/small" not in statuses(server)
    assert "not running" in run(stop, ["org/mine", *at]).stderr
