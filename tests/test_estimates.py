"""What the machine has for models, and what a model would take of it."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from mlx.utils import tree_flatten

from app.services import catalog
from app.services.engine.cache import footprint
from app.services.engine.model.loading import load_at_once
from app.services.errors import EstimateFailed
from app.services.estimates import model_size, remote_header
from app.services.gguf.cache import GGUFCache
from tests import gguf_files
from tests.conftest import Server
from tests.engine import architectures
from tests.model_hub import Hub, running_hub


@pytest.fixture(scope="module")
def hub() -> Iterator[Hub]:
    with running_hub() as hub:
        yield hub


@pytest.fixture(scope="module")
def gguf(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return gguf_files.write(tiny, tmp_path_factory.mktemp("gguf") / "tiny.gguf", "Q8_0")


def read(hub: Hub, url: str, path: Path, **environ: str) -> model_size.ModelSize:
    variables = {"HF_ENDPOINT": hub.url} | environ
    return asyncio.run(remote_header.read(url, path, model_size.of_gguf, variables))


def test_a_remote_header_says_what_the_file_says(hub: Hub, gguf: Path, tmp_path: Path) -> None:
    hub.files["/org/tiny.gguf"] = gguf.read_bytes()
    hub.redirects["/main/tiny.gguf"] = "/org/tiny.gguf"
    local = model_size.of_gguf(gguf)
    assert read(hub, f"{hub.url}/main/tiny.gguf", tmp_path) == local
    assert local.expert_share == 0.0


@pytest.mark.parametrize("number", [1, 3])
def test_the_shards_of_a_file_are_looked_up_together(hub: Hub, tiny: Path, tmp_path: Path, number: int) -> None:
    first = gguf_files.write(tiny, tmp_path / "tiny one.gguf", "Q8_0", shards=3)
    for shard in tmp_path.glob("*.gguf"):
        hub.files[f"/main/{quote(shard.name)}?download=true"] = shard.read_bytes()
    url = f"{hub.url}/main/tiny%20one-0000{number}-of-00003.gguf?download=true"
    (folder := tmp_path / "folder").mkdir()
    assert read(hub, url, folder) == model_size.of_gguf(first)

    del hub.files["/main/tiny%20one-00002-of-00003.gguf?download=true"]
    with pytest.raises(EstimateFailed, match="404"):
        read(hub, url, folder)
    with pytest.raises(EstimateFailed, match="more than 128 shards"):
        read(hub, f"{hub.url}/main/tiny-00001-of-99999.gguf", folder)


def test_only_the_beginning_of_a_large_file_is_fetched(
    hub: Hub, gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The header takes several parts, and the tensors none."""
    monkeypatch.setattr(remote_header, "_FIRST", 1000)
    content = gguf.read_bytes()
    hub.files["/large.gguf"], hub.bytes_sent = content, 0
    assert read(hub, f"{hub.url}/large.gguf", tmp_path) == model_size.of_gguf(gguf)
    assert hub.bytes_sent < len(content)


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/nothing.gguf", "404"),
        ("/short.gguf", "cut short"),
        ("/text.gguf", "web page"),
        ("/round.gguf", "redirects more than"),
        ("/elsewhere.gguf", "Only https"),
        ("/inside.gguf", "on this machine"),
        ("/metadata.gguf", "on this machine"),
    ],
)
def test_what_cannot_be_read_is_said(hub: Hub, gguf: Path, tmp_path: Path, path: str, reason: str) -> None:
    hub.files["/short.gguf"], hub.files["/text.gguf"] = gguf.read_bytes()[:500], b"<html></html>"
    hub.redirects |= {
        "/round.gguf": "/round.gguf",
        "/elsewhere.gguf": "http://127.0.0.1:9/x",
        "/inside.gguf": "https://localhost/x",
        "/metadata.gguf": "https://169.254.169.254/latest",
    }
    with pytest.raises(EstimateFailed, match=reason) as raised:
        read(hub, f"{hub.url}{path}", tmp_path)
    assert str(tmp_path) not in raised.value.message


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:6969/ping",
        "https://127.0.0.1/x",
        "https://[::1]/x",
        "https://[::ffff:127.0.0.1]/x",
        "https://10.0.0.1/x",
        "https://192.168.0.1/x",
        "https://0/x",
        "https://2130706433/x",
        "https://user:password@127.0.0.1/x",
        "file:///etc/passwd",
        "ftp://127.0.0.1/x",
        "https://",
        "https://127.0.0.1:99999/x",
        "//x",
        "x",
    ],
)
def test_nobody_is_asked_who_is_not_on_the_internet(hub: Hub, tmp_path: Path, url: str) -> None:
    with pytest.raises(EstimateFailed, match=r"Only https|on this machine"):
        read(hub, url, tmp_path)


def test_nothing_is_fetched_where_downloads_are_forbidden(hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(EstimateFailed, match="HF_HUB_OFFLINE"):
        read(hub, f"{hub.url}/org/tiny.gguf", tmp_path, HF_HUB_OFFLINE="1")


def test_a_hub_that_gives_no_parts_is_refused(gguf: Path, tmp_path: Path) -> None:
    with running_hub() as hub:
        hub.files["/tiny.gguf"], hub.without_ranges = gguf.read_bytes(), True
        with pytest.raises(EstimateFailed, match="no parts"):
            read(hub, f"{hub.url}/tiny.gguf", tmp_path)


@pytest.mark.parametrize("kind", ["folder", "gguf"])
def test_an_estimate_is_what_admission_counts_once_the_model_is_loaded(
    server: Server, tiny: Path, gguf: Path, kind: str
) -> None:
    path = tiny if kind == "folder" else gguf
    answer = server.client.post("/v1/estimate", json={"model": str(path)})
    assert answer.status_code == 200, answer.text
    estimate = answer.json()
    model, _ = load_at_once(catalog.inspect(tiny), GGUFCache(None))
    context = json.loads((tiny / "config.json").read_bytes())["max_position_embeddings"]
    assert estimate["kv_bytes"] == footprint.measure(model).bytes(min(context, 32_768))
    assert estimate["weights_bytes"] == sum(array.nbytes for _, array in tree_flatten(model.parameters()))
    assert estimate["vram_bytes"] > estimate["weights_bytes"] + estimate["kv_bytes"]
    assert estimate["expert_bytes"] == 0


def test_the_share_of_experts_is_known(tmp_path: Path) -> None:
    path = architectures.build("mixtral", tmp_path / "mixtral")
    assert 0.1 < model_size.of_folder(path).expert_share < 1.0


def test_the_hardware_is_that_of_the_machine(server: Server) -> None:
    hardware = server.client.get("/v1/hardware").json()
    assert 0 < hardware["memory"]["available_bytes"] <= hardware["memory"]["total_bytes"]
    for device in hardware["devices"]:  # none where the CPU computes
        assert 0 < device["reclaimable_bytes"] <= device["total_bytes"]
        assert device["free_bytes"] + device["reclaimable_bytes"] == device["total_bytes"]
        assert device["integrated"] is False


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({}, 422, None),
        ({"url": "https://x.example/x", "model": "x"}, 422, None),
        ({"url": "https://x.example/x", "size": -1}, 422, None),
        ({"url": "https://127.0.0.1/x.gguf"}, 502, "estimate_failed"),
        ({"model": "nobody/nothing"}, 502, "estimate_failed"),
        ({"model": "/proc/self"}, 502, "estimate_failed"),
    ],
)
def test_a_failed_estimate_has_its_own_code(
    server: Server, body: dict[str, Any], status: int, code: str | None
) -> None:
    answer = server.client.post("/v1/estimate", json=body)
    assert answer.status_code == status
    assert code is None or answer.json()["error"]["code"] == code


def test_no_web_page_may_have_addresses_looked_up(server: Server) -> None:
    page = {"Origin": server.url, "Sec-Fetch-Site": "same-origin"}
    answer = server.client.post("/v1/estimate", json={"url": "https://x.example/x"}, headers=page)
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "browser_page")
