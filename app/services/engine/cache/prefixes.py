"""Searches token sequences for common prefixes, and chooses where checkpoints of a prompt are made."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from app.services.engine.cache.layers import Checkpoints, Layers, copy_layers

TokenArray = npt.NDArray[np.int32]  # (length,)

CHECKPOINT_DISTANCE = 32  # tokens between two checkpoints at least: fewer are soon computed
_LAST_CHECKPOINTS = 3  # ends of messages of a prompt, besides its first
_LONG_END = 65  # tokens that a prompt goes on after its last checkpoint to have one at its end: fewer may be padded


@dataclass(frozen=True, slots=True)
class CachedPrefix:
    """Tokens, the layers computed from them, and the checkpoints within."""

    tokens: TokenArray
    layers: Layers
    checkpoints: Checkpoints

    @property
    def trimmable(self) -> bool:
        """Whether the layers can be trimmed to any length now."""
        return self.layers.can_trim

    @property
    def cut_step(self) -> int:
        """What those lengths have to be multiples of, in tokens."""
        return self.layers.cut_step

    @property
    def checkpoint_lengths(self) -> Collection[int]:
        """Lengths, in tokens, to which the layers can be cut otherwise."""
        return self.checkpoints

    def cut(self, length: int) -> "CachedPrefix | None":
        """Copy what can be used of its first `length` tokens; None if that is nothing."""
        usable = usable_length(self, length)
        if not usable:
            return None
        checkpoint = None if self.trimmable else self.checkpoints.get(usable)
        layers = copy_layers(self.layers, len(self.tokens) - usable, checkpoint)
        checkpoints = {position: layers for position, layers in self.checkpoints.items() if position <= usable}
        return CachedPrefix(self.tokens[:usable], layers, checkpoints)


class Prefix(Protocol):
    """Tokens with a KV cache that is trimmable to multiples of a length, or else to its checkpoints alone."""

    @property
    def tokens(self) -> TokenArray:
        """Tokens (length,)."""

    @property
    def trimmable(self) -> bool:
        """Whether its cache can be cut to any length that is such a multiple."""

    @property
    def cut_step(self) -> int:
        """What the lengths have to be multiples of, in tokens, to which it can be cut: 1 where nothing is rounded."""

    @property
    def checkpoint_lengths(self) -> Collection[int]:
        """Lengths, in tokens, to which a cache can be cut that is not trimmable."""


P = TypeVar("P", bound=Prefix)


def common_prefix_length(a: TokenArray, b: TokenArray) -> int:
    """Count the tokens that two sequences have in common from the start."""
    length = min(len(a), len(b))
    if not length:
        return 0
    different = a[:length] != b[:length]
    first = int(different.argmax())
    return first if different[first] else length


def common_length(a: Sequence[object], b: Sequence[object]) -> int:
    """Count what two sequences begin with alike: by halves, since a slice is compared much faster than its items."""
    least, most = 0, min(len(a), len(b))
    while least < most:
        middle = (least + most + 1) // 2
        if a[least:middle] == b[least:middle]:
            least = middle
        else:
            most = middle - 1
    return least


def longest_common_prefix(sequences: Iterable[TokenArray], tokens: TokenArray) -> int:
    """Length of the longest prefix that any of the sequences has in common with the tokens."""
    longest = 0
    for sequence in sequences:
        if len(sequence) > longest < len(tokens) and sequence[longest] == tokens[longest]:  # else it cannot be longer
            longest = max(longest, common_prefix_length(sequence, tokens))
    return longest


def is_prefix(prefix: TokenArray, tokens: TokenArray) -> bool:
    """Whether tokens begin with a prefix, which is not empty."""
    length = len(prefix)
    return (
        len(tokens) >= length
        and bool(tokens[length - 1] == prefix[-1])
        and tokens[:length].tobytes() == prefix.tobytes()
    )


def either_is_prefix(a: TokenArray, b: TokenArray) -> bool:
    """Whether one of two sequences begins with the other, and neither is empty."""
    short, long = sorted((a, b), key=len)
    return len(short) > 0 and is_prefix(short, long)


def longest_match(prefixes: Iterable[P], tokens: TokenArray) -> tuple[int, P | None]:
    """Find the prefix whose cache can be used for the most of these tokens, and for how many."""
    longest, match = 0, None
    for prefix in prefixes:
        if len(prefix.tokens) <= longest or longest >= len(tokens) or prefix.tokens[longest] != tokens[longest]:
            continue  # it cannot share more than the longest so far
        length = usable_length(prefix, common_prefix_length(prefix.tokens, tokens))
        if length > longest:
            longest, match = length, prefix
    return longest, match


def usable_length(prefix: Prefix, length: int) -> int:
    """How many of its first `length` tokens the prefix's cache can be cut to."""
    if length == len(prefix.tokens):
        return length
    step = prefix.cut_step
    if prefix.trimmable:
        return length - length % step
    return max((one for one in prefix.checkpoint_lengths if one <= length and not one % step), default=0)


def checkpoint_positions(
    tokens: list[int], start: int, control_tokens: frozenset[int], shared: int | None = None, cut_step: int = 1
) -> list[int]:
    """Choose where checkpoints are made of a prompt that is computed from `start` on, in ascending order.

    That is where its messages end, and where it first differs from an earlier prompt, after so many `shared` tokens:
    a third one may begin alike. Text without messages, if it is long, has a checkpoint before its last token, so that
    it need not be computed again to be answered again. All are multiples of `cut_step`.
    """
    positions = message_ends(tokens, start, control_tokens)
    end = len(tokens) - 1
    for position, distance in ((min(shared or 0, end), CHECKPOINT_DISTANCE), (end, _LONG_END)):
        if position - max((other for other in positions if other <= position), default=start) >= distance:
            positions.append(position)
    return sorted({rounded for position in positions if (rounded := position - position % cut_step) > start})


def message_ends(tokens: list[int], start: int, control_tokens: frozenset[int]) -> list[int]:
    """Find where the messages of a prompt end behind `start`: the first and the last few, in ascending order.

    Chat templates put control tokens around each message. A conversation that goes on, or whose last message is
    edited, shares all up to one of them.
    """
    ends: list[int] = []
    positions = np.flatnonzero(np.isin(tokens, list(control_tokens)))
    for position in (int(index) for index in positions[::-1]):
        if position - start >= CHECKPOINT_DISTANCE and (not ends or ends[-1] - position >= CHECKPOINT_DISTANCE):
            ends.append(position)
    return sorted({*ends[:_LAST_CHECKPOINTS], *ends[-1:]})
