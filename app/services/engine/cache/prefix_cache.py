"""KV caches kept between requests, found by the longest common beginning of their tokens."""

import copy
import time
from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import mlx.core as mx
import numpy as np
from mlx_lm.models.cache import can_trim_prompt_cache, trim_prompt_cache

from app.services.engine.cache.layers import Checkpoints, Layers, at_mark, mark, nbytes
from app.services.engine.cache.prefix_store import PrefixStore
from app.services.engine.cache.prefixes import CachedPrefix, covers, longest_shared, nearest, related, shared, usable
from app.services.generation import CacheUse

_MOST_ENTRIES = 256  # the search looks at every one
_MOST_MARKS = 8  # of an entry: its first and its last ones
_EVICTED_REMEMBERED = 64
_WORTH_READING = 64  # tokens that the disk must know more than the memory
_UNPROVEN = 600.0  # seconds that what nobody has come back to counts as older than it is


@dataclass(slots=True, eq=False)
class _Entry:
    tokens: Any  # int32 (length,)
    layers: Layers
    trimmable: bool
    marks: Checkpoints
    used: float = field(default_factory=time.monotonic)
    nbytes: int = field(init=False)  # asked for far more often than it changes

    def __post_init__(self) -> None:
        self.keep(self.marks)

    @property
    def lengths(self) -> Collection[int]:
        return self.marks

    def keep(self, marks: Checkpoints) -> None:
        """Have these marks."""
        self.marks = marks
        self.nbytes = nbytes(self.layers) + sum(nbytes(marked) for marked in marks.values())

    def cut(self, length: int) -> Layers:
        """Give a copy of the layers for the first tokens; copy on write: nothing is copied here."""
        surplus = len(self.tokens) - length
        if surplus and not self.trimmable:
            return at_mark(self.layers, self.marks[length], surplus)
        layers = copy.deepcopy(self.layers)
        if surplus:
            trim_prompt_cache(layers, surplus)
        return layers


class PrefixCache:
    """In memory up to `max_bytes`, least recently used goes first; behind it a store on disk, if there is one.

    What nobody has come back to goes before conversations: a title or another aside does not cost the conversation
    that it is about. Lives on the engine thread.
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

    def take(self, tokens: Sequence[int]) -> CachedPrefix | None:
        """Give a copy of the layers for the longest known beginning. One token always stays over."""
        wanted = np.asarray(tokens[:-1], dtype=np.int32)
        if not len(wanted):
            return None
        length, entry = nearest(self._entries, wanted)
        if (read := self._read(wanted, length)) is not None:
            length, entry = usable(read, shared(read.tokens, wanted)), read
        if entry is None or not length:
            return None
        entry.used = time.monotonic()
        marks = {place: marked for place, marked in entry.marks.items() if place <= length}
        return CachedPrefix(wanted[:length], entry.cut(length), marks)

    def explain(self, tokens: Sequence[int], cached: int, *, known_elsewhere: bool = False) -> CacheUse:
        """Say why no more than so many of the tokens are known; `known_elsewhere` is to another model."""
        if len(tokens) and cached >= len(tokens) - 1:
            return CacheUse(cached, "whole")
        wanted = np.asarray(tokens, dtype=np.int32)
        gone = longest_shared(self._evicted, wanted)
        known = longest_shared((entry.tokens for entry in self._entries), wanted)
        if gone > max(known, cached):
            return CacheUse(cached, "evicted", gone)
        if known_elsewhere:
            return CacheUse(cached, "other_model")
        return CacheUse(cached, "first_diff", known) if known else CacheUse(cached, "not_stored")

    def put(
        self, tokens: Sequence[int], layers: Layers, marks: Checkpoints | None = None, *, proven: bool = False
    ) -> None:
        """Keep the layers of these tokens, and the marks within; what they cover or what covers them is kept once.

        `proven` is what will be asked for again as far as can be told: it goes later.
        """
        kept = np.asarray(tokens, dtype=np.int32)
        if not len(kept):
            return
        mx.eval([layer.state for layer in layers])  # a lazy copy would keep the whole batch alive
        entry = _Entry(kept, layers, can_trim_prompt_cache(layers), dict(marks or {}))
        if not proven:
            entry.used -= _UNPROVEN
        if self._covered(entry):
            return
        self._add(entry)
        if self._store is not None:
            self._store.note(kept, layers, entry.marks, trimmable=entry.trimmable)

    def evict(self, wanted_bytes: int, keep: Sequence[int] = ()) -> int:
        """Let go of entries for so many bytes, the one last that stands for the tokens to keep. Returns the bytes."""
        _, spared = nearest(self._entries, np.asarray(keep, dtype=np.int32))
        freed = 0
        for entry in sorted(self._entries, key=lambda entry: (entry is spared, entry.used)):
            if freed >= wanted_bytes:
                break
            freed += entry.nbytes
            self._drop(entry)
        return freed

    def whole(self, tokens: Sequence[int]) -> tuple[Any, Layers] | None:
        """Give copies of these tokens, as far as they are known, and of their layers."""
        found = self.take([*tokens, 0])  # which leaves the last one out
        return None if found is None else (found.tokens, found.layers)

    def forget(self, tokens: Sequence[int]) -> None:
        """Forget a conversation, what came before these tokens of it and what came after; on disk too."""
        gone = np.asarray(tokens, dtype=np.int32)
        self._entries = [entry for entry in self._entries if not related(entry.tokens, gone)]
        if self._store is not None:
            self._store.forget(gone)

    def clear(self) -> None:
        """Forget everything in memory."""
        self._entries.clear()

    def write(self) -> None:
        """Have written what is to be on disk; on any thread."""
        if self._store is not None:
            self._store.flush()

    def close(self) -> None:
        """Let the disk have what it should, and let go of everything."""
        self.clear()
        self.write()

    def _read(self, wanted: Any, known: int) -> _Entry | None:
        """Bring a prefix back from the disk, if the memory knows much less of it."""
        if self._store is None or self._store.longest(wanted) < known + _WORTH_READING:
            return None
        found = self._store.load(wanted)
        if found is None:
            return None
        entry = _Entry(found.tokens, found.layers, can_trim_prompt_cache(found.layers), dict(found.marks))
        self._add(entry)
        return entry

    def _add(self, entry: _Entry) -> None:
        self._absorb(entry)
        if entry.nbytes > self._max_bytes:
            return
        self._entries.append(entry)
        self._fit(entry)

    def _absorb(self, entry: _Entry) -> None:
        """Put an entry in the place of those that it covers, with their marks."""
        for old in [old for old in self._entries if covers(entry.tokens, old.tokens)]:
            entry.used = max(entry.used, old.used, time.monotonic() if len(old.tokens) < len(entry.tokens) else 0.0)
            if not entry.trimmable:
                entry.marks = {len(old.tokens): mark(old.layers)} | old.marks | entry.marks
            self._entries.remove(old)
        entry.keep(_fewest(entry))

    def _covered(self, entry: _Entry) -> bool:
        """Whether what there is stands for all of an entry; what it did not stand for, it takes over."""
        old = next((old for old in self._entries if covers(old.tokens, entry.tokens)), None)
        if old is None:
            return False
        old.used = time.monotonic()
        if not old.trimmable:
            old.marks = {len(entry.tokens): mark(entry.layers)} | entry.marks | old.marks
            old.keep(_fewest(old))
            self._fit(old)
        return True

    def _fit(self, latest: _Entry) -> None:
        """Let go of what was used longest ago, but of the latest only for the sake of what was used just before.

        The latest may be the beginning of a conversation, or a mere aside of the one before.
        """
        held = self.nbytes
        if held <= self._max_bytes and len(self._entries) <= _MOST_ENTRIES:
            return
        before = max(
            (entry for entry in self._entries if entry is not latest), key=lambda entry: entry.used, default=None
        )
        for entry in sorted(self._entries, key=lambda entry: (entry is latest or entry is before, entry.used)):
            if held <= self._max_bytes and len(self._entries) <= _MOST_ENTRIES:
                break
            held -= entry.nbytes
            self._drop(entry)

    def _drop(self, entry: _Entry) -> None:
        self._entries = [one for one in self._entries if one is not entry]
        self._evicted.append(entry.tokens)


def _fewest(entry: _Entry) -> Checkpoints:
    """Leave of the marks the first and the last ones; the whole length needs none."""
    places = sorted(place for place in entry.marks if place < len(entry.tokens))
    return {place: entry.marks[place] for place in {*places[:1], *places[1 - _MOST_MARKS :]}}
