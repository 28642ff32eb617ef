"""The breakers of DRY, as tokens, and how far back a repetition is searched."""

import random
from collections.abc import Sequence

import pytest

from app.services.engine.sampling.dry import Breakers, Dry, RepetitionTracker
from app.services.engine.sampling.dry_breakers import BreakerFinder

PIECES = [b"a", b"b", b"c", b"ab", b"\n", b".\n\n", b" the", b"the", b"\xc3", b"\xa9", b"x\xc3\xa9", b"bc", b"<|end|>"]


def tokens_of(text: str) -> Sequence[int]:
    """The letters of a text, one by one."""
    return [PIECES.index(letter.encode()) for letter in text]


@pytest.fixture
def finder() -> BreakerFinder:
    return BreakerFinder(lambda token: PIECES[token], tokens_of, len(PIECES))


def test_a_token_that_has_the_text_in_it_breaks_by_itself(finder: BreakerFinder) -> None:
    assert finder.find(["\n"]) == Breakers(frozenset({4, 5}), {})
    assert finder.find(["the", "\n"]).single == {4, 5, 6, 7}
    assert finder.find(["é"]).single == {10}
    assert finder.find(["<|end|>"]).single == {12}
    assert finder.find(["nowhere"]) == Breakers(frozenset(), {})
    assert finder.find([]) == Breakers(frozenset(), {})


def test_tokens_that_begin_the_text_break_with_those_that_end_it(finder: BreakerFinder) -> None:
    """ "abc" is "a" with "b" and "c" behind it, or "ab" with "c"."""
    assert finder.find(["abc"]) == Breakers(frozenset(), {2: [(0, 1, 2), (3, 2)]})
    assert finder.find(["abc", "ab"]) == Breakers(frozenset({3}), {2: [(0, 1, 2), (3, 2)], 1: [(0, 1)]})


def test_a_long_text_counts_with_its_beginning(finder: BreakerFinder) -> None:
    assert finder.find(["c" * 41]) == finder.find(["c" * 40])
    assert finder.find(["a" + "b" * 39]).sequences[1] == [(0, *[1] * 20), (3, *[1] * 20)]


def reach(text: list[int], sequences: dict[int, list[tuple[int, ...]]]) -> int:
    """Tokens since the breaker that begins last, all where there is none."""
    for start in reversed(range(len(text))):
        ends = [
            start + len(sequence)
            for by_end in sequences.values()
            for sequence in by_end
            if tuple(text[start : start + len(sequence)]) == sequence
        ]
        if ends:
            return len(text) - max(ends)
    return len(text)


def test_a_repetition_reaches_back_to_the_breaker_that_begins_last() -> None:
    draw = random.Random(5)
    sequences = {1: [(0, 1), (2, 0, 1)], 2: [(0, 1, 2)], 3: [(3, 3)]}
    for _ in range(400):
        text = [draw.randrange(5) for _ in range(draw.randrange(1, 14))]
        cut = draw.randrange(len(text) + 1)
        tracker = RepetitionTracker(Dry(1.0, breakers=Breakers(frozenset(), sequences)), text[:cut])
        for token in text[cut:]:
            tracker.push(token)
        assert tracker._reach() == reach(text, sequences), text


def test_a_text_of_one_word_is_followed_however_long_it_is() -> None:
    """A comparison of each end with each other would take minutes."""
    tracker = RepetitionTracker(Dry(1.0, 1.00001, window=10**6), [7] * 100_000)
    for _ in range(1000):
        tracker.push(7)
    assert tracker.penalties() == {7: pytest.approx(1.00001**100_997, rel=1e-3)}
