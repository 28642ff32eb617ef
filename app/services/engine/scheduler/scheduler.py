"""One loaded model at work: rows wait, are admitted, have their prompts computed, are decoded together, and end."""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import structlog

from app.services.engine.cache.footprint import measure
from app.services.engine.cache.layers import Layers
from app.services.engine.cache.prefix_cache import PrefixCache
from app.services.engine.model.adapters import Adapters
from app.services.engine.model.chunk_sizer import ChunkSizer
from app.services.engine.model.language_model import LanguageModel
from app.services.engine.model.loading import memory, release
from app.services.engine.model.memory_budget import MemoryBudget, out_of_memory
from app.services.engine.sampling.logprobs import RowLogprobs
from app.services.engine.scheduler.admission import Admission
from app.services.engine.scheduler.batches import Batches
from app.services.engine.scheduler.cache_manager import CacheManager
from app.services.engine.scheduler.embedding import Causal, Embedding
from app.services.engine.scheduler.embedding_queue import EmbeddingQueue
from app.services.engine.scheduler.meter import Meter
from app.services.engine.scheduler.prefill_manager import PrefillManager
from app.services.engine.scheduler.row import Row
from app.services.engine.scheduler.running_generation import Outbox, RunningGeneration
from app.services.engine.scheduler.running_request import RunningRequest
from app.services.engine.scheduler.slots import Slots
from app.services.engine.scheduler.steering import Steering
from app.services.engine.scheduler.wait_queue import WaitQueue
from app.services.engine.speculative.draft_model import DraftModel
from app.services.errors import AppError, GrammarFailed, OutOfMemory
from app.services.facts import Batching, KVBits
from app.services.generation import Event

if TYPE_CHECKING:  # it imports Pillow, which only models that see need
    from app.services.engine.vision.vision import Vision

log = structlog.get_logger()

_CHUNK_BESIDE_DECODING = 0.12  # seconds of prompts between two tokens of the rows that are decoded
_CHUNK_ALONE = 0.5  # seconds after which a disconnect is noticed and progress sent


class Scheduler:
    """Decides what one model computes next: tokens of rows, prompts, embeddings. Runs on the engine thread."""

    def __init__(
        self,
        model: LanguageModel,
        vocabulary: int,
        *,
        max_rows: int,
        prefixes: PrefixCache,
        outbox: Outbox,
        meter: Meter | None = None,
        adapters: Adapters | None = None,
        memory_budget: MemoryBudget | None = None,
        controls: frozenset[int] = frozenset(),
        draft: DraftModel | None = None,
        chunk_sizer: ChunkSizer | None = None,
        batching: Batching | None = None,
        vision: "Vision | None" = None,
        kv_bits: KVBits | None = None,
    ) -> None:
        self.retired = False  # takes no more requests; goes when its rows are done
        self._max_rows, self._can_retry = max_rows, model.can_retry
        steering = Steering(adapters, vision.positions if vision else None)
        self._outbox, self._meter = outbox, meter or Meter()
        self._chunk_sizer = sizer = chunk_sizer or ChunkSizer()  # of prompts
        self.prefixes = prefixes
        self.flush = prefixes.flush  # to the disk, on any thread
        self._draft = draft
        footprint = measure(model.network, kv_bits)
        self.admission = admission = Admission(footprint, memory_budget, prefixes, draft, vision)
        self._wait_queue = WaitQueue()
        self._prefill = PrefillManager(model, outbox, steering, sizer, controls, batching, vision, kv_bits)
        self._embeddings = EmbeddingQueue(Causal(model, vocabulary, steering), outbox, sizer, admission.free_stored)
        free, shared = self.admission.free, batching is None or batching.decoding is None
        self._batches = Batches(model, vocabulary, steering, footprint.token_bytes, free, sizer, shared=shared)
        self._cache = CacheManager(prefixes, steering.adapters, self._batches.layers)
        self.slots = Slots(max_rows, prefixes, self._running)
        self._live: set[Row] = set()  # rows whose readers still wait for their end

    @property
    def busy(self) -> bool:
        """Whether there is anything to do."""
        return bool(self._batches.rows or self._prefill or self._wait_queue or self._embeddings)

    @property
    def expected(self) -> float:
        """Seconds that what the step under way is at may take, as far as this model was measured. On any thread."""
        return max(self._chunk_sizer.expected, self._batches.expected)

    @property
    def running(self) -> int:
        """Requests that are being computed."""
        return self._max_rows - self._free_slots() + len(self._embeddings)

    @property
    def waiting(self) -> int:
        """Requests that wait for a slot in the batch."""
        return sum(1 + len(row.siblings) for row in self._wait_queue)

    def warm_up(self, rows: Sequence[Row]) -> None:
        """Answer rows without readers, then forget them; they are not counted. Call it before the first request."""
        meter, self._meter = self._meter, Meter()
        for row in rows:
            self.submit(row)
        while self.busy:
            self.step()
        self._meter = meter
        self.prefixes.clear()
        self.slots.clear()
        release()
        self.admission.settle()

    def submit(self, row: Row) -> None:
        """Queue a request."""
        self._live |= {row, *row.siblings}
        self._wait_queue.put(row)

    def embed(self, embedding: Embedding) -> None:
        """Queue texts that become vectors."""
        self._embeddings.put(embedding)

    def cancel(self, request: RunningRequest) -> None:
        """Drop a request that nobody waits for; what was computed of a row is stored for the next one."""
        self._embeddings.cancel(request)
        self._wait_queue.cancel(request)
        if row := self._prefill.cancel(request):
            self._store(row)
        cancelled = [row for row in self._batches.rows if row.generation is request]
        for row in cancelled:
            self._meter.count_answer(row.timings())
        self._release(cancelled)
        self._live = {row for row in self._live if row.generation is not request}

    def close_reasoning(self, generation: RunningGeneration) -> None:
        """Have the row of a reader end its reasoning."""
        for row in self._live:
            if row.generation is generation:
                row.close_reasoning()

    def free(self) -> None:
        """Let go of the model and of everything computed with it."""
        self.prefixes.close()
        if self._draft is not None:
            self._draft.free()
        self._prefill.free()
        self._embeddings.free()
        self._batches.free()

    def fail(self, error: AppError) -> None:
        """End every row with an error and begin anew with an empty batch."""
        rows, self._live = self._live, set()
        self._wait_queue.clear()
        self._prefill.clear()
        self._batches.clear()
        self._embeddings.fail(error)
        for row in rows:
            row.prefill.drop_layers()
            self._outbox.put(row.generation, [error])
        self.slots.assign()

    def step(self, *, alone: bool = True) -> None:
        """Decode, admit rows, compute prompts and embeddings. `alone` says that no other model is at work."""
        self._decode()
        if self._wait_queue and self._free_slots() > 0:
            self._admit_waiting(alone)
        if self._prefill:
            self._compute_prompts(self._budget(alone))
        if self._embeddings:
            self._meter.count_embedding(self._embeddings.compute(self._budget(alone)))
        self._meter.memory = memory()

    def _free_slots(self) -> int:
        return self._max_rows - len(self._running())

    def _running(self) -> list[Row]:
        return [*self._batches.rows, *self._prefill.rows]

    def _decode(self) -> None:
        """Have every row read its next token. Rows that end leave; those for which memory ran out begin again."""
        rows, following = len(self._batches), 0
        ended: list[Row] = []
        tokens, lost = self._batches.step()
        while tokens:
            for row, token, logprobs in tokens:
                if row.finish_reason or row.must_redraw:
                    continue  # it ended, or a call began, within a draft
                following += bool(row.answer)
                self._read(row, token, logprobs)
                if row.finish_reason:
                    ended.append(row)
            tokens, lost = self._batches.redraw(lost)
        self._meter.count_step(rows, following, self._batches.interval)
        self._release(ended)
        if lost:
            self._retry(lost)

    def _read(self, row: Row, token: int, logprobs: RowLogprobs | None) -> None:
        if row.constraint is not None and row.constraint.failed:
            log.error("a grammar could not follow its answer")
            self._fail(row, GrammarFailed())
            row.finish_reason = "stop"
            return
        self._send(row, row.take(token, logprobs))
        if len(row.answer) == 1:
            self._meter.count_prompt(row.timings())
        if row.needs_memory and not self.admission.grow(row, self._running()):
            self._send(row, row.finish("memory"))

    def _retry(self, rows: Sequence[Row]) -> None:
        """Compute rows whose memory ran out again from their tokens, each by itself; a second failure ends them."""
        log.warning("memory ran out", rows=len(rows), tokens=sum(row.length for row in rows))
        for row in rows:
            row.interrupt()
        self.admission.free_stored()
        self._wait_queue.put_first(row for row in rows if row.failures == 1)
        for row in (row for row in rows if row.failures > 1):
            self._fail(row, OutOfMemory())

    def _fail(self, row: Row, error: AppError) -> None:
        for one in (row, *row.siblings):
            self._live.discard(one)
            self._outbox.put(one.generation, [error])

    def _send(self, row: Row, events: list[Event]) -> None:
        self._outbox.put(row.generation, events)
        if row.finish_reason:
            self._live.discard(row)
            self._meter.count_answer(row.timings())

    def _release(self, rows: list[Row]) -> None:
        if rows:
            self._outbox.send()  # before the copy of a cache, which takes a while
            self._batches.leave(rows)
            for row in rows:
                self._store(row)

    def _admit_waiting(self, alone: bool) -> None:
        """Begin with rows that wait, as far as there are slots and memory for them."""
        self.slots.assign()  # a row that has ended holds no memory
        while row := self._wait_queue.take(running := self._running(), partial(self._fits, running)):
            self._admit(row)
        idle = alone and not running and not self._embeddings
        if self._wait_queue and idle:  # nothing will end that could free memory
            first = next(iter(self._wait_queue))
            self._wait_queue.remove(first)
            self._fail(first, self.admission.refusal(first))

    def _fits(self, running: Sequence[Row], row: Row) -> bool:
        return self._free_slots() > len(row.siblings) and self.admission.admit(row, running)

    def _admit(self, row: Row) -> None:
        """Begin with what is cached of a row's prompt."""
        self._prefill.add(row, self._cache.look_up(row, self._running()))
        if not row.answer:
            self._meter.count_cache_use(row.prefill.cache_use)
            self._send(row, [row.progress()])
        self.slots.assign()

    def _compute_prompts(self, budget: int) -> None:
        """Compute chunks of prompts until the budget is used up; rows whose prompts are ready join the batch."""
        while self._prefill and budget > 0:
            rows = self._prefill.take(budget)
            try:
                chunk = self._prefill.compute(rows, budget)
                self._start_decoding(chunk.ready, chunk.layers)
                budget -= chunk.tokens
            except Exception as error:
                if not (self._can_retry and out_of_memory(error)):
                    raise
                self._retry(rows)

    def _start_decoding(self, rows: Sequence[Row], layers: Layers | None) -> None:
        """Put rows whose prompts are computed into the batch; those that ask for no tokens end."""
        if rows and rows[0].max_tokens:
            self._batches.join(rows, layers)
        elif rows:
            for row in rows:
                self._send(row, row.finish("max_tokens"))
            self._meter.count_prompt(rows[0].timings())
            self._store(rows[0])

    def _budget(self, alone: bool) -> int:
        """Tokens of a chunk; prompts and embeddings share the time."""
        seconds = _CHUNK_ALONE if alone and not self._batches.rows else _CHUNK_BESIDE_DECODING
        return self._chunk_sizer.tokens(seconds / 2 if self._prefill and self._embeddings else seconds)

    def _store(self, row: Row) -> None:
        self._cache.store(row)
        self._meter.cache_bytes = self._cache.nbytes
