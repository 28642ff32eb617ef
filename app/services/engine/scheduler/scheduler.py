"""One loaded model at work: rows wait, have their prompt computed, are decoded together, and end."""

import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any

import mlx.core as mx
import structlog
from mlx_lm.models.cache import make_prompt_cache, trim_prompt_cache

from app.services.engine.cache.footprint import measure
from app.services.engine.cache.layers import Layers, cuts, mark, merge
from app.services.engine.cache.prefix_cache import PrefixCache
from app.services.engine.cache.prefixes import boundaries
from app.services.engine.model.adapters import Adapters
from app.services.engine.model.blas import threads
from app.services.engine.model.chunk_sizer import ChunkSizer
from app.services.engine.model.loading import memory, weights
from app.services.engine.model.memory_budget import MemoryBudget, out_of_memory
from app.services.engine.model.prefill import SHORT, forward, forward_padded
from app.services.engine.scheduler.admission import Admission
from app.services.engine.scheduler.batch import Batch
from app.services.engine.scheduler.batches import Batches
from app.services.engine.scheduler.embedding import Body, Embedding, body_of
from app.services.engine.scheduler.meter import Meter
from app.services.engine.scheduler.row import Row, kept_tokens
from app.services.engine.scheduler.running_generation import Outbox, RunningGeneration
from app.services.engine.scheduler.slots import Slots
from app.services.engine.scheduler.wait_queue import WaitQueue
from app.services.engine.speculative.draft_model import DraftModel
from app.services.errors import AppError, InvalidRequest, ServerError, Unavailable
from app.services.facts import SlotFacts
from app.services.generation import Event

log = structlog.get_logger()

_SLICE_BESIDE_DECODING = 0.12  # seconds of prompt between two tokens of the others
_SMALL = 64 * 2**20  # bytes of weights whose layers are over before several threads of a BLAS have met
_SLICE_ALONE = 0.5  # seconds after which a hang-up is noticed and progress told


class Scheduler:
    """Owns the rows of one model. Everything here runs on the engine thread."""

    def __init__(
        self,
        model: Any,
        vocabulary: int,
        *,
        max_rows: int,
        prefixes: PrefixCache,
        outbox: Outbox,
        adapters: Adapters | None = None,
        room: MemoryBudget | None = None,
        controls: frozenset[int] = frozenset(),
        draft: DraftModel | None = None,
    ) -> None:
        self.retired = False  # takes no more requests; goes when its rows are done
        self.alone = True  # no other model is at work
        self._model = model
        self._vocabulary = vocabulary
        self._max_rows = max_rows
        self._adapters = adapters or Adapters()
        self._outbox = outbox
        self.meter = Meter()  # another takes its place once the model is warm
        self._stepped: float | None = None  # when rows were last decoded, on time's performance counter
        self._pace = ChunkSizer()  # of prompts
        self._decoding = ChunkSizer()  # of rows; what comes of many at once is known before they are
        self._prefixes = prefixes
        self._slots = Slots(max_rows)
        self._draft = draft
        own = measure(model)
        self._token_bytes = own.token
        self.admission = Admission(own + draft.footprint if draft else own, room, prefixes)
        self._controls = controls  # tokens that templates put around messages
        self._marks = not all(cuts(layer) for layer in make_prompt_cache(model))
        self._weight_bytes = weight_bytes(model)
        self._spared = 1 if self._weight_bytes < _SMALL else 0  # cores, while tokens come
        self._make_batch = partial(Batch, model, vocabulary, adapters=self._adapters)
        self._batch = self._batches()
        self._live: set[Row] = set()  # every row whose reader still waits for its end
        self._waiting = WaitQueue()
        self._prompts: deque[Row] = deque()  # whose prompts are being computed, a slice each in turn
        self._embeddings: deque[Embedding] = deque()
        self._body: Body | None = None  # known once something was embedded

    @property
    def busy(self) -> bool:
        """Whether there is anything to do."""
        return bool(self._batch.rows or self._prompts or self._waiting or self._embeddings)

    @property
    def expected(self) -> float:
        """Seconds that what the step under way is at may take, as far as this model was measured. On any thread."""
        return max(self._pace.expected, self._decoding.expected)

    @property
    def running(self) -> int:
        """Requests that are being computed."""
        return self._max_rows - self._places() + len(self._embeddings)

    @property
    def waiting(self) -> int:
        """Requests that wait for a place in the batch."""
        return sum(1 + len(row.siblings) for row in self._waiting)

    def submit(self, row: Row) -> None:
        """Queue a request."""
        self._live |= {row, *row.siblings}
        self._waiting.put(row)

    def embed(self, embedding: Embedding) -> None:
        """Queue texts that become vectors."""
        self._embeddings.append(embedding)

    def cancel(self, generation: RunningGeneration) -> None:
        """Drop the row of a reader that has gone; what was computed is kept for the next request."""
        self._embeddings = deque(one for one in self._embeddings if one.generation is not generation)
        for row in [*self._waiting, *self._prompts]:
            if generation in (one.generation for one in (row, *row.siblings)):
                self._drop(row, generation)
        gone = [row for row in self._batch.rows if row.generation is generation]
        for row in gone:
            self.meter.answer(row.timings())
        self._end(gone)
        self._live = {row for row in self._live if row.generation is not generation}

    def close_reasoning(self, generation: RunningGeneration) -> None:
        """Have the row of a reader end its reasoning."""
        for row in self._live:
            if row.generation is generation:
                row.close_reasoning()

    def forget(self) -> None:
        """Empty the prefix cache, as if nothing had ever been asked."""
        self._prefixes.clear()
        self._slots = Slots(self._max_rows)

    def slots(self) -> list[SlotFacts]:
        """Say what is in each place of the batch."""
        self._slots.seat(self._running())
        return self._slots.facts()

    def slot_layers(self, slot: int) -> tuple[Any, Layers]:
        """Give copies of the tokens and layers that an idle place left. Raises InvalidRequest if nothing is kept."""
        self._slots.seat(self._running())
        if (found := self._prefixes.whole(self._slots.tokens(slot))) is None:
            raise InvalidRequest(f"Nothing is kept of slot {slot}", param="id_slot", code="slot_empty")
        return found

    def fill_slot(self, slot: int, read: Callable[[], tuple[list[int], Layers, int]]) -> tuple[int, int]:
        """Put what is read into the prefix cache, and note it of an idle place. Returns tokens and bytes."""
        self._slots.seat(self._running())
        self._slots.tokens(slot)
        tokens, layers, size = read()
        self._prefixes.put(tokens, layers)
        self._slots.hold(slot, tokens)
        return len(tokens), size

    def erase_slot(self, slot: int) -> int:
        """Forget what an idle place left, and the conversation that it belongs to. Returns the tokens."""
        self._slots.seat(self._running())
        tokens = self._slots.tokens(slot)
        self._prefixes.forget(tokens)
        self._slots.hold(slot, [])
        return len(tokens)

    def write_prefixes(self) -> None:
        """Have written what is to be on disk; on any thread."""
        self._prefixes.write()

    def free(self) -> None:
        """Let go of the model and of everything computed with it."""
        self._prefixes.close()
        if self._draft is not None:
            self._draft.free()
        self._model = self._body = None
        self._make_batch = partial(Batch, None, self._vocabulary)
        self._batch = self._batches()

    def _drop(self, row: Row, generation: RunningGeneration) -> None:
        left = row.without(generation)
        if row in self._waiting:
            self._waiting.replace(row, left)
            return
        place = self._prompts.index(row)
        del self._prompts[place]
        if left:
            self._prompts.insert(place, left)
        else:
            self._keep(row)

    def fail(self, error: AppError) -> None:
        """End every row with an error and begin anew with an empty batch."""
        rows, self._live = self._live, set()
        readers = [*(row.generation for row in rows), *(one.generation for one in self._embeddings)]
        self._waiting.clear()
        self._prompts.clear()
        self._embeddings.clear()
        self._batch = self._batches()
        for row in rows:
            row.layers, row.marks = None, {}
        self._slots.seat([])
        for generation in readers:
            self._outbox.put(generation, [error])

    def step(self) -> None:
        """One token for every row that is decoding, then a slice of prompts and one of what is embedded."""
        self._decode()
        if self._waiting and self._places() > 0:
            self._let_in()
        if self._prompts:
            self._compute_prompts()
        if self._embeddings:
            self._compute_embedding()
        self.meter.memory = memory()

    def _places(self) -> int:
        return self._max_rows - len(self._batch) - sum(1 + len(row.siblings) for row in self._prompts)

    def _running(self) -> list[Row]:
        return [*self._batch.rows, *(one for row in self._prompts for one in (row, *row.siblings))]

    def _batches(self) -> Batches:
        sizes = {"weight_bytes": self._weight_bytes, "token_bytes": self._token_bytes}
        return Batches(self._make_batch, **sizes, free=self.admission.free)

    def _decode(self) -> None:
        threads.spare(self._spared)
        rows = len(self._batch)
        with self._decoding.measured(rows) if rows else nullcontext():
            drawn, lost = self._batch.step()
        ended: list[Row] = []
        following = 0
        for row, token, score in drawn:
            if row.finished:
                continue  # it ended within what was guessed
            if row.bound is not None and row.bound.failed:
                log.error("a grammar could not follow its answer")
                self._fail(row, ServerError("The grammar could not follow the answer", code="grammar_failed"))
                row.finished = "stop"
                ended.append(row)
                continue
            following += bool(row.answer)
            self._tell(row, row.take(token, score))
            if len(row.answer) == 1:
                self.meter.prompt(row.timings())
            if not row.finished and row.length >= row.reserved and not self.admission.grow(row, self._running()):
                self._tell(row, row.finish("memory"))
            if row.finished:
                ended.append(row)
        self._count_step(rows, following)
        self._end(ended)
        if lost:
            self._again(lost)

    def _again(self, rows: Sequence[Row]) -> None:
        """Have rows for which memory ran out computed once more, each by itself; for whom it does again, that ends it.

        What they held is in an unknown state, so it is computed from their tokens.
        """
        log.warning("memory ran out", rows=len(rows), tokens=sum(row.length for row in rows))
        for row in rows:
            row.failures += 1
            row.interrupt()
        self._free_memory()
        self._waiting.put_back(row for row in rows if row.failures == 1)
        for row in rows:
            if row.failures > 1:
                self._fail(row, Unavailable("There was not enough memory for this answer", code="out_of_memory"))

    def _free_memory(self) -> None:
        """Let go of all that is only kept."""
        self._prefixes.evict(sys.maxsize)
        if self._draft is not None:
            self._draft.forget()
        mx.clear_cache()

    def _fail(self, row: Row, error: AppError) -> None:
        for one in (row, *row.siblings):
            self._live.discard(one)
            self._outbox.put(one.generation, [error])

    def _count_step(self, rows: int, following: int) -> None:
        now = time.perf_counter()
        if rows:
            self.meter.stepped(rows, following, now - self._stepped if self._stepped else None)
        self._stepped = now if rows else None

    def _tell(self, row: Row, events: list[Event]) -> None:
        self._outbox.put(row.generation, events)
        if row.finished:
            self._live.discard(row)
            self.meter.answer(row.timings())

    def _end(self, rows: list[Row]) -> None:
        if rows:
            self._outbox.send()  # nobody waits for the copy of a cache
            self._batch.leave(rows)
            for row in rows:
                self._keep(row)

    def _let_in(self) -> None:
        """Give places to those who wait, as far as there are any and memory for them."""
        self._slots.seat(self._running())  # what ended holds no memory
        while row := self._waiting.take(running := self._running(), partial(self._fits, running)):
            self._admit(row)
        at_rest = self.alone and not running and not self._embeddings
        if self._waiting and at_rest:  # nothing will end that could make room
            first = next(iter(self._waiting))
            self._waiting.replace(first, None)
            self._fail(first, self.admission.refusal(first))

    def _fits(self, running: Sequence[Row], row: Row) -> bool:
        return self._places() > len(row.siblings) and self.admission.lets_in(row, running)

    def _admit(self, row: Row) -> None:
        known_as = self._adapters.keys(row.given, row.scales) or []
        known = self._prefixes.take(known_as)
        if known:
            row.layers, row.done, row.marks = known.layers, len(known.tokens), known.marks
        else:
            row.layers = make_prompt_cache(self._model)
        if self._marks:
            row.boundaries = boundaries(row.given, row.done, self._controls)
        if not row.answer:
            row.cached = row.done
            row.cache_use = self._prefixes.explain(known_as, row.done, known_elsewhere=row.known_elsewhere)
            self.meter.looked_up(row.cache_use)
            row.clock.begin_prefill()
            self._tell(row, [row.progress()])
        self._prompts.append(row)
        self._slots.seat(self._running())

    def _compute_prompts(self) -> None:
        """Give the prompts slices in turn until the time for it is over; those that are done join the batch."""
        budget = self._budget()
        while self._prompts and budget > 0:
            rows = self._short_prompts(budget) or [self._prompts.popleft()]
            try:
                budget -= self._compute_together(rows) if len(rows) > 1 else self._compute_slice(rows[0], budget)
            except Exception as error:
                if not out_of_memory(error):
                    raise
                self._again(rows)

    def _budget(self) -> int:
        """Tokens of a slice; prompts and embeddings share the time."""
        seconds = _SLICE_ALONE if self.alone and not self._batch.rows else _SLICE_BESIDE_DECODING
        return self._pace.tokens(seconds / 2 if self._prompts and self._embeddings else seconds)

    def _compute_embedding(self) -> None:
        """Give the first of them a slice; then it is another's turn."""
        embedding = self._embeddings[0]
        try:
            self._embed(embedding, self._budget())
        except Exception as error:
            if not isinstance(error, AppError) and not out_of_memory(error):
                raise
            self._give_up(embedding, error)
            return
        self._embeddings.rotate(-1)
        if embedding.finished:
            self._outbox.put(embedding.generation, [embedding.result()])
            self.meter.embedded(embedding.tokens)
            self._embeddings.pop()

    def _embed(self, embedding: Embedding, budget: int) -> None:
        self._adapters.use([self._adapters.defaults])
        self._body = self._body or body_of(self._model, self._vocabulary)
        while budget > 0 and not embedding.finished:
            with self._pace.expecting(budget):
                budget -= embedding.compute(self._body, partial(make_prompt_cache, self._model), budget)

    def _give_up(self, embedding: Embedding, error: Exception) -> None:
        self._embeddings.popleft()
        if not isinstance(error, AppError):
            self._free_memory()
            error = Unavailable("There was not enough memory for these texts", code="out_of_memory")
        self._outbox.put(embedding.generation, [error])

    def _short_prompts(self, budget: int) -> list[Row]:
        """Take the prompts at the front that can be computed in one go, if there are several."""
        together: list[Row] = []
        longest = 0
        for row in self._prompts:
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
            self._prompts.popleft()
        return together

    def _compute_together(self, rows: list[Row]) -> int:
        """Compute all but the last token of short prompts in one call. Returns the tokens that this took."""
        lengths = [row.left - 1 for row in rows]
        longest = max(lengths)
        layers = merge([row.give_layers() for row in rows])
        if longest:
            padding = [longest - length for length in lengths]
            tokens = [row.given[row.done : -1] + [0] * pad for row, pad in zip(rows, padding, strict=True)]
            self._adapters.use([row.scales for row in rows])
            with self._pace.measured(longest * len(rows)):
                forward_padded(self._model, layers, tokens, lengths, padding)
        for row, length in zip(rows, lengths, strict=True):
            row.done += length
        self._batch.join(rows, layers)
        return longest * len(rows) + len(rows)

    def _compute_slice(self, row: Row, budget: int) -> int:
        """Compute a part of one prompt. Returns the tokens that this took."""
        last = 0 if row.max_tokens == 0 else 1  # the token that joins the batch, to draw the first of the answer
        size = min(row.left - last, budget, *(place - row.done for place in row.boundaries[:1]))
        if size:
            self._adapters.use([row.scales])
            with self._pace.measured(size):
                forward(self._model, row.layers or [], row.given[row.done : row.done + size])
            row.done += size
            self._mark(row)
            if not row.answer:
                self._tell(row, [row.progress()])
        if row.left > last:
            self._prompts.append(row)
        elif last:
            self._join(row)
        else:
            for one in row.share():
                self._tell(one, one.finish("max_tokens"))
            self.meter.prompt(row.timings())
            self._keep(row)
        return size + 1

    def _mark(self, row: Row) -> None:
        """Keep what a later prompt could not get back from the whole, where a message ends."""
        if row.boundaries and row.done == row.boundaries[0] and row.layers is not None:
            row.marks[row.boundaries.pop(0)] = marked = mark(row.layers)
            mx.eval([layer.state for layer in marked])

    def _join(self, row: Row) -> None:
        rows = row.share()
        row.siblings = []  # each is a row of its own from now on
        merged = merge([row.give_layers()] * len(rows)) if len(rows) > 1 else None
        self._batch.join(rows, merged)

    def _keep(self, row: Row) -> None:
        if row.layers is not None and (surplus := row.said - len(row.answer)) > 0:  # it ended within a guess
            trim_prompt_cache(row.layers, surplus)
            row.fed -= surplus
        known_as = self._adapters.keys(kept_tokens(row), row.scales)
        if row.layers is not None and row.done and known_as:
            known = row.cached >= SHORT or (row.generation is not None and row.generation.caller.conversing)
            self._prefixes.put(known_as, row.give_layers(), row.marks, proven=known)
            self.meter.cache_bytes = self._prefixes.nbytes


def weight_bytes(model: Any) -> int:
    """Bytes of a model's weights."""
    return sum(array.nbytes for array in weights(model).values())
