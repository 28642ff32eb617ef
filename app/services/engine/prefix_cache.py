"""KV caches kept between requests, found by the longest common beginning of their tokens."""

import copy
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import mlx.core as mx
import numpy as np
from mlx_lm.models.cache import can_trim_prompt_cache, trim_prompt_cache

from app.services.engine.prefix_store import PrefixStore
from app.services.engine.prefixes import Layers, covers, longest_shared, nearest, related
from app.services.generation import CacheUse

_MOST_ENTRIES = 256  # the search looks at every one
_EVICTED_REMEMBERED = 64
_WORTH_READING = 64  # tokens that the disk must know more than the memory


@dataclass(slots=True)
class _Entry:
    tokens: Any  # int32 (length,)
    layers: Layers
    nbytes: int
    trimmable: bool
    used: float = field(default_factory=time.monotonic)


class PrefixCache:
    """In memory up to `max_bytes`, least recently used goes first; behind it a store on disk, if there is one.

    Lives on the engine thread.
    """

    def __init__(self, max_bytes: int, store: PrefixStore | None = None) -> None:
        self._max_bytes = max_bytes
        self._store = store
        self._entries: list[_Entry] = []
        self._evicted: deque[Any] = deque(maxlen=_EVICTED_REMEMBERED)  # tokens of what had to go

    @property
    def nbytes(self) -> int:
        """Bytes that the entries hold."""
        return sum(entry.nbytes for entry in self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def take(self, tokens: Sequence[int]) -> tuple[Layers, int] | None:
        """Give a copy of the layers for the longest known beginning, and its length. One token always stays over."""
        wanted = np.asarray(tokens[:-1], dtype=np.int32)
        if not len(wanted):
            return None
        self._read(wanted)
        length, entry = nearest(self._entries, wanted)
        if entry is None:
            return None
        entry.used = time.monotonic()
        layers = copy.deepcopy(entry.layers)  # copy on write: nothing is copied here
        if length < len(entry.tokens):
            trim_prompt_cache(layers, len(entry.tokens) - length)
        return layers, length

    def explain(self, tokens: Sequence[int], cached: int) -> CacheUse:
        """Say why no more than so many of the tokens are known."""
        if cached >= len(tokens) - 1:
            return CacheUse(cached, "whole")
        wanted = np.asarray(tokens, dtype=np.int32)
        gone = longest_shared(self._evicted, wanted)
        known = longest_shared((entry.tokens for entry in self._entries), wanted)
        if gone > max(known, cached):
            return CacheUse(cached, "evicted", gone)
        return CacheUse(cached, "first_diff", known) if known else CacheUse(cached, "not_stored")

    def put(self, tokens: Sequence[int], layers: Layers) -> None:
        """Keep the layers of these tokens; what they cover or what covers them is not kept twice."""
        kept = np.asarray(tokens, dtype=np.int32)
        if not len(kept) or (self._add(kept, layers) is None):
            return
        if self._store is not None:
            self._store.note(kept, layers, trimmable=can_trim_prompt_cache(layers))

    def whole(self, tokens: Sequence[int]) -> tuple[Any, Layers] | None:
        """Give copies of these tokens, as far as they are known, and of their layers."""
        found = self.take([*tokens, 0])  # which leaves the last one out
        return found and (np.asarray(tokens[: found[1]], dtype=np.int32), found[0])

    def forget(self, tokens: Sequence[int]) -> None:
        """Forget a conversation, what came before these tokens of it and what came after; on disk too."""
        gone = np.asarray(tokens, dtype=np.int32)
        self._entries = [entry for entry in self._entries if not related(entry.tokens, gone)]
        if self._store is not None:
            self._store.forget(gone)

    def clear(self) -> None:
        """Forget everything in memory."""
        self._entries.clear()

    def close(self) -> None:
        """Let the disk have what it should, and let go of everything."""
        self.clear()
        if self._store is not None:
            self._store.close()

    def _read(self, wanted: Any) -> None:
        """Bring a prefix back from the disk, if the memory knows much less of it."""
        if self._store is None or not len(self._store):
            return
        if self._store.longest(wanted) >= nearest(self._entries, wanted)[0] + _WORTH_READING:
            found = self._store.load(wanted)
            if found is not None:
                self._add(*found)

    def _add(self, tokens: Any, layers: Layers) -> _Entry | None:
        nbytes = sum(layer.nbytes for layer in layers)
        trimmable = can_trim_prompt_cache(layers)
        if nbytes > self._max_bytes or (trimmable and self._covered(tokens)):
            return None
        mx.eval([layer.state for layer in layers])  # a lazy copy would keep the whole batch alive
        entry = _Entry(tokens, layers, nbytes, trimmable)
        self._entries = [one for one in self._entries if not (trimmable and covers(tokens, one.tokens))]
        self._entries.append(entry)
        self._evict()
        return entry

    def _covered(self, tokens: Any) -> bool:
        for entry in self._entries:
            if covers(entry.tokens, tokens):
                entry.used = time.monotonic()
                return True
        return False

    def _evict(self) -> None:
        held = self.nbytes
        self._entries.sort(key=lambda entry: entry.used)
        while self._entries and (held > self._max_bytes or len(self._entries) > _MOST_ENTRIES):
            oldest = self._entries.pop(0)
            self._evicted.append(oldest.tokens)
            held -= oldest.nbytes
