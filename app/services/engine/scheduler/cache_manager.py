"""What there is of prompts and answers, for rows: stored, or in rows that run."""

import time
from collections.abc import Callable, Iterable

import numpy as np

from app.services.engine.cache.layers import Layers
from app.services.engine.cache.prefix_cache import PrefixCache
from app.services.engine.cache.prefixes import CachedPrefix
from app.services.engine.model.adapters import Adapters
from app.services.engine.model.prefill import SHORT
from app.services.engine.scheduler.row import Row
from app.services.engine.scheduler.shared_prefix import MIN_SHARED, shared_length
from app.services.generation import CacheUse


class CacheManager:
    """Looks up the prompts of rows in the prefix cache, and stores there what rows leave.

    What adapters compute is stored apart from what the model computes by itself.
    """

    def __init__(self, prefixes: PrefixCache, adapters: Adapters, layers: Callable[[Row], Layers | None]) -> None:
        self._prefixes = prefixes
        self._adapters = adapters
        self._layers = layers  # of a row that runs, if there is memory for a copy

    @property
    def nbytes(self) -> int:
        """Bytes of all that is stored in memory."""
        return self._prefixes.nbytes

    def look_up(self, row: Row, running: Iterable[Row]) -> CachedPrefix | None:
        """Give what there is of a row's prompt; the row notes how much that is, why not more, and how long it took.

        What has to be computed again for good reason, since memory ran out, is not copied from rows that run.
        """
        began = time.perf_counter()
        prefix = self._find(row, running)
        row.prefill.note_look_up(began)
        return prefix

    def _find(self, row: Row, running: Iterable[Row]) -> CachedPrefix | None:
        state = row.prefill
        if row.prompt_scorer is not None:  # nothing is stored of how likely its tokens were
            state.note_cache_use(CacheUse(0, "not_stored"))
            return None
        key = self._adapters.keys(state.tokens, row.scales) or []
        cached = self._prefixes.get(key)
        if cached and (whole := row.images.before(len(cached.tokens))) < len(cached.tokens):
            cached = cached.cut(whole)
        tokens = len(cached.tokens) if cached else 0
        if not row.answer:  # one that was interrupted has noted it before
            state.note_cache_use(self._prefixes.explain(key, tokens, other_model=state.other_model))
        if row.failures:
            return cached
        return self._copy(row, running, tokens + MIN_SHARED) or cached

    def store(self, row: Row) -> None:
        """Store the layers that a row has, if there are any; it has none then."""
        row.trim_unread()
        key, state = self._adapters.keys(row.layer_tokens, row.scales), row.prefill
        if state.layers is not None and state.length and key:
            continues = row.generation is not None and row.generation.caller.conversing
            reused = continues or row.cached_tokens >= SHORT
            self._prefixes.put(key, state.take_layers(), state.checkpoints, expect_reuse=reused)

    def _copy(self, row: Row, running: Iterable[Row], least: int) -> CachedPrefix | None:
        """Copy the longest prefix of a row's prompt that a running row has computed, of so many tokens at least.

        A row that has still to compute much of what they share is waited for instead.
        """
        shared = {other: shared_length(row, other, least) for other in running}
        source = max(
            (other for other, length in shared.items() if length and length - other.length < MIN_SHARED),
            key=lambda other: min(shared[other], other.length),
            default=None,
        )
        layers = self._layers(source) if source else None
        if source is None or layers is None:
            return None
        computed = np.asarray(source.layer_tokens, dtype=np.int32)
        copied = CachedPrefix(computed, layers, source.prefill.checkpoints).cut(min(shared[source], len(computed)))
        if copied is None or len(copied.tokens) < least:
            return None
        copied.layers.compact()
        row.prefill.note_shared(len(copied.tokens), shared[source])
        return copied
