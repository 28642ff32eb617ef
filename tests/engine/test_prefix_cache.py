"""KV caches kept between requests, on the tiny model's own."""

from typing import Any

import numpy as np
import pytest
from mlx_lm.models.cache import make_prompt_cache

from app.services.engine.cache.prefix_cache import PrefixCache
from app.services.generation import CacheUse

import mlx.core as mx  # isort: skip  # after the fast BLAS

MANY = 2**30
TOKENS = list(range(20, 60))


def computed(model: Any, tokens: list[int]) -> list[Any]:
    layers: list[Any] = make_prompt_cache(model)
    model(mx.array([tokens]), cache=layers)
    mx.eval([layer.state for layer in layers])
    return layers


def size_of(model: Any, tokens: list[int]) -> int:
    return sum(layer.nbytes for layer in computed(model, tokens))


def next_logits(model: Any, layers: list[Any], rest: list[int]) -> Any:
    return np.array(model(mx.array([rest]), cache=layers)[:, -1, :])


@pytest.fixture
def cache(model: Any) -> PrefixCache:
    cache = PrefixCache(MANY)
    cache.put(TOKENS, computed(model, TOKENS))
    return cache


@pytest.mark.parametrize("shared", [1, 5, 39, 40])
def test_the_longest_beginning_is_found_and_cut_to_what_is_shared(cache: PrefixCache, model: Any, shared: int) -> None:
    wanted = [*TOKENS[:shared], 700, 701, 702]
    found = cache.take(wanted)
    assert found is not None
    layers = found.layers
    assert len(found.tokens) == shared
    assert all(layer.offset == shared for layer in layers)
    expected = next_logits(model, computed(model, wanted[:shared]), wanted[shared:])
    np.testing.assert_allclose(next_logits(model, layers, wanted[shared:]), expected, rtol=1e-4, atol=1e-4)


def test_the_nearest_of_several_is_taken(cache: PrefixCache, model: Any) -> None:
    for tokens in ([20, 21, 500, 501], [*TOKENS[:10], 600, 601], [300, 301]):
        cache.put(tokens, computed(model, tokens))
    for wanted, length in [
        ([20, 21, 500, 999], 3),
        ([*TOKENS[:10], 600, 9, 9], 11),
        ([*TOKENS[:10], 9, 9], 10),
        ([300, 301, 302], 2),
    ]:
        found = cache.take([token % 768 for token in wanted])
        assert found is not None
        assert len(found.tokens) == length


def test_one_token_always_stays_to_be_computed(cache: PrefixCache) -> None:
    found = cache.take(TOKENS)
    assert found is not None
    assert len(found.tokens) == len(TOKENS) - 1


@pytest.mark.parametrize("wanted", [[], [20], [700, 20, 21], [21, 22]])
def test_what_shares_nothing_gets_nothing(cache: PrefixCache, wanted: list[int]) -> None:
    assert cache.take(wanted) is None


def test_what_is_taken_may_be_written_without_harm_to_the_entry(cache: PrefixCache, model: Any) -> None:
    wanted = [*TOKENS[:30], 5, 6, 7]
    first = cache.take(wanted)
    assert first is not None
    expected = next_logits(model, first.layers, wanted[30:])
    for _ in range(3):
        again = cache.take(wanted)
        assert again is not None
        assert len(again.tokens) == 30
        np.testing.assert_array_equal(next_logits(model, again.layers, wanted[30:]), expected)
        next_logits(model, again.layers, [9] * 300)  # beyond the block that mlx-lm allocates


def test_what_is_covered_is_not_kept_twice(cache: PrefixCache, model: Any) -> None:
    before = cache.nbytes
    for length in (1, 10, 40):
        cache.put(TOKENS[:length], computed(model, TOKENS[:length]))
    assert (len(cache), cache.nbytes) == (1, before)


def test_what_covers_an_entry_takes_its_place(cache: PrefixCache, model: Any) -> None:
    longer = [*TOKENS, 1, 2, 3]
    cache.put(longer, computed(model, longer))
    assert len(cache) == 1
    found = cache.take([*longer, 4])
    assert found is not None
    assert len(found.tokens) == len(longer)


def test_the_least_recently_used_goes_first(model: Any) -> None:
    size = size_of(model, TOKENS)
    cache = PrefixCache(3 * size)
    prompts = [[number, *TOKENS[1:]] for number in range(4)]
    for tokens in prompts[:3]:
        cache.put(tokens, computed(model, tokens))
    assert cache.take([*prompts[0], 5]) is not None  # used again
    cache.put(prompts[3], computed(model, prompts[3]))
    assert cache.nbytes <= 3 * size
    assert [cache.take([*tokens, 5]) is not None for tokens in prompts] == [True, False, True, True]


def test_a_covered_prompt_counts_as_used(model: Any) -> None:
    size = size_of(model, TOKENS)
    cache = PrefixCache(2 * size)
    prompts = [[number, *TOKENS[1:]] for number in range(3)]
    for tokens in (prompts[0], prompts[1], prompts[0], prompts[2]):
        cache.put(tokens, computed(model, tokens))
    assert [cache.take([*tokens, 5]) is not None for tokens in prompts] == [True, False, True]


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
    assert cache.take([299, 299, 1]) is not None
    assert cache.take([0, 0, 1]) is None


def test_clear_forgets_everything(cache: PrefixCache) -> None:
    cache.clear()
    assert (len(cache), cache.nbytes, cache.take(TOKENS)) == (0, 0, None)


def test_a_miss_has_a_reason(model: Any) -> None:
    entry = computed(model, list(range(30, 60)))
    cache = PrefixCache(sum(layer.nbytes for layer in entry) + 100)
    assert cache.explain([1, 2, 3], 0) == CacheUse(0, "not_stored")
    cache.put(list(range(30, 60)), entry)
    assert cache.explain([*range(30, 60), 7], 30) == CacheUse(30, "whole")
    assert cache.explain([*range(30, 40), 7, 8, 9], 10) == CacheUse(10, "first_diff", 10)
    other = list(range(100, 130))
    cache.put(other, computed(model, other))
    assert cache.explain([*range(30, 60), 7], 0) == CacheUse(0, "evicted", 30)


def test_an_entry_that_covers_several_takes_the_place_of_those_alone(model: Any) -> None:
    cache = PrefixCache(MANY)
    for tokens in ([300, 301, 302], TOKENS[:10], [*TOKENS[:9], 400, 401], TOKENS):
        cache.put(tokens, computed(model, tokens))
    assert len(cache) == 3


def test_what_nobody_came_back_to_goes_before_a_conversation(model: Any) -> None:
    talk, aside, other = ([number, *TOKENS[1:]] for number in range(3))
    cache = PrefixCache(2 * size_of(model, TOKENS))
    cache.put(talk, computed(model, talk), proven=True)
    for tokens in (aside, other):
        cache.put(tokens, computed(model, tokens))
    assert [cache.take([*tokens, 5]) is not None for tokens in (talk, aside, other)] == [True, False, True]


def test_a_new_conversation_finds_a_place_among_proven_ones(model: Any) -> None:
    talks = [list(range(place, place + 40)) for place in (1, 101, 201, 301)]
    cache = PrefixCache(3 * size_of(model, talks[0]))
    for talk in talks[:3]:
        cache.put(talk, computed(model, talk), proven=True)
    cache.put(talks[3], computed(model, talks[3]))
    assert (found := cache.take([*talks[3], 5])) is not None
    assert len(found.tokens) == 40
