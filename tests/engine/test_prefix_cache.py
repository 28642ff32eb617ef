"""KV caches kept between requests, on the tiny model's own."""

from typing import Any

import numpy as np
import pytest

from app.services.engine.cache.layers import Layers, new_layers
from app.services.engine.cache.prefix_cache import PrefixCache
from app.services.engine.model.language_model import LanguageModel
from app.services.generation import CacheUse

import mlx.core as mx  # isort: skip  # after the fast BLAS

MANY = 2**30
TOKENS = list(range(20, 60))


def computed(model: Any, tokens: list[int]) -> Layers:
    layers = new_layers(model)
    LanguageModel(model).fill(layers, [tokens])
    return layers


def size_of(model: Any, tokens: list[int]) -> int:
    return computed(model, tokens).nbytes


def next_logits(model: Any, layers: Layers, rest: list[int]) -> Any:
    return np.array(model(mx.array([rest]), cache=layers.caches)[:, -1, :])


@pytest.fixture
def cache(model: Any) -> PrefixCache:
    cache = PrefixCache(MANY)
    cache.put(TOKENS, computed(model, TOKENS))
    return cache


@pytest.mark.parametrize("shared", [1, 5, 39, 40])
def test_the_longest_prefix_is_trimmed_to_what_is_shared(cache: PrefixCache, model: Any, shared: int) -> None:
    prompt = [*TOKENS[:shared], 700, 701, 702]
    match = cache.get(prompt)
    assert match is not None
    layers = match.layers
    assert len(match.tokens) == shared
    assert all(layer.offset == shared for layer in layers.caches)
    expected = next_logits(model, computed(model, prompt[:shared]), prompt[shared:])
    np.testing.assert_allclose(next_logits(model, layers, prompt[shared:]), expected, rtol=1e-4, atol=1e-4)


def test_the_longest_match_of_several_counts(cache: PrefixCache, model: Any) -> None:
    for tokens in ([20, 21, 500, 501], [*TOKENS[:10], 600, 601], [300, 301]):
        cache.put(tokens, computed(model, tokens))
    for prompt, length in [
        ([20, 21, 500, 999], 3),
        ([*TOKENS[:10], 600, 9, 9], 11),
        ([*TOKENS[:10], 9, 9], 10),
        ([300, 301, 302], 2),
    ]:
        match = cache.get([token % 768 for token in prompt])
        assert match is not None
        assert len(match.tokens) == length


def test_one_token_always_stays_to_be_computed(cache: PrefixCache) -> None:
    match = cache.get(TOKENS)
    assert match is not None
    assert len(match.tokens) == len(TOKENS) - 1


@pytest.mark.parametrize("prompt", [[], [20], [700, 20, 21], [21, 22]])
def test_what_shares_nothing_gets_nothing(cache: PrefixCache, prompt: list[int]) -> None:
    assert cache.get(prompt) is None


def test_a_copy_may_be_written_without_harm_to_the_entry(cache: PrefixCache, model: Any) -> None:
    prompt = [*TOKENS[:30], 5, 6, 7]
    first = cache.get(prompt)
    assert first is not None
    expected = next_logits(model, first.layers, prompt[30:])
    for _ in range(3):
        again = cache.get(prompt)
        assert again is not None
        assert len(again.tokens) == 30
        np.testing.assert_array_equal(next_logits(model, again.layers, prompt[30:]), expected)
        next_logits(model, again.layers, [9] * 300)  # beyond the block that mlx-lm allocates


def test_a_prefix_of_an_entry_is_not_stored_twice(cache: PrefixCache, model: Any) -> None:
    before = cache.nbytes
    for length in (1, 10, 40):
        cache.put(TOKENS[:length], computed(model, TOKENS[:length]))
    assert (len(cache), cache.nbytes) == (1, before)


def test_a_longer_entry_replaces_its_prefix(cache: PrefixCache, model: Any) -> None:
    longer = [*TOKENS, 1, 2, 3]
    cache.put(longer, computed(model, longer))
    assert len(cache) == 1
    match = cache.get([*longer, 4])
    assert match is not None
    assert len(match.tokens) == len(longer)


def test_the_least_recently_used_goes_first(model: Any) -> None:
    size = size_of(model, TOKENS)
    cache = PrefixCache(3 * size)
    prompts = [[number, *TOKENS[1:]] for number in range(4)]
    for tokens in prompts[:3]:
        cache.put(tokens, computed(model, tokens))
    assert cache.get([*prompts[0], 5]) is not None  # used again
    cache.put(prompts[3], computed(model, prompts[3]))
    assert cache.nbytes <= 3 * size
    assert [cache.get([*tokens, 5]) is not None for tokens in prompts] == [True, False, True, True]


def test_a_prefix_that_is_put_again_counts_as_used(model: Any) -> None:
    size = size_of(model, TOKENS)
    cache = PrefixCache(2 * size)
    prompts = [[number, *TOKENS[1:]] for number in range(3)]
    for tokens in (prompts[0], prompts[1], prompts[0], prompts[2]):
        cache.put(tokens, computed(model, tokens))
    assert [cache.get([*tokens, 5]) is not None for tokens in prompts] == [True, False, True]


def test_nothing_is_kept_beyond_the_limit(model: Any) -> None:
    for limit in (0, size_of(model, TOKENS) - 1):
        cache = PrefixCache(limit)
        cache.put(TOKENS, computed(model, TOKENS))
        assert (len(cache), cache.nbytes) == (0, 0)
    cache = PrefixCache(MANY)
    cache.put([], computed(model, TOKENS))
    assert len(cache) == 0


def test_many_small_entries_are_bounded_too(model: Any) -> None:
    cache = PrefixCache(MANY)
    for number in range(300):
        tokens = [number, number]
        cache.put(tokens, computed(model, tokens))
    assert len(cache) == 256
    assert cache.get([299, 299, 1]) is not None
    assert cache.get([0, 0, 1]) is None


def test_clear_forgets_everything(cache: PrefixCache) -> None:
    cache.clear()
    assert (len(cache), cache.nbytes, cache.get(TOKENS)) == (0, 0, None)


def test_a_miss_has_a_reason(model: Any) -> None:
    entry = computed(model, list(range(30, 60)))
    cache = PrefixCache(entry.nbytes + 100)
    assert cache.explain([1, 2, 3], 0) == CacheUse(0, "not_stored")
    cache.put(list(range(30, 60)), entry)
    assert cache.explain([*range(30, 60), 7], 30) == CacheUse(30, "whole")
    assert cache.explain([*range(30, 40), 7, 8, 9], 10) == CacheUse(10, "first_diff", 10)
    other = list(range(100, 130))
    cache.put(other, computed(model, other))
    assert cache.explain([*range(30, 60), 7], 0) == CacheUse(0, "evicted", 30)


def test_an_entry_replaces_only_its_own_prefixes(model: Any) -> None:
    cache = PrefixCache(MANY)
    for tokens in ([300, 301, 302], TOKENS[:10], [*TOKENS[:9], 400, 401], TOKENS):
        cache.put(tokens, computed(model, tokens))
    assert len(cache) == 3


def test_what_was_never_hit_is_evicted_before_a_conversation(model: Any) -> None:
    talk, aside, other = ([number, *TOKENS[1:]] for number in range(3))
    cache = PrefixCache(2 * size_of(model, TOKENS))
    cache.put(talk, computed(model, talk), expect_reuse=True)
    for tokens in (aside, other):
        cache.put(tokens, computed(model, tokens))
    assert [cache.get([*tokens, 5]) is not None for tokens in (talk, aside, other)] == [True, False, True]


def test_a_new_conversation_is_stored_beside_ones_that_were_hit(model: Any) -> None:
    talks = [list(range(start, start + 40)) for start in (1, 101, 201, 301)]
    cache = PrefixCache(3 * size_of(model, talks[0]))
    for talk in talks[:3]:
        cache.put(talk, computed(model, talk), expect_reuse=True)
    cache.put(talks[3], computed(model, talks[3]))
    assert (match := cache.get([*talks[3], 5])) is not None
    assert len(match.tokens) == 40
