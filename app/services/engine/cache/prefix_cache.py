"""Prefix cache: KV caches of earlier prompts and answers, found by the longest prefix they share with a new prompt."""

import time
from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import numpy as np

from app.services.engine.cache.layers import Checkpoints, Layers
from app.services.engine.cache.prefix_store import PrefixStore
from app.services.engine.cache.prefixes import (
    CachedPrefix,
    TokenArray,
    common_prefix_length,
    either_is_prefix,
    is_prefix,
    longest_common_prefix,
    longest_match,
    usable_length,
)
from app.services.generation import CacheUse

_MAX_ENTRIES = 256  # the search looks at every one
_MAX_CHECKPOINTS = 8  # of an entry
_MAX_EVICTED = 64  # evicted prefixes whose tokens are remembered
_WORTH_READING = 64  # tokens that the match on disk must be longer than the one in memory
_NEVER_HIT_AGE = 600.0  # seconds by which an entry counts as older until it is hit


@dataclass(slots=True, eq=False)
class _Entry:
    tokens: TokenArray
    layers: Layers
    trimmable: bool
    checkpoints: Checkpoints
    last_used: float = field(default_factory=time.monotonic)
    nbytes: int = field(init=False)  # read far more often than it changes

    def __post_init__(self) -> None:
        self.set_checkpoints(self.checkpoints)

    @property
    def checkpoint_lengths(self) -> Collection[int]:
        return self.checkpoints

    @property
    def cut_step(self) -> int:
        return self.layers.cut_step

    def set_checkpoints(self, checkpoints: Checkpoints) -> None:
        """Replace the checkpoints."""
        self.checkpoints = checkpoints
        self.nbytes = self.layers.nbytes + sum(layers.nbytes for layers in checkpoints.values())


class PrefixCache:
    """An LRU cache of up to `max_bytes` in memory; behind it a store on disk, if there is one.

    An entry that was never hit is evicted before conversations: the request for a title does not cost the conversation
    that it is about. Lives on the engine thread.
    """

    def __init__(self, max_bytes: int, store: PrefixStore | None = None) -> None:
        self._max_bytes = max_bytes
        self._store = store
        self._entries: list[_Entry] = []
        self._evicted_tokens: deque[TokenArray] = deque(maxlen=_MAX_EVICTED)

    @property
    def nbytes(self) -> int:
        """Bytes of all entries."""
        return sum(entry.nbytes for entry in self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, tokens: Sequence[int]) -> CachedPrefix | None:
        """Copy the longest cached prefix of a prompt. It is shorter than the prompt: one token has to be computed."""
        return self._get(np.asarray(tokens[:-1], dtype=np.int32))

    def get_whole(self, tokens: Sequence[int]) -> CachedPrefix | None:
        """Copy the longest cached prefix of these tokens, which may be all of them."""
        return self._get(np.asarray(tokens, dtype=np.int32))

    def explain(self, tokens: Sequence[int], cached_tokens: int, *, other_model: bool = False) -> CacheUse:
        """Say why no more of the tokens came from the cache. `other_model`: another answered this conversation last."""
        if len(tokens) and cached_tokens >= len(tokens) - 1:
            return CacheUse(cached_tokens, "whole")
        prompt = np.asarray(tokens, dtype=np.int32)
        evicted_length = longest_common_prefix(self._evicted_tokens, prompt)
        stored_length = longest_common_prefix((entry.tokens for entry in self._entries), prompt)
        if evicted_length > max(stored_length, cached_tokens):
            return CacheUse(cached_tokens, "evicted", evicted_length)
        if other_model:
            return CacheUse(cached_tokens, "other_model")
        if stored_length:
            return CacheUse(cached_tokens, "first_diff", stored_length)
        return CacheUse(cached_tokens, "not_stored")

    def put(
        self,
        tokens: Sequence[int],
        layers: Layers,
        checkpoints: Checkpoints | None = None,
        *,
        expect_reuse: bool = False,
    ) -> None:
        """Store the layers of these tokens with the checkpoints within. Of two prefixes of each other one is stored.

        Where `expect_reuse`, the entry counts as hit, and so is evicted later.
        """
        array = np.asarray(tokens, dtype=np.int32)
        if not len(array):
            return
        layers.evaluate()  # a lazy copy would keep the whole batch alive
        entry = _Entry(array, layers, layers.can_trim, dict(checkpoints or {}))
        if not expect_reuse:
            entry.last_used -= _NEVER_HIT_AGE
        if self._merge_into_longer(entry):
            return
        self._add(entry)
        if self._store is not None:
            self._store.put(array, layers, entry.checkpoints, trimmable=entry.trimmable)

    def evict(self, size: int, keep: Sequence[int] = ()) -> int:
        """Evict entries of `size` bytes or more, last the one that matches the tokens to keep. Returns the bytes."""
        _, match = longest_match(self._entries, np.asarray(keep, dtype=np.int32))
        freed = 0
        for entry in sorted(self._entries, key=lambda entry: (entry is match, entry.last_used)):
            if freed >= size:
                break
            freed += entry.nbytes
            self._evict(entry)
        return freed

    def forget(self, tokens: Sequence[int]) -> None:
        """Forget a conversation, what came before these tokens of it and what came after; on disk too."""
        conversation = np.asarray(tokens, dtype=np.int32)
        self._entries = [entry for entry in self._entries if not either_is_prefix(entry.tokens, conversation)]
        if self._store is not None:
            self._store.forget(conversation)

    def clear(self) -> None:
        """Forget everything in memory."""
        self._entries.clear()

    def flush(self) -> None:
        """Write to the disk what is still to be written; on any thread."""
        if self._store is not None:
            self._store.flush()

    def close(self) -> None:
        """Flush, and forget everything in memory."""
        self.clear()
        self.flush()

    def _get(self, tokens: TokenArray) -> CachedPrefix | None:
        if not len(tokens):
            return None
        length, entry = longest_match(self._entries, tokens)
        if (from_disk := self._load(tokens, length)) is not None:
            length, entry = usable_length(from_disk, common_prefix_length(from_disk.tokens, tokens)), from_disk
        if entry is None or not length:
            return None
        entry.last_used = time.monotonic()
        return CachedPrefix(entry.tokens, entry.layers, entry.checkpoints).cut(length)

    def _load(self, tokens: TokenArray, length: int) -> _Entry | None:
        """Load a prefix from the disk, if it matches many more tokens than the `length` that memory has."""
        if self._store is None or self._store.match_length(tokens) < length + _WORTH_READING:
            return None
        prefix = self._store.get(tokens)
        if prefix is None:
            return None
        entry = _Entry(prefix.tokens, prefix.layers, prefix.layers.can_trim, dict(prefix.checkpoints))
        self._add(entry)
        return entry

    def _add(self, entry: _Entry) -> None:
        self._replace_shorter(entry)
        if entry.nbytes > self._max_bytes:
            return
        self._entries.append(entry)
        self._evict_surplus(entry)

    def _replace_shorter(self, entry: _Entry) -> None:
        """Remove the entries that are prefixes of this one, which takes over their checkpoints."""
        for old in [old for old in self._entries if is_prefix(old.tokens, entry.tokens)]:
            hit = time.monotonic() if len(old.tokens) < len(entry.tokens) else 0.0
            entry.last_used = max(entry.last_used, old.last_used, hit)
            if not entry.trimmable:
                entry.checkpoints = {len(old.tokens): old.layers.checkpoint()} | old.checkpoints | entry.checkpoints
            self._entries.remove(old)
        entry.set_checkpoints(_thin_out(entry))

    def _merge_into_longer(self, entry: _Entry) -> bool:
        """Give an entry's checkpoints to one that it is a prefix of. Returns whether there is one."""
        old = next((old for old in self._entries if is_prefix(entry.tokens, old.tokens)), None)
        if old is None:
            return False
        old.last_used = time.monotonic()
        if not old.trimmable:
            old.checkpoints = {len(entry.tokens): entry.layers.checkpoint()} | entry.checkpoints | old.checkpoints
            old.set_checkpoints(_thin_out(old))
            self._evict_surplus(old)
        return True

    def _evict_surplus(self, latest: _Entry) -> None:
        """Evict down to the limits: least recently used first, the latest and the one used before it last.

        The latest may be the start of a conversation, or a mere aside of the one before.
        """
        size = self.nbytes
        if size <= self._max_bytes and len(self._entries) <= _MAX_ENTRIES:
            return
        before = max(
            (entry for entry in self._entries if entry is not latest), key=lambda entry: entry.last_used, default=None
        )
        for entry in sorted(self._entries, key=lambda entry: (entry is latest or entry is before, entry.last_used)):
            if size <= self._max_bytes and len(self._entries) <= _MAX_ENTRIES:
                break
            size -= entry.nbytes
            self._evict(entry)

    def _evict(self, entry: _Entry) -> None:
        self._entries = [other for other in self._entries if other is not entry]
        self._evicted_tokens.append(entry.tokens)


def _thin_out(entry: _Entry) -> Checkpoints:
    """Leave a few checkpoints of an entry; its full length needs none.

    The first stays, for prompts that begin alike, and the last. Between them distances grow with the distance from the
    end. So what branches off far back, as a question does behind many calls of an agent whose reasoning is then left
    out, computes not much more than what it adds, and no turn loses all but the last few messages.
    """
    end, step = len(entry.tokens), entry.cut_step
    positions = sorted(one for one in entry.checkpoints if one < end and not one % step)
    while len(positions) > _MAX_CHECKPOINTS:
        gaps = [
            (after - before) / (end - before) for before, after in zip(positions, [*positions[2:], end], strict=False)
        ]
        del positions[gaps.index(min(gaps)) + 1]
    return {position: entry.checkpoints[position] for position in positions}
