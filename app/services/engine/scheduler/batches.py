"""Batches of rows of similar length: in one batch every row costs as much as the longest."""

import sys
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import nullcontext
from functools import partial

from app.services.engine.cache.layers import Layers
from app.services.engine.model.blas import threads
from app.services.engine.model.chunk_sizer import ChunkSizer
from app.services.engine.model.language_model import LanguageModel
from app.services.engine.model.loading import weights
from app.services.engine.model.memory_budget import out_of_memory
from app.services.engine.scheduler.batch import Batch, RowToken
from app.services.engine.scheduler.row import Row
from app.services.engine.scheduler.steering import Steering

_LOOK_EVERY = 32  # steps
_CALL_BYTES = 32 * 2**20  # what a call costs beside reading weights and caches, as bytes that could be read meanwhile
_SMALL = 64 * 2**20  # bytes of weights whose layers are over before several threads of a BLAS have met
_FEW = 16  # rows; with more the layers of a small model take long enough for several threads
_WORTH = 0.8  # a split has to bring the cost below this share of what it was


class Batches:
    """One batch or several, whichever moves fewer bytes.

    A step of a batch reads the model's weights once and, for each row, as many tokens of KV cache as its longest row
    has. So one batch is cheapest while its rows are alike, and a row that is much longer than the others has one of
    its own.
    """

    def __init__(
        self,
        model: LanguageModel,
        vocabulary: int,
        steering: Steering,
        token_bytes: int,
        free: Callable[[], int] = lambda: sys.maxsize,
        chunk_sizer: ChunkSizer | None = None,  # of prompts
        *,
        shared: bool = True,
    ) -> None:
        weight_bytes = sum(array.nbytes for array in weights(model.network).values())
        self.interval: float | None = None  # seconds since the step before; None if there were no rows then
        self._make = partial(Batch, model, vocabulary, steering=steering, chunk_sizer=chunk_sizer)
        self._free = free  # bytes
        self._can_retry = model.can_retry
        self._shared = shared  # whether rows may be in one batch at all
        self._call_bytes = weight_bytes + _CALL_BYTES
        self._token_bytes = token_bytes  # of KV cache, a token of a row
        self._reserved_cores = 1 if weight_bytes < _SMALL else 0
        self._sizer = ChunkSizer()  # of rows; how long a step of them takes
        self._batches: list[Batch] = []
        self._steps = 0
        self._last_step: float | None = None  # when there was the last step with rows, on time's performance counter

    @property
    def rows(self) -> list[Row]:
        """All rows."""
        return [row for batch in self._batches for row in batch.rows]

    @property
    def expected(self) -> float:
        """Seconds that the step under way may take, as far as it is known; 0 while there is none. On any thread."""
        return self._sizer.expected

    def __len__(self) -> int:
        return sum(len(batch) for batch in self._batches)

    def join(self, rows: Sequence[Row], merged: Layers | None = None) -> None:
        """Take in rows of about one length, into the batch where they cost least or into one of their own."""
        if not self._shared and len(rows) > 1:
            for row in rows:
                self.join([row])
            return
        batch = None if any(row.failures for row in rows) else self._cheapest(rows)
        if batch is None:
            batch = self._make()
            self._batches.append(batch)
        batch.join(rows, merged)

    def step(self) -> tuple[list[RowToken], list[Row]]:
        """Give every row its next token. Returns them, and the rows that are lost because memory ran out."""
        rows = len(self)
        threads.reserve_cores(self._reserved_cores if rows <= _FEW else 0)
        with self._sizer.measure(rows) if rows else nullcontext():
            tokens = self._step()
        now = time.perf_counter()
        self.interval = now - self._last_step if self._last_step else None
        self._last_step = now if rows else None
        return tokens

    def redraw(self, lost: list[Row]) -> tuple[list[RowToken], list[Row]]:
        """Have the rows in which a call has just begun draw again. Returns what `step` does, with those lost before."""
        if not any(row.must_redraw for row in self.rows):
            return [], lost
        tokens, more_lost = self._of_each(Batch.redraw)
        return tokens, lost + more_lost

    def _of_each(self, work: Callable[[Batch], list[RowToken]]) -> tuple[list[RowToken], list[Row]]:
        tokens: list[RowToken] = []
        lost: list[Row] = []
        for batch in list(self._batches):
            try:
                tokens += work(batch)
            except Exception as error:
                if not (self._can_retry and out_of_memory(error)):
                    raise
                lost += batch.rows
                self._batches.remove(batch)
        return tokens, lost

    def _step(self) -> tuple[list[RowToken], list[Row]]:
        tokens, lost = self._of_each(partial(Batch.step, speculate=len(self) == 1))
        self._steps += 1
        if self._steps % _LOOK_EVERY == 0:  # now, while every row has had a step
            for batch in list(self._batches):
                self._split(batch)
        return tokens, lost

    def leave(self, rows: Collection[Row]) -> None:
        """Let rows go, handing each its cache back."""
        for batch in self._batches:
            if leaving := [row for row in batch.rows if row in rows]:
                batch.leave(leaving)
        self._batches = [batch for batch in self._batches if len(batch)]

    def layers(self, row: Row) -> Layers | None:
        """Give the layers of a row that runs, to be copied now; None if it has none, or there is no memory for that."""
        batch = next((batch for batch in self._batches if row in batch.rows), None)
        if batch is None:
            return row.prefill.layers
        return batch.layers(row) if row.length * self._token_bytes < self._free() else None

    def clear(self) -> None:
        """Drop all rows, with their caches."""
        self._batches.clear()

    def free(self) -> None:
        """Let go of the model."""
        self.clear()
        del self._make

    def _cheapest(self, rows: Sequence[Row]) -> Batch | None:
        """Give the batch in which rows cost least, None where that is one of their own."""
        if not self._shared:
            return None
        longest = _longest(rows)
        cheapest, least = None, self._cost(len(rows), longest)
        for batch in self._batches:
            length = _longest(batch.rows)
            cost = self._cost(len(batch) + len(rows), max(longest, length)) - self._cost(len(batch), length)
            if cost < least and not any(row.failures for row in batch.rows) and self._padding_fits(batch, rows):
                cheapest, least = batch, cost
        return cheapest

    def _padding_fits(self, batch: Batch, rows: Sequence[Row]) -> bool:
        """Whether there is memory for the padding that rows and a batch would need together."""
        length, batch_length = _longest(rows), _longest(batch.rows)
        padding = abs(length - batch_length) * (len(batch) if length > batch_length else len(rows))
        return padding * self._token_bytes < self._free()

    def _split(self, batch: Batch) -> None:
        """Move the longest rows out where that is worth it; answers grow at different pace."""
        rows = sorted(batch.rows, key=lambda row: row.length)
        costs = [(self._split_cost(rows, index), index) for index in range(1, len(rows))]
        if not costs:
            return
        cost, index = min(costs)
        if cost < _WORTH * self._cost(len(rows), rows[-1].length):
            self._batches.append(batch.split_off(rows[index:]))

    def _split_cost(self, rows: list[Row], index: int) -> int:
        short, long = rows[:index], rows[index:]
        return self._cost(len(short), short[-1].length) + self._cost(len(long), long[-1].length)

    def _cost(self, rows: int, longest: int) -> int:
        """Bytes that a step reads."""
        return self._call_bytes + rows * longest * self._token_bytes


def _longest(rows: Sequence[Row]) -> int:
    return max(row.length for row in rows)
