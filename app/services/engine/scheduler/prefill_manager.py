"""The rows whose prompts are being computed."""

from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple

import mlx.core as mx
from mlx_lm.models.cache import make_prompt_cache

from app.services.engine.cache.layers import Layers, is_trimmable, make_checkpoint, merge
from app.services.engine.cache.prefixes import CachedPrefix, message_ends
from app.services.engine.model.adapters import Adapters
from app.services.engine.model.chunk_sizer import ChunkSizer
from app.services.engine.model.prefill import SHORT, forward, forward_padded
from app.services.engine.scheduler.row import Row
from app.services.engine.scheduler.running_generation import Outbox
from app.services.engine.scheduler.running_request import RunningRequest


class Chunk(NamedTuple):
    """What one call of the model has computed of prompts."""

    tokens: int  # that it took of the budget
    ready: Sequence[Row] = ()  # rows whose whole prompts are computed now
    layers: Layers | None = None  # the batch cache of those; None where a lone one has its own


class PrefillManager:
    """Computes prompts: long ones a slice each in turn, short ones together.

    All of a prompt but its last token is computed here; that one is fed by the batch, to draw the first of the answer.
    Of a row that asks for no tokens, all is computed here.
    """

    def __init__(
        self,
        model: Any,
        *,
        outbox: Outbox,
        adapters: Adapters,
        chunk_sizer: ChunkSizer,
        controls: frozenset[int] = frozenset(),
    ) -> None:
        self._model = model
        self._outbox = outbox
        self._adapters = adapters
        self._chunk_sizer = chunk_sizer
        self._controls = controls  # tokens that templates put around messages
        self._needs_checkpoints = not all(is_trimmable(layer) for layer in make_prompt_cache(model))
        self._queue: deque[Row] = deque()  # each with its siblings

    @property
    def rows(self) -> list[Row]:
        """The rows, with the siblings that share their prompts."""
        return [one for row in self._queue for one in (row, *row.siblings)]

    def __bool__(self) -> bool:
        return bool(self._queue)

    def add(self, row: Row, cached: CachedPrefix | None) -> None:
        """Take in a row whose prompt is to be computed, from the end of what is cached of it."""
        if cached:
            row.layers, row.done, row.marks = cached.layers, len(cached.tokens), cached.checkpoints
        else:
            row.layers = make_prompt_cache(self._model)
        if self._needs_checkpoints:
            row.boundaries = message_ends(row.given, row.done, self._controls)
        self._queue.append(row)

    def cancel(self, request: RunningRequest) -> Row | None:
        """Drop the row of a request. Returns it if no sibling goes on with its prompt."""
        for index, row in enumerate(self._queue):
            if any(one.generation is request for one in (row, *row.siblings)):
                if rest := row.without(request):
                    self._queue[index] = rest
                    return None
                del self._queue[index]
                return row
        return None

    def clear(self) -> None:
        """Drop all rows."""
        self._queue.clear()

    def free(self) -> None:
        """Let go of the model."""
        self._model = None

    def take(self, budget: int) -> list[Row]:
        """Take out the row whose turn it is, or several short ones that can be computed in one go."""
        return self._short_prompts(budget) or [self._queue.popleft()]

    def compute(self, rows: Sequence[Row], budget: int) -> Chunk:
        """Compute about so many tokens of rows that were taken out; what is not ready then comes in again."""
        return self._compute_together(rows) if len(rows) > 1 else self._compute_slice(rows[0], budget)

    def _short_prompts(self, budget: int) -> list[Row]:
        """Take the prompts at the front that can be computed in one go, if there are several."""
        together: list[Row] = []
        longest = 0
        for row in self._queue:
            longest = max(longest, row.left - 1)
            if (
                longest > SHORT
                or row.max_tokens == 0
                or row.siblings
                or row.boundaries
                or row.failures
                or longest * (len(together) + 1) > max(budget, SHORT)
            ):
                break
            together.append(row)
        if len(together) < 2:
            return []
        for _ in together:
            self._queue.popleft()
        return together

    def _compute_together(self, rows: Sequence[Row]) -> Chunk:
        """Compute all but the last token of short prompts in one call."""
        lengths = [row.left - 1 for row in rows]
        longest = max(lengths)
        layers = merge([row.give_layers() for row in rows])
        if longest:
            padding = [longest - length for length in lengths]
            tokens = [row.given[row.done : -1] + [0] * pad for row, pad in zip(rows, padding, strict=True)]
            self._adapters.use([row.scales for row in rows])
            with self._chunk_sizer.measured(longest * len(rows)):
                forward_padded(self._model, layers, tokens, lengths, padding)
        for row, length in zip(rows, lengths, strict=True):
            row.done += length
        return Chunk(longest * len(rows) + len(rows), rows, layers)

    def _compute_slice(self, row: Row, budget: int) -> Chunk:
        """Compute a part of one prompt."""
        last = 0 if row.max_tokens == 0 else 1  # the token that is left for the batch
        size = min(row.left - last, budget, *(end - row.done for end in row.boundaries[:1]))
        if size:
            self._adapters.use([row.scales])
            with self._chunk_sizer.measured(size):
                forward(self._model, row.layers or [], row.given[row.done : row.done + size])
            row.done += size
            self._make_checkpoint(row)
            if not row.answer:
                self._outbox.put(row.generation, [row.progress()])
        if row.left > last:
            self._queue.append(row)
            return Chunk(size + 1)
        rows = row.share()
        row.siblings = []  # each is a row of its own from now on
        layers = merge([row.give_layers()] * len(rows)) if last and len(rows) > 1 else None
        return Chunk(size + 1, rows, layers)

    def _make_checkpoint(self, row: Row) -> None:
        """Keep what a later prompt could not get back from the whole, where a message ends."""
        if row.boundaries and row.done == row.boundaries[0] and row.layers is not None:
            row.marks[row.boundaries.pop(0)] = marked = make_checkpoint(row.layers)
            mx.eval([layer.state for layer in marked])
