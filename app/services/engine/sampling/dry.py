"""DRY (Don't Repeat Yourself): a token that would extend a repetition becomes less likely, the longer that is.

Source: the sampler of that name in llama.cpp, which has it from p-e-w's for text-generation-webui.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

_LOG_MAX_FLOAT = 88.7228391  # of the largest float32
_MAX_PENALTY = 3e38
_MAX_BREAKER = 20  # tokens of a breaker after its first


@dataclass(frozen=True, slots=True)
class Breakers:
    """Tokens that end a repetition: single ones, and sequences of them."""

    single: frozenset[int] = frozenset()
    sequences: Mapping[int, Sequence[tuple[int, ...]]] = field(default_factory=dict)  # by the last token


NO_BREAKERS = Breakers()


@dataclass(frozen=True, slots=True)
class Dry:
    """DRY of one row. The penalty on a logit is multiplier * base ** (length - allowed_length)."""

    multiplier: float
    base: float = 1.75
    allowed_length: int = 2  # tokens
    window: int = 64  # last tokens of prompt and answer that are searched
    breakers: Breakers = NO_BREAKERS

    @property
    def max_excess(self) -> int | None:
        """Tokens over the allowed length after which the penalty stops growing; None is never."""
        return int(_LOG_MAX_FLOAT / math.log(self.base)) or None if self.base > 1.000001 else None


class RepetitionTracker:
    """Finds where the end of a text occurred before, as the text grows. A token costs one pass over the window."""

    def __init__(self, dry: Dry, tokens: Sequence[int]) -> None:
        self._dry = dry
        tail = list(tokens[-dry.window :])
        self._tokens = np.array(tail, dtype=np.int64)
        self._lengths = np.array(_match_lengths(tail), dtype=np.int64)
        self._count = 0  # tokens
        self._breaker_start = self._breaker_end = -1  # of the last breaker, as an index into all tokens
        for index in range(len(tail)):
            self._find_breaker(tail[max(0, index - _MAX_BREAKER) : index + 1])

    def push(self, token: int) -> None:
        """Add the next token."""
        before = np.concatenate([[0], self._lengths])[: len(self._tokens)]
        lengths = np.where(self._tokens == token, before + 1, 0)
        self._tokens = np.append(self._tokens, token)[-self._dry.window :]
        self._lengths = lengths[len(lengths) - len(self._tokens) + 1 :]
        self._find_breaker(self._tokens[-_MAX_BREAKER - 1 :].tolist())

    def penalties(self) -> dict[int, float]:
        """Give what to subtract from the logits of the tokens that would extend a repetition."""
        dry, reach = self._dry, self._reach()
        if min(reach, len(self._tokens) - 1) < dry.allowed_length:
            return {}
        limits = np.minimum(np.arange(1, len(self._tokens)), reach)  # no repetition begins before the window
        lengths = np.minimum(self._lengths, limits)
        ends = np.flatnonzero(lengths >= dry.allowed_length)
        ends = ends[np.argsort(lengths[ends], kind="stable")]  # of several for one token the longest is the last
        longest = dict(zip(self._tokens[ends + 1].tolist(), lengths[ends].tolist(), strict=True))
        return {token: self._penalty(n) for token, n in longest.items() if token not in dry.breakers.single}

    def _penalty(self, length: int) -> float:
        excess = length - self._dry.allowed_length
        if self._dry.max_excess is not None:
            excess = min(excess, self._dry.max_excess)
        return min(_MAX_PENALTY, self._dry.multiplier * self._dry.base**excess)

    def _reach(self) -> int:
        """Tokens of the window since the last breaker, or all of them."""
        in_window = self._breaker_start >= max(0, self._count - len(self._tokens))
        return self._count - 1 - self._breaker_end if in_window else len(self._tokens)

    def _find_breaker(self, tail: list[int]) -> None:
        """Note the breaker that ends with the last token, if there is one; of several the one that starts last."""
        breakers, index = self._dry.breakers, self._count
        self._count += 1
        lengths = [1] if tail[-1] in breakers.single else []
        sequences = breakers.sequences.get(tail[-1], ())
        lengths += [len(sequence) for sequence in sequences if tuple(tail[-len(sequence) :]) == sequence]
        for length in lengths:
            if index - length + 1 >= self._breaker_start:
                self._breaker_start, self._breaker_end = index - length + 1, index


def _match_lengths(tokens: list[int]) -> list[int]:
    """For each index but the last: how many tokens that end there equal the last ones (the Z-algorithm, reversed)."""
    text = tokens[::-1]
    count = len(text)
    lengths = [0] * count
    left = right = 0  # text[left:right] repeats the start of the text
    for index in range(1, count):
        length = min(right - index, lengths[index - left]) if index < right else 0
        while index + length < count and text[length] == text[index + length]:
            length += 1
        lengths[index] = length
        if index + length > right:
            left, right = index, index + length
    return lengths[:0:-1]
