"""Don't Repeat Yourself: what would go on with a repetition becomes less likely, the more the longer that is.

Source: the sampler of that name in llama.cpp, which has it from p-e-w's for text-generation-webui.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

_LOG_MAX = 88.7228391  # of the largest float32
_MAX = 3e38
_LONGEST = 20  # tokens of a breaker after its first


@dataclass(frozen=True, slots=True)
class Breakers:
    """Tokens over which no repetition reaches: some by themselves, others where they stand in a row."""

    single: frozenset[int] = frozenset()
    rows: Mapping[int, Sequence[tuple[int, ...]]] = field(default_factory=dict)  # of two tokens or more, by their last


NO_BREAKERS = Breakers()


@dataclass(frozen=True, slots=True)
class Dry:
    """How repetitions are held off: by multiplier * base ** (length - allowed_length), off the logit."""

    multiplier: float
    base: float = 1.75
    allowed_length: int = 2  # tokens
    window: int = 64  # last tokens of prompt and answer that are looked at
    breakers: Breakers = NO_BREAKERS

    @property
    def longest(self) -> int | None:
        """Tokens over the allowed length after which a penalty grows no more; None is never."""
        return int(_LOG_MAX / math.log(self.base)) or None if self.base > 1.000001 else None


class Repeats:
    """Where in a text its end stood before, followed as it grows: a token costs one pass over the window."""

    def __init__(self, dry: Dry, tokens: Sequence[int]) -> None:
        self._dry = dry
        tail = list(tokens[-dry.window :])
        self._tokens = np.array(tail, dtype=np.int64)
        self._lengths = np.array(_repeats(tail), dtype=np.int64)
        self._count = 0  # tokens seen
        self._head = self._end = -1  # where the nearest breaker begins and ends, counted like that
        for place in range(len(tail)):
            self._look_for_breaker(tail[max(0, place - _LONGEST) : place + 1])

    def push(self, token: int) -> None:
        """Take in the next token."""
        before = np.concatenate([[0], self._lengths])[: len(self._tokens)]
        lengths = np.where(self._tokens == token, before + 1, 0)
        self._tokens = np.append(self._tokens, token)[-self._dry.window :]
        self._lengths = lengths[len(lengths) - len(self._tokens) + 1 :]
        self._look_for_breaker(self._tokens[-_LONGEST - 1 :].tolist())

    def penalties(self) -> dict[int, float]:
        """What is to be taken off the logits of the tokens that would go on with a repetition."""
        dry, reach = self._dry, self._reach()
        if min(reach, len(self._tokens) - 1) < dry.allowed_length:
            return {}
        within = np.minimum(np.arange(1, len(self._tokens)), reach)  # no repetition begins before the window
        lengths = np.minimum(self._lengths, within)
        places = np.flatnonzero(lengths >= dry.allowed_length)
        places = places[np.argsort(lengths[places], kind="stable")]  # of several for one token the longest is the last
        longest = dict(zip(self._tokens[places + 1].tolist(), lengths[places].tolist(), strict=True))
        return {token: self._penalty(n) for token, n in longest.items() if token not in dry.breakers.single}

    def _penalty(self, length: int) -> float:
        over = length - self._dry.allowed_length
        if self._dry.longest is not None:
            over = min(over, self._dry.longest)
        return min(_MAX, self._dry.multiplier * self._dry.base**over)

    def _reach(self) -> int:
        """Tokens since the nearest breaker, or all of them."""
        known = self._head >= self._count - len(self._tokens)
        return self._count - 1 - self._end if known and self._head >= 0 else len(self._tokens)

    def _look_for_breaker(self, tail: list[int]) -> None:
        """Note the breaker that the last token ends, if it does; the one that begins last counts."""
        breakers, place = self._dry.breakers, self._count
        self._count += 1
        ended = [1] if tail[-1] in breakers.single else []
        ended += [len(row) for row in breakers.rows.get(tail[-1], ()) if tuple(tail[-len(row) :]) == row]
        for length in ended:
            if place - length + 1 >= self._head:
                self._head, self._end = place - length + 1, place


def _repeats(tokens: list[int]) -> list[int]:
    """For each place but the last: how many tokens that end there are the last ones too (the Z-algorithm, reversed)."""
    text = tokens[::-1]
    count = len(text)
    lengths = [0] * count
    left = right = 0  # the stretch [left, right) of the text that is known to repeat its beginning
    for place in range(1, count):
        length = min(right - place, lengths[place - left]) if place < right else 0
        while place + length < count and text[length] == text[place + length]:
            length += 1
        lengths[place] = length
        if place + length > right:
            left, right = place, place + length
    return lengths[:0:-1]
