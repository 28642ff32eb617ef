"""One loaded model at work: rows wait, have their prompt computed, are decoded together, and end."""

from collections import deque
from typing import Any

import mlx.core as mx
from mlx_lm.models.cache import make_prompt_cache

from app.services.engine.batch import Batch, first_token
from app.services.engine.pace import Pace
from app.services.engine.prefix_cache import PrefixCache
from app.services.engine.row import Row, kept_tokens
from app.services.engine.running import Outbox, RunningGeneration
from app.services.errors import AppError

_SLICE_BESIDE_DECODING = 0.12  # seconds of prompt between two tokens of the others
_SLICE_ALONE = 0.5  # seconds after which a hang-up is noticed and progress told
_LOGITS_AT_ONCE = 2**20  # values; above, the logits of a prompt's other tokens cost more than one more call


class Runner:
    """Owns the rows of one model. Everything here runs on the engine thread."""

    def __init__(self, model: Any, vocabulary: int, *, max_rows: int, cache_bytes: int, outbox: Outbox) -> None:
        self.retired = False  # takes no more requests; goes when its rows are done
        self._model = model
        self._vocabulary = vocabulary
        self._max_rows = max_rows
        self._outbox = outbox
        self._pace = Pace()
        self._prefixes = PrefixCache(cache_bytes)
        self._batch = Batch(model, vocabulary)
        self._waiting: deque[Row] = deque()
        self._prompts: deque[Row] = deque()  # whose prompts are being computed, a slice each in turn

    @property
    def busy(self) -> bool:
        """Whether there is anything to do."""
        return bool(self._batch.rows or self._prompts or self._waiting)

    def submit(self, row: Row) -> None:
        """Queue a request."""
        self._waiting.append(row)

    def cancel(self, generation: RunningGeneration) -> None:
        """Drop the row of a reader that has gone; what was computed is kept for the next request."""
        for queue in (self._waiting, self._prompts):
            for row in [row for row in queue if row.generation is generation]:
                queue.remove(row)
                self._keep(row)
        self._end([row for row in self._batch.rows if row.generation is generation])

    @property
    def waiting(self) -> int:
        """How many requests wait for a place."""
        return len(self._waiting)

    def forget(self) -> None:
        """Empty the prefix cache."""
        self._prefixes.clear()

    def free(self) -> None:
        """Let go of the model and of everything computed with it."""
        self.forget()
        self._model = None
        self._batch = Batch(None, self._vocabulary)

    def fail(self, error: AppError) -> None:
        """End every row with an error and begin anew with an empty batch."""
        rows = [*self._waiting, *self._prompts, *self._batch.rows]
        self._waiting.clear()
        self._prompts.clear()
        self._batch = Batch(self._model, self._vocabulary)
        for row in rows:
            self._outbox.put(row.generation, [error])

    def step(self) -> None:
        """One token for every row that is decoding, then a slice of a prompt."""
        self._decode()
        while self._waiting and len(self._prompts) + len(self._batch) < self._max_rows:
            self._admit(self._waiting.popleft())
        if self._prompts:
            self._compute_prompts()

    def _decode(self) -> None:
        ended = []
        for row, token in self._batch.step():
            self._outbox.put(row.generation, row.take(token))
            if row.finished:
                ended.append(row)
        self._end(ended)

    def _end(self, rows: list[Row]) -> None:
        if rows:
            self._outbox.send()  # nobody waits for the copy of a cache
            self._batch.leave(rows)
            for row in rows:
                self._keep(row)

    def _admit(self, row: Row) -> None:
        if found := self._prefixes.take(row.prompt):
            row.layers, row.done = found
            row.cached = row.done
        else:
            row.layers = make_prompt_cache(self._model)
        row.clock.begin_prefill()
        self._outbox.put(row.generation, [row.progress()])
        self._prompts.append(row)

    def _compute_prompts(self) -> None:
        """Give the prompts slices in turn until the time for it is over; rows whose prompt is done join together."""
        budget = self._pace.tokens(_SLICE_BESIDE_DECODING if self._batch.rows else _SLICE_ALONE)
        joining: list[Row] = []
        while self._prompts and budget > 0:
            row = self._prompts.popleft()
            size = min(row.left, budget)
            budget -= max(size, 8)  # a call has its own cost
            self._outbox.put(row.generation, self._compute(row, size))
            if row.left:
                self._prompts.append(row)
            elif row.finished:
                self._keep(row)
            else:
                joining.append(row)
        self._batch.join(joining)

    def _compute(self, row: Row, size: int) -> list[Any]:
        """Compute `size` tokens of a prompt and give what there is to say; the last one draws the first token."""
        last = size == row.left
        if last and row.max_tokens > 0 and size > 1 and size * self._vocabulary > _LOGITS_AT_ONCE:
            self._forward(row, size - 1)
            size = 1
        logits = self._forward(row, size)
        if not last:
            return [row.progress()]
        if row.max_tokens == 0:
            return [row.progress(), *row.finish("length")]
        token = first_token(row, logits[:, -1, :], self._vocabulary)
        return [row.progress(), *row.take(token)]

    def _forward(self, row: Row, size: int) -> mx.array:
        tokens = mx.array([row.prompt[row.done : row.done + size]])
        with self._pace.measured(size):
            logits: mx.array = self._model(tokens, cache=row.layers)
            assert row.layers is not None
            mx.eval([layer.state for layer in row.layers])
        row.done += size
        return logits

    def _keep(self, row: Row) -> None:
        if row.layers is not None and row.done:
            self._prefixes.put(kept_tokens(row), row.give_layers())
