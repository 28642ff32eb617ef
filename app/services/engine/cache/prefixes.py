"""Common beginnings of token sequences, and which of many is the nearest."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np

from app.services.engine.cache.layers import Checkpoints, Layers


@dataclass(frozen=True, slots=True)
class CachedPrefix:
    """Tokens, int32 (length,), and the layers that hold them, with the marks within."""

    tokens: Any
    layers: Layers
    marks: Checkpoints


_APART = 32  # tokens between two marks: fewer are soon computed
_LAST = 3  # marks of a prompt, besides its first


class Prefix(Protocol):
    """Tokens, int32 (length,), whose caches are kept; whether these can be cut to any length, or else to which ones."""

    tokens: Any
    trimmable: bool

    @property
    def lengths(self) -> Collection[int]:
        """Lengths to which a cache can be cut that is not trimmable."""


P = TypeVar("P", bound=Prefix)


def shared(one: Any, other: Any) -> int:
    """Length of the common beginning."""
    length = min(len(one), len(other))
    if not length:
        return 0
    different = one[:length] != other[:length]
    first = int(different.argmax())
    return first if different[first] else length


def covers(long: Any, short: Any) -> bool:
    """Whether one sequence begins with the other."""
    length = len(short)
    return len(long) >= length and bool(long[length - 1] == short[-1]) and long[:length].tobytes() == short.tobytes()


def nearest(prefixes: Iterable[P], wanted: Any) -> tuple[int, P | None]:
    """Find whose cache stands for the most of the wanted tokens, and for how many."""
    best, found = 0, None
    for prefix in prefixes:
        if len(prefix.tokens) <= best or best >= len(wanted) or prefix.tokens[best] != wanted[best]:
            continue  # it cannot share more than the best so far
        if (length := _usable(prefix, wanted)) > best:
            best, found = length, prefix
    return best, found


def _usable(prefix: Prefix, wanted: Any) -> int:
    return usable(prefix, shared(prefix.tokens, wanted))


def usable(prefix: Prefix, length: int) -> int:
    """How many of the first `length` tokens the prefix's cache can stand for."""
    if prefix.trimmable or length == len(prefix.tokens):
        return length
    return max((mark for mark in prefix.lengths if mark <= length), default=0)


def related(one: Any, other: Any) -> bool:
    """Whether one of two sequences begins with the other, and neither is empty."""
    short, long = sorted((one, other), key=len)
    return len(short) > 0 and covers(long, short)


def longest_shared(sequences: Iterable[Any], wanted: Any) -> int:
    """Length of the longest beginning that any of the sequences has in common with the wanted one."""
    best = 0
    for tokens in sequences:
        if len(tokens) > best < len(wanted) and tokens[best] == wanted[best]:  # else it cannot share more
            best = max(best, shared(tokens, wanted))
    return best


def boundaries(tokens: list[int], done: int, controls: frozenset[int]) -> list[int]:
    """Where the messages of a prompt end, the first time and the last few times, in ascending order.

    Chat templates put control tokens around each message. A conversation that goes on, or whose last message is
    written anew, shares all up to one of them.
    """
    found: list[int] = []
    places = np.flatnonzero(np.isin(tokens, list(controls)))
    for place in (int(one) for one in places[::-1]):
        if place - done >= _APART and (not found or found[-1] - place >= _APART):
            found.append(place)
    return sorted({*found[:_LAST], *found[-1:]})
