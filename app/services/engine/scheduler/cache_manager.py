"""What is stored of prompts and answers, for rows."""

from app.services.engine.cache.prefix_cache import PrefixCache
from app.services.engine.cache.prefixes import CachedPrefix
from app.services.engine.model.adapters import Adapters
from app.services.engine.model.prefill import SHORT
from app.services.engine.scheduler.row import Row


class CacheManager:
    """Looks up the prompts of rows in the prefix cache, and stores there what rows leave.

    What adapters compute is stored apart from what the model computes by itself.
    """

    def __init__(self, prefixes: PrefixCache, adapters: Adapters) -> None:
        self._prefixes = prefixes
        self._adapters = adapters

    @property
    def nbytes(self) -> int:
        """Bytes of all that is stored in memory."""
        return self._prefixes.nbytes

    def look_up(self, row: Row) -> CachedPrefix | None:
        """Give what is stored of a row's prompt; the row notes how much that is, and why not more."""
        state = row.prefill
        key = self._adapters.keys(state.tokens, row.scales) or []
        cached = self._prefixes.get(key)
        if not row.answer:  # one that was interrupted has noted it before
            tokens = len(cached.tokens) if cached else 0
            state.note_cache_use(self._prefixes.explain(key, tokens, other_model=state.other_model))
        return cached

    def store(self, row: Row) -> None:
        """Store the layers that a row has, if there are any; it has none then."""
        row.trim_unread()
        key, state = self._adapters.keys(row.layer_tokens, row.scales), row.prefill
        if state.layers is not None and state.length and key:
            continues = row.generation is not None and row.generation.caller.conversing
            reused = continues or row.cached_tokens >= SHORT
            self._prefixes.put(key, state.take_layers(), state.checkpoints, expect_reuse=reused)
