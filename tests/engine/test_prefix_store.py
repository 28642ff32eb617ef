"""Prefix caches on disk: back after a restart, thrown away when torn, within their bytes."""

import errno
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.services.engine.cache import prefix_store
from app.services.engine.cache.layers import Layers, new_layers
from app.services.engine.cache.prefix_cache import PrefixCache
from app.services.engine.cache.prefix_store import PrefixStore, lock
from app.services.engine.model.language_model import LanguageModel

TOKENS = [7 + i % 50 for i in range(120)]


@pytest.fixture(autouse=True)
def written_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefix_store, "_SETTLE_SECONDS", 0.0)


Opened = Callable[..., PrefixCache]


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Opened]:
    """Opens caches over one folder, as one server after the other would."""
    caches = []

    def one(name: str = "model", max_bytes: int = 2**30) -> PrefixCache:
        caches.append(PrefixCache(2**30, PrefixStore(tmp_path, name, max_bytes)))
        return caches[-1]

    yield one
    for cache in caches:
        cache.close()


def layers_of(model: Any, tokens: list[int]) -> Layers:
    layers = new_layers(model)
    LanguageModel(model).fill(layers, [tokens])
    return layers


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("v*/*.safetensors"))


def test_a_prefix_is_back_after_a_restart_and_stands_for_its_tokens(opened: Opened, model: Any, tmp_path: Path) -> None:
    before = opened()
    before.put(TOKENS, layers_of(model, TOKENS))
    before.close()
    (file,) = files(tmp_path)
    assert file.stat().st_mode & 0o777 == 0o600
    match = opened().get([*TOKENS[:100], 3, 4])
    assert match is not None
    layers = match.layers
    assert len(match.tokens) == 100
    expected = model(mx.array([[3]]), cache=layers_of(model, TOKENS[:100]).caches)
    assert mx.allclose(model(mx.array([[3]]), cache=layers.caches), expected, atol=1e-5)


def test_another_model_finds_nothing(opened: Opened, model: Any) -> None:
    before = opened("one")
    before.put(TOKENS, layers_of(model, TOKENS))
    before.close()
    assert opened("other").get([*TOKENS, 1]) is None


def test_a_prompt_that_grew_is_written_once_and_replaces_its_prefixes(
    opened: Opened, model: Any, tmp_path: Path
) -> None:
    cache = opened()
    for length in (80, 100, 120):
        cache.put(TOKENS[:length], layers_of(model, TOKENS[:length]))
    cache.close()
    assert len(files(tmp_path)) == 1
    assert opened().get([*TOKENS, 1]) is not None


def test_short_prompts_are_not_written(opened: Opened, model: Any, tmp_path: Path) -> None:
    cache = opened()
    cache.put(TOKENS[:20], layers_of(model, TOKENS[:20]))
    cache.close()
    assert files(tmp_path) == []


def test_the_least_recently_used_goes_first(opened: Opened, model: Any, tmp_path: Path) -> None:
    prompts = [[first, *TOKENS] for first in (1, 2, 3)]
    sizes = []
    for prompt in prompts:
        cache = opened(max_bytes=2**30 if not sizes else sizes[0] * 2 + 1000)
        cache.put(prompt, layers_of(model, prompt))
        cache.close()
        sizes.append(max(file.stat().st_size for file in files(tmp_path)))
    after = opened()
    assert [after.get([*prompt, 9]) is not None for prompt in prompts] == [False, True, True]


@given(st.data())
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_torn_or_changed_file_is_thrown_away_and_nothing_else_happens(model: Any, tmp_path: Path, data: Any) -> None:
    folder = tmp_path / "torn"
    shutil.rmtree(folder, ignore_errors=True)
    before = PrefixCache(2**30, PrefixStore(folder, "model", 2**30))
    before.put(TOKENS, layers_of(model, TOKENS))
    before.close()
    (file,) = files(folder)
    content = bytearray(file.read_bytes())
    position = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        content[position] ^= data.draw(st.integers(1, 255))
    else:
        del content[position:]
    file.write_bytes(content)
    store = PrefixStore(folder, "model", 2**30)
    after = PrefixCache(2**30, store)
    assert after.get([*TOKENS, 1]) is None
    for tokens in [file.tokens.tolist() for file in store._files]:  # the change may be in the tokens in its header
        assert after.get([*tokens, 1]) is None
    after.close()
    assert files(folder) == []


def test_a_folder_that_is_gone_or_full_costs_no_answer(
    opened: Opened, model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = opened()
    shutil.rmtree(tmp_path)
    cache.put(TOKENS, layers_of(model, TOKENS))
    cache.close()
    assert len(files(tmp_path)) == 1, "the folder is made anew"

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(prefix_store, "save_prompt_cache", full)
    after = opened()
    other = [5, *TOKENS]
    after.put(other, layers_of(model, other))
    assert after.get([*other, 1]) is not None
    after.close()
    assert len(files(tmp_path)) == 1
    assert list(tmp_path.glob("v*/.*")) == []


def test_a_file_that_cannot_be_read_just_now_stays(
    opened: Opened, model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = opened()
    cache.put(TOKENS, layers_of(model, TOKENS))
    cache.close()

    def no_descriptor(_: Path) -> bytes:
        raise OSError(errno.EMFILE, "Too many open files")

    after = opened()
    with monkeypatch.context() as without:
        without.setattr(Path, "read_bytes", no_descriptor)
        assert after.get([*TOKENS, 1]) is None
    assert after.get([*TOKENS, 1]) is not None


def test_what_a_killed_process_left_half_written_is_gone(tmp_path: Path) -> None:
    folder = tmp_path / "v2-a-model-that-never-loads-again"
    folder.mkdir()
    (folder / ".4711.safetensors").write_bytes(b"half")
    claim = lock(tmp_path)
    assert claim is not None
    claim.close()
    assert list(folder.iterdir()) == []


def test_one_server_at_a_time_writes_to_a_folder(tmp_path: Path) -> None:
    first = lock(tmp_path)
    assert first is not None
    assert lock(tmp_path) is None
    first.close()
    again = lock(tmp_path)
    assert again is not None
    again.close()


def test_a_conversation_that_is_forgotten_is_gone_from_the_disk_too(opened: Opened, model: Any, tmp_path: Path) -> None:
    cache = opened()
    other = [3, *TOKENS]
    for tokens in (TOKENS, other):
        cache.put(tokens, layers_of(model, tokens))
    cache.close()
    cache = opened()
    assert len(files(tmp_path)) == 2
    cache.forget(TOKENS[:90])
    cache.forget([])
    assert len(files(tmp_path)) == 1
    assert cache.get([*TOKENS, 1]) is None
    assert cache.get_whole(other) is not None
    cache.forget([*other, 1, 2])
    assert files(tmp_path) == []
    assert cache.get_whole(other) is None
