"""The search for common beginnings, beside one that is too slow and too simple to be wrong."""

from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from app.services.engine.cache.prefixes import covers, longest_shared, nearest, shared

FEW = st.lists(st.integers(0, 1), max_size=8)
SOME = st.lists(st.integers(0, 1), min_size=1, max_size=8)


@dataclass
class Kept:
    tokens: Any
    trimmable: bool = True


def array(tokens: list[int]) -> Any:
    return np.asarray(tokens, dtype=np.int32)


def simply_shared(one: list[int], other: list[int]) -> int:
    return len(list(takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False))))


@given(FEW, FEW)
def test_what_two_share(one: list[int], other: list[int]) -> None:
    assert shared(array(one), array(other)) == simply_shared(one, other)


@given(FEW, SOME)
def test_what_covers_what(long: list[int], short: list[int]) -> None:
    assert covers(array(long), array(short)) is (long[: len(short)] == short)


@given(st.lists(FEW, max_size=6), FEW)
def test_the_longest_shared_and_the_nearest(known: list[list[int]], wanted: list[int]) -> None:
    longest = max((simply_shared(tokens, wanted) for tokens in known), default=0)
    assert longest_shared([array(tokens) for tokens in known], array(wanted)) == longest
    length, found = nearest([Kept(array(tokens)) for tokens in known], array(wanted))
    assert length == longest
    assert (found is None) is (longest == 0)
    assert found is None or simply_shared(list(found.tokens), wanted) == longest
