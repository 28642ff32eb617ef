"""Common beginnings of token sequences, and which of many is the nearest."""

from collections.abc import Iterable
from typing import Any, Protocol, TypeVar

Layers = list[Any]  # one mlx-lm cache a layer, of a single row


class Prefix(Protocol):
    """Tokens, int32 (length,), whose caches are kept, and whether these can be cut to fewer tokens."""

    tokens: Any
    trimmable: bool


P = TypeVar("P", bound=Prefix)


def shared(one: Any, other: Any) -> int:
    """Length of the common beginning."""
    length = min(len(one), len(other))
    different = one[:length] != other[:length]
    return int(different.argmax()) if different.any() else length


def covers(long: Any, short: Any) -> bool:
    """Whether one sequence begins with the other."""
    length = len(short)
    return len(long) >= length and bool(long[length - 1] == short[-1]) and shared(long, short) == length


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
    length = shared(prefix.tokens, wanted)
    return length if prefix.trimmable or length == len(prefix.tokens) else 0


def related(one: Any, other: Any) -> bool:
    """Whether one of two sequences begins with the other, and neither is empty."""
    short, long = sorted((one, other), key=len)
    return len(short) > 0 and covers(long, short)


def longest_shared(sequences: Iterable[Any], wanted: Any) -> int:
    """Length of the longest beginning that any of the sequences has in common with the wanted one."""
    return max((shared(tokens, wanted) for tokens in sequences), default=0)
