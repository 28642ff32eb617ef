"""GGUF files are served as any model is: a real server on tiny files answers as on a folder of the same weights."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests import gguf_files, tiny_model
from tests.conftest import Server, running, wait_for

TYPES = {
    "token_embd": "Q8_0",
    "attn_q": "Q4_0",
    "attn_k": "Q5_1",
    "attn_v": "F16",
    "ffn_up": "Q4_1",
    "ffn_down": "Q5_0",
}
QUESTIONS = ("Hello", "Say it again, but in other words.", "def add(first, second):")


@pytest.fixture(scope="module")
def files(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of mixed types, and a folder with the same weights."""
    folder = tmp_path_factory.mktemp("gguf")
    gguf_files.write(tiny, folder / "tiny-Q4_K_M.gguf", TYPES)
    gguf_files.rounded(tiny, folder / "same", TYPES)
    return folder


@pytest.fixture(scope="module")
def gguf_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("gguf-home")


@pytest.fixture(scope="module")
def gguf(files: Path, gguf_home: Path) -> Iterator[Server]:
    """A server on the file."""
    with running(gguf_home, "--model", str(files / "tiny-Q4_K_M.gguf")) as server:
        yield server
        assert server.errors() == []


@pytest.fixture(scope="module")
def answers(files: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What a server says on the folder."""
    with running(tmp_path_factory.mktemp("mlx-home"), "--model", str(files / "same")) as server:
        return [answer(server, question) for question in QUESTIONS]


def answer(server: Server, question: str, **more: Any) -> dict[str, Any]:
    reply = server.chat(question, temperature=0, logprobs=True, top_logprobs=5, max_tokens=24, **more)
    assert reply.status_code == 200, reply.text
    return dict(reply.json())


def assert_equal(one: dict[str, Any], other: dict[str, Any]) -> None:
    """Compare tokens, log-probabilities and reasons of two answers."""
    first, second = one["choices"][0], other["choices"][0]
    assert first["message"] == second["message"]
    assert first["finish_reason"] == second["finish_reason"]
    tokens = [
        [(token["token"], token["bytes"]) for token in choice["logprobs"]["content"]] for choice in (first, second)
    ]
    assert tokens[0] == tokens[1]
    for ours, theirs in zip(first["logprobs"]["content"], second["logprobs"]["content"], strict=True):
        assert ours["logprob"] == pytest.approx(theirs["logprob"], abs=1e-4)
    assert one["usage"]["prompt_tokens"] == other["usage"]["prompt_tokens"]


def test_a_file_answers_as_a_folder_of_the_same_weights(gguf: Server, answers: list[dict[str, Any]]) -> None:
    for question, expected in zip(QUESTIONS, answers, strict=True):
        assert_equal(answer(gguf, question), expected)


def test_the_server_says_what_it_serves(gguf: Server, files: Path) -> None:
    path = str(files / "tiny-Q4_K_M.gguf")
    (model,) = gguf.client.get("/v1/models").json()["data"]
    assert (model["id"], model["path"]) == ("tiny-Q4_K_M", path)
    assert (model["meta"]["ftype"], model["meta"]["n_ctx_train"]) == ("Q4_K_M", 8192)
    assert model["meta"]["size"] < Path(path).stat().st_size < 4 * model["meta"]["n_params"]
    props = gguf.client.get("/props").json()
    assert (props["model_path"], props["model_ftype"], props["model_alias"]) == (path, "Q4_K_M", "tiny-Q4_K_M")
    assert props["tiles"]["warnings"] == []
    assert props["eos_token"] == "<|im_end|>"
    assert "<|im_start|>" in props["chat_template"]
    (entry,) = gguf.client.get("/v1/models").json()["models"]
    assert entry["details"]["quantization_level"] == "Q4_K_M"
    assert entry["details"]["format"] == "gguf"


def test_what_is_kept_is_a_small_folder_of_its_owner(gguf: Server) -> None:
    cache = gguf.home / ".tiles/server/gguf"
    (entry,) = cache.iterdir()
    assert not list(entry.glob("*.safetensors"))
    assert {"config.json", "tokenizer.json", "chat_template.jinja"} <= {path.name for path in entry.iterdir()}
    assert cache.stat().st_mode & 0o077 == entry.stat().st_mode & 0o077 == 0


LONG = " ".join(f"Item {number} costs {number * 37 % 91}." for number in range(60))


@pytest.mark.slow
def test_a_prompt_outlives_a_restart_but_not_the_file(tiny: Path, tmp_path: Path) -> None:
    file = gguf_files.write(tiny, tmp_path / "models" / "tiny.gguf", "Q8_0")
    other = gguf_files.write(tiny_model.build(tmp_path / "other", seed=7), tmp_path / "other.gguf", "Q8_0")
    flags = ("--model", str(file))
    with running(tmp_path, *flags) as server:
        first = answer(server, LONG)
        assert server.stop() == 0
    with running(tmp_path, *flags) as server:
        again = answer(server, LONG)
        assert again["usage"]["prompt_tokens_details"]["cached_tokens"] >= first["usage"]["prompt_tokens"] - 1
        assert_equal(again, first)
        assert server.stop() == 0
    times = file.stat()
    shutil.copy(other, file)
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert file.stat().st_size == times.st_size
    with running(tmp_path, *flags) as server:
        replaced = answer(server, LONG)
        assert replaced["usage"]["prompt_tokens_details"]["cached_tokens"] == 0
        file.unlink()
        assert_equal(answer(server, LONG), replaced)
        assert server.client.post("/slots/0?action=save", json={"filename": "a"}).status_code in (200, 501)
        assert server.client.get("/v1/models").status_code == 200
        assert server.errors() == []
    with running(tmp_path, "--model", str(other)) as server:
        assert_equal(answer(server, LONG), replaced)
    assert replaced["choices"] != first["choices"]


@pytest.fixture(scope="module")
def hub(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home folder whose Hugging Face cache has a repo with two quantizations, one in shards, and a vision part."""
    home = tmp_path_factory.mktemp("hub-home")
    snapshot = home / ".cache/huggingface/hub/models--org--tiny-GGUF/snapshots" / ("a" * 40)
    gguf_files.write(tiny, snapshot / "tiny-Q8_0.gguf", "Q8_0")
    gguf_files.write(tiny, snapshot / "Q4_0" / "tiny-Q4_0.gguf", "Q4_0", shards=3)
    (snapshot / "mmproj-F16.gguf").write_bytes(b"GGUF")
    return home


def snapshot_of(home: Path) -> Path:
    return home / ".cache/huggingface/hub/models--org--tiny-GGUF/snapshots" / ("a" * 40)


@pytest.fixture(scope="module")
def empty(hub: Path) -> Iterator[Server]:
    with running(hub, ready=False) as server:
        yield server
        assert server.errors() == []


def start(server: Server, model: str, path: Path | str) -> httpx.Response:
    body = {"model": model, "model_cache_path": str(path), "memory_path": "", "system_prompt": ""}
    return server.client.post("/start", json=body)


@pytest.mark.slow
def test_start_takes_a_file_or_a_folder_with_one(empty: Server, hub: Path, tmp_path: Path) -> None:
    snapshot = snapshot_of(hub)
    ways = {
        "one file": ("org/tiny-GGUF:Q8_0", snapshot / "tiny-Q8_0.gguf"),
        "its snapshot": ("org/tiny-GGUF:Q4_0", snapshot),
        "the cache entry": ("org/tiny-GGUF:q8_0", snapshot.parent.parent),
        "the hub": ("org/tiny-GGUF:Q4_0", snapshot.parents[2]),
        "a name of one's own": ("mine:latest", snapshot / "tiny-Q8_0.gguf"),
        "a shard": ("second", snapshot / "Q4_0" / "tiny-Q4_0-00002-of-00003.gguf"),
        "a folder with one file": ("folder", snapshot / "Q4_0"),
    }
    for model, path in ways.values():
        reply = start(empty, model, path)
        assert (reply.status_code, reply.json()["message"]) == (200, "Model loaded")
        (warning,) = reply.json()["warnings"]  # of the vision part beside it, whose download has not finished
        assert f"{model} reads text only" in warning
        (row,) = empty.client.get("/v1/models").json()["data"]
        assert row["id"] == model
        assert empty.chat().status_code == 200


@pytest.mark.slow
def test_a_start_that_names_no_single_file_says_which_there_are(empty: Server, hub: Path) -> None:
    snapshot = snapshot_of(hub)
    for model, words in (
        ("org/tiny-GGUF", "org/tiny-GGUF has several models: name one as org/tiny-GGUF:Q4_0. It has Q4_0, Q8_0."),
        ("org/tiny-GGUF:Q5_K_M", "org/tiny-GGUF has no Q5_K_M. It has Q4_0, Q8_0."),
    ):
        reply = start(empty, model, snapshot)
        assert reply.status_code == 500
        assert words in reply.text
    assert start(empty, "vision", snapshot / "mmproj-F16.gguf").status_code == 500


@pytest.mark.slow
def test_a_repo_and_its_quantization_are_served_from_the_hub_s_cache(hub: Path) -> None:
    with running(hub, "--model", "org/tiny-GGUF:q4_0") as server:
        assert server.client.get("/v1/models").json()["data"][0]["id"] == "org/tiny-GGUF:Q4_0"
        assert server.chat().status_code == 200
        with running(hub, "--model", "org/tiny-GGUF:Q4_0") as second:  # two at once use one folder of the cache
            assert second.chat(temperature=0).json()["choices"] == server.chat(temperature=0).json()["choices"]


@pytest.fixture(scope="module")
def several(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("several")
    tiny_model.build(folder / "mlx", layers=1, seed=1)
    gguf_files.write(tiny, folder / "tiny-Q8_0.gguf", "Q8_0")
    gguf_files.write(tiny, folder / "big-Q4_0.gguf", "Q4_0", shards=2)
    gguf_files.write(tiny, folder / "alone" / "whatever.gguf", "Q8_0")
    gguf_files.write(tiny, folder / "org" / "pair" / "a.gguf", "Q8_0")
    gguf_files.write(tiny, folder / "org" / "pair" / "b.gguf", "F16")
    (folder / "mmproj-F16.gguf").write_bytes(b"GGUF")
    (folder / "torn.gguf").write_bytes((folder / "tiny-Q8_0.gguf").read_bytes()[:-1000])
    return folder


@pytest.mark.slow
def test_a_folder_of_models_has_files_as_rows(several: Path, tmp_path: Path) -> None:
    with running(tmp_path, "--models-dir", str(several), "--max-models", "1") as server:
        rows = {row["id"]: row for row in server.client.get("/v1/models").json()["data"]}
        names = {"mlx", "tiny-Q8_0", "big-Q4_0", "alone", "org/pair/a", "org/pair/b", "torn"}
        assert set(rows) == names
        for name in sorted(names - {"torn"}):
            assert server.chat(model=name).status_code == 200, name
        refused = server.chat(model="torn")
        assert refused.status_code >= 400
        assert "torn.gguf" in refused.text
        assert server.errors() == []


@pytest.mark.slow
def test_a_file_that_is_replaced_is_loaded_anew(tiny: Path, tmp_path: Path) -> None:
    folder = tmp_path / "models"
    file = gguf_files.write(tiny, folder / "tiny.gguf", "Q8_0")
    with running(tmp_path, "--models-dir", str(folder)) as server:
        first = answer(server, "Hello", model="tiny")
        gguf_files.write(tiny_model.build(tmp_path / "other", seed=7), tmp_path / "new.gguf", "Q8_0").replace(file)
        assert_equal(answer(server, "Hello", model="tiny"), first)
        assert server.client.post("/models/unload", json={"model": "tiny"}).status_code == 200
        wait_for(lambda: server.client.get("/models").json()["data"][0]["status"]["value"] == "unloaded")
        second = answer(server, "Hello", model="tiny")
        assert second["choices"] != first["choices"]
        file.unlink()
        assert_equal(answer(server, "Hello", model="tiny"), second)
        assert server.errors() == []
