"""The search for common prefixes, beside one that is too slow and too simple to be wrong."""

from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from app.services.engine.cache.prefixes import common_prefix_length, is_prefix, longest_common_prefix, longest_match

FEW = st.lists(st.integers(0, 1), max_size=8)
SOME = st.lists(st.integers(0, 1), min_size=1, max_size=8)


@dataclass
class Entry:
    tokens: Any
    trimmable: bool = True
    cut_step: int = 1


def array(tokens: list[int]) -> Any:
    return np.asarray(tokens, dtype=np.int32)


def count_common(a: list[int], b: list[int]) -> int:
    return len(list(takewhile(lambda pair: pair[0] == pair[1], zip(a, b, strict=False))))


@given(FEW, FEW)
def test_two_sequences_have_a_common_prefix(a: list[int], b: list[int]) -> None:
    assert common_prefix_length(array(a), array(b)) == count_common(a, b)


@given(SOME, FEW)
def test_one_sequence_is_a_prefix_of_the_other(prefix: list[int], tokens: list[int]) -> None:
    assert is_prefix(array(prefix), array(tokens)) is (tokens[: len(prefix)] == prefix)


@given(st.lists(FEW, max_size=6), FEW)
def test_the_longest_common_prefix_and_the_longest_match(sequences: list[list[int]], tokens: list[int]) -> None:
    longest = max((count_common(sequence, tokens) for sequence in sequences), default=0)
    assert longest_common_prefix([array(sequence) for sequence in sequences], array(tokens)) == longest
    length, match = longest_match([Entry(array(sequence)) for sequence in sequences], array(tokens))
    assert length == longest
    assert (match is None) is (longest == 0)
    assert match is None or count_common(list(match.tokens), tokens) == longest
