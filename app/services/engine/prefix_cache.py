"""KV caches kept between requests, found by the longest common beginning of their tokens."""

import copy
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import mlx.core as mx
import numpy as np
from mlx_lm.models.cache import can_trim_prompt_cache, trim_prompt_cache

Layers = list[Any]  # one mlx-lm cache a layer, of a single row

_MOST_ENTRIES = 256  # the search looks at every one


@dataclass(slots=True)
class _Entry:
    tokens: Any  # int32 (length,)
    layers: Layers
    nbytes: int
    trimmable: bool
    used: float = field(default_factory=time.monotonic)

    def usable(self, wanted: Any) -> int:
        """How many of the wanted tokens this entry's cache can stand for."""
        shared = _shared(self.tokens, wanted)
        return shared if self.trimmable or shared == len(self.tokens) else 0


class PrefixCache:
    """Least recently used goes first once `max_bytes` are over. Lives on the engine thread."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._entries: list[_Entry] = []

    @property
    def nbytes(self) -> int:
        """Bytes that the entries hold."""
        return sum(entry.nbytes for entry in self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def take(self, tokens: Sequence[int]) -> tuple[Layers, int] | None:
        """Give a copy of the layers for the longest known beginning, and its length. One token always stays over."""
        if not self._entries or len(tokens) < 2:
            return None
        wanted = np.asarray(tokens[:-1], dtype=np.int32)
        length, entry = self._nearest(wanted)
        if entry is None:
            return None
        entry.used = time.monotonic()
        layers = copy.deepcopy(entry.layers)  # copy on write: nothing is copied here
        if length < len(entry.tokens):
            trim_prompt_cache(layers, len(entry.tokens) - length)
        return layers, length

    def put(self, tokens: Sequence[int], layers: Layers) -> None:
        """Keep the layers of these tokens; what they cover or what covers them is not kept twice."""
        kept = np.asarray(tokens, dtype=np.int32)
        nbytes = sum(layer.nbytes for layer in layers)
        if nbytes > self._max_bytes or not len(kept):
            return
        trimmable = can_trim_prompt_cache(layers)
        if trimmable and self._covered(kept):
            return
        mx.eval([layer.state for layer in layers])  # a lazy copy would keep the whole batch alive
        self._entries = [entry for entry in self._entries if not (trimmable and _covers(kept, entry.tokens))]
        self._entries.append(_Entry(kept, layers, nbytes, trimmable))
        self._evict()

    def clear(self) -> None:
        """Forget everything."""
        self._entries.clear()

    def _nearest(self, wanted: Any) -> tuple[int, _Entry | None]:
        best, found = 0, None
        for entry in self._entries:
            if len(entry.tokens) <= best or best >= len(wanted) or entry.tokens[best] != wanted[best]:
                continue  # it cannot share more than the best so far
            if (length := entry.usable(wanted)) > best:
                best, found = length, entry
        return best, found

    def _covered(self, tokens: Any) -> bool:
        for entry in self._entries:
            if _covers(entry.tokens, tokens):
                entry.used = time.monotonic()
                return True
        return False

    def _evict(self) -> None:
        held = self.nbytes
        self._entries.sort(key=lambda entry: entry.used)
        while self._entries and (held > self._max_bytes or len(self._entries) > _MOST_ENTRIES):
            held -= self._entries.pop(0).nbytes


def _shared(one: Any, other: Any) -> int:
    """Length of the common beginning."""
    length = min(len(one), len(other))
    different = one[:length] != other[:length]
    return int(different.argmax()) if different.any() else length


def _covers(long: Any, short: Any) -> bool:
    length = len(short)
    return len(long) >= length and bool(long[length - 1] == short[-1]) and _shared(long, short) == length
