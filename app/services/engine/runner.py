"""One loaded model at work: rows wait, have their prompt computed, are decoded together, and end."""

import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

import mlx.core as mx
from mlx_lm.models.cache import make_prompt_cache

from app.services.engine.adapters import Adapters
from app.services.engine.batch import Batch, merge
from app.services.engine.batches import Batches
from app.services.engine.embedding import Body, Embedding, body_of
from app.services.engine.loading import memory, weights
from app.services.engine.meter import Meter
from app.services.engine.pace import Pace
from app.services.engine.prefix_cache import PrefixCache
from app.services.engine.prefixes import Layers
from app.services.engine.row import Row, kept_tokens
from app.services.engine.running import Outbox, RunningGeneration
from app.services.engine.slots import Slots
from app.services.errors import AppError, InvalidRequest
from app.services.facts import SlotFacts
from app.services.generation import Event

_SLICE_BESIDE_DECODING = 0.12  # seconds of prompt between two tokens of the others
_SLICE_ALONE = 0.5  # seconds after which a hang-up is noticed and progress told
_SHORT = 64  # tokens up to which prompts are computed together: more fill the machine by themselves


class Runner:
    """Owns the rows of one model. Everything here runs on the engine thread."""

    def __init__(
        self,
        model: Any,
        vocabulary: int,
        *,
        max_rows: int,
        prefixes: PrefixCache,
        overlap: bool,
        outbox: Outbox,
        adapters: Adapters | None = None,
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
        self._pace = Pace()
        self._prefixes = prefixes
        self._slots = Slots(max_rows)
        self._sizes = {"weight_bytes": weight_bytes(model), "token_bytes": token_bytes(model)}
        self._make_batch = partial(Batch, model, vocabulary, overlap=overlap, adapters=self._adapters)
        self._batch = Batches(self._make_batch, **self._sizes)
        self._live: set[Row] = set()  # every row whose reader still waits for its end
        self._waiting: deque[Row] = deque()
        self._prompts: deque[Row] = deque()  # whose prompts are being computed, a slice each in turn
        self._embeddings: deque[Embedding] = deque()
        self._body: Body | None = None  # known once something was embedded

    @property
    def busy(self) -> bool:
        """Whether there is anything to do."""
        return bool(self._batch.rows or self._prompts or self._waiting or self._embeddings)

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
        self._waiting.append(row)

    def embed(self, embedding: Embedding) -> None:
        """Queue texts that become vectors."""
        self._embeddings.append(embedding)

    def cancel(self, generation: RunningGeneration) -> None:
        """Drop the row of a reader that has gone; what was computed is kept for the next request."""
        self._embeddings = deque(one for one in self._embeddings if one.generation is not generation)
        for queue in (self._waiting, self._prompts):
            for place, row in enumerate(queue):
                if generation in (one.generation for one in (row, *row.siblings)):
                    self._drop(queue, place, generation)
                    break
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

    def free(self) -> None:
        """Let go of the model and of everything computed with it."""
        self._prefixes.close()
        self._model = self._body = None
        self._make_batch = partial(Batch, None, self._vocabulary, overlap=False)
        self._batch = Batches(self._make_batch, **self._sizes)

    def _drop(self, queue: deque[Row], place: int, generation: RunningGeneration) -> None:
        row = queue[place]
        if left := row.without(generation):
            queue[place] = left
        else:
            del queue[place]
            self._keep(row)

    def fail(self, error: AppError) -> None:
        """End every row with an error and begin anew with an empty batch."""
        rows, self._live = self._live, set()
        readers = [*(row.generation for row in rows), *(one.generation for one in self._embeddings)]
        self._waiting.clear()
        self._prompts.clear()
        self._embeddings.clear()
        self._batch = Batches(self._make_batch, **self._sizes)
        for generation in readers:
            self._outbox.put(generation, [error])

    def step(self) -> None:
        """One token for every row that is decoding, then a slice of prompts and one of what is embedded."""
        self._decode()
        while self._waiting and self._places() > len(self._waiting[0].siblings):
            self._admit(self._waiting.popleft())
        if self._prompts:
            self._compute_prompts()
        if self._embeddings:
            self._compute_embedding()
        self.meter.memory = memory()

    def _places(self) -> int:
        return self._max_rows - len(self._batch) - sum(1 + len(row.siblings) for row in self._prompts)

    def _running(self) -> list[Row]:
        return [*self._batch.rows, *(one for row in self._prompts for one in (row, *row.siblings))]

    def _decode(self) -> None:
        ended, following = [], 0
        drawn = self._batch.step()
        for row, token, score in drawn:
            following += bool(row.answer)
            self._tell(row, row.take(token, score))
            if len(row.answer) == 1:
                self.meter.prompt(row.timings())
            if row.finished:
                ended.append(row)
        self._count_step(len(drawn), following)
        self._end(ended)

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

    def _admit(self, row: Row) -> None:
        known_as = self._adapters.keys(row.prompt, row.scales) or []
        if found := self._prefixes.take(known_as):
            row.layers, row.done = found
            row.cached = row.done
        else:
            row.layers = make_prompt_cache(self._model)
        row.cache_use = self._prefixes.explain(known_as, row.cached)
        self.meter.looked_up(row.cache_use)
        row.clock.begin_prefill()
        self._tell(row, [row.progress()])
        self._prompts.append(row)
        self._slots.seat(self._running())

    def _compute_prompts(self) -> None:
        """Give the prompts slices in turn until the time for it is over; those that are done join the batch."""
        budget = self._budget()
        while self._prompts and budget > 0:
            if together := self._short_prompts(budget):
                budget -= self._compute_together(together)
            else:
                budget -= self._compute_slice(self._prompts.popleft(), budget)

    def _budget(self) -> int:
        """Tokens of a slice; prompts and embeddings share the time."""
        seconds = _SLICE_ALONE if self.alone and not self._batch.rows else _SLICE_BESIDE_DECODING
        return self._pace.tokens(seconds / 2 if self._prompts and self._embeddings else seconds)

    def _compute_embedding(self) -> None:
        """Give the first of them a slice; then it is another's turn."""
        embedding, budget = self._embeddings[0], self._budget()
        try:
            self._body = self._body or body_of(self._model, self._vocabulary)
        except AppError as error:
            self._outbox.put(embedding.generation, [error])
            self._embeddings.popleft()
            return
        self._adapters.use([self._adapters.defaults])
        while budget > 0 and not embedding.finished:
            budget -= embedding.compute(self._body, partial(make_prompt_cache, self._model), budget)
        self._embeddings.rotate(-1)
        if embedding.finished:
            self._outbox.put(embedding.generation, [embedding.result()])
            self.meter.embedded(embedding.tokens)
            self._embeddings.pop()

    def _short_prompts(self, budget: int) -> list[Row]:
        """Take the prompts at the front that can be computed in one go, if there are several."""
        together: list[Row] = []
        longest = 0
        for row in self._prompts:
            longest = max(longest, row.left - 1)
            if (
                longest > _SHORT
                or row.max_tokens == 0
                or row.siblings
                or longest * (len(together) + 1) > max(budget, _SHORT)
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
            tokens = [row.prompt[row.done : -1] + [0] * pad for row, pad in zip(rows, padding, strict=True)]
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
        size = min(row.left - last, budget)
        if size:
            self._adapters.use([row.scales])
            with self._pace.measured(size):
                forward(self._model, row.layers or [], row.prompt[row.done : row.done + size])
            row.done += size
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

    def _join(self, row: Row) -> None:
        rows = row.share()
        merged = merge([row.give_layers()] * len(rows)) if len(rows) > 1 else None
        self._batch.join(rows, merged)

    def _keep(self, row: Row) -> None:
        known_as = self._adapters.keys(kept_tokens(row), row.scales)
        if row.layers is not None and row.done and known_as:
            self._prefixes.put(known_as, row.give_layers())
            self.meter.cache_bytes = self._prefixes.nbytes


def weight_bytes(model: Any) -> int:
    """Bytes of a model's weights."""
    return sum(array.nbytes for array in weights(model).values())


def token_bytes(model: Any) -> int:
    """Bytes that a token of a row takes in its cache; a state that does not grow counts for nothing."""
    layers = make_prompt_cache(model)
    forward(model, layers, [0])
    kept = [layer for layer in layers if getattr(layer, "keys", None) is not None]
    return sum(layer.nbytes // layer.keys.shape[2] for layer in kept)


def forward(model: Any, layers: Layers, tokens: list[int]) -> None:
    """Put tokens of one row into its cache."""
    model(mx.array([tokens]), cache=layers)
    mx.eval([layer.state for layer in layers])
    if len(tokens) > _SHORT:
        mx.clear_cache()  # the buffers of a long slice fit nothing that follows


def forward_padded(model: Any, layers: Layers, tokens: list[list[int]], lengths: list[int], padding: list[int]) -> None:
    """Put tokens of several rows, padded on the right to one length, into their batch cache."""
    if any(padding):
        for layer in layers:
            layer.prepare(lengths=lengths, right_padding=padding)
    model(mx.array(tokens), cache=layers)
    if any(padding):
        for layer in layers:
            layer.finalize()
    mx.eval([layer.state for layer in layers])
