"""Prefill: computes the prompts of rows that are admitted, until they can be decoded."""

import time
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from app.services.engine.cache.layers import Layers, merge
from app.services.engine.cache.prefixes import CachedPrefix, checkpoint_positions
from app.services.engine.model.chunk_sizer import ChunkSizer
from app.services.engine.model.language_model import LanguageModel
from app.services.engine.model.prefill import SHORT, forward, forward_padded, forward_with_logits
from app.services.engine.model.selected_logits import SelectedLogits
from app.services.engine.scheduler.image_prefill import ImagePrefill
from app.services.engine.scheduler.prefill_state import Lead, PrefillState
from app.services.engine.scheduler.row import Row
from app.services.engine.scheduler.running_generation import Outbox
from app.services.engine.scheduler.running_request import RunningRequest
from app.services.engine.scheduler.scoring import Scoring
from app.services.engine.scheduler.shared_prefix import find_lead
from app.services.engine.scheduler.steering import Steering
from app.services.facts import Batching, KVBits

if TYPE_CHECKING:  # it imports Pillow, which only models that see need
    from app.services.engine.vision.vision import Vision


class Chunk(NamedTuple):
    """What one call of the model has computed of prompts."""

    tokens: int  # that it took of the budget
    ready: Sequence[Row] = ()  # rows whose whole prompts are computed now
    layers: Layers | None = None  # the batch cache of those; None where a lone one has its own


class PrefillManager:
    """Computes prompts: long ones a chunk each in turn, short ones together.

    All of a prompt but its last token is computed here; that one is fed by the batch, to draw the first of the answer.
    Of a row that asks for no tokens, all is computed here, and so are the texts that are to be scored behind it. A row
    whose prompt begins as another's does that is being computed follows that one: it waits, and goes on from a copy.
    """

    def __init__(
        self,
        model: LanguageModel,
        outbox: Outbox,
        steering: Steering,
        chunk_sizer: ChunkSizer,
        controls: frozenset[int] = frozenset(),
        batching: Batching | None = None,
        vision: "Vision | None" = None,
        kv_bits: KVBits | None = None,
    ) -> None:
        self._model = model
        self._images = ImagePrefill(model, vision, chunk_sizer)
        self._selected = SelectedLogits(model)
        self._outbox = outbox
        self._steering = steering
        self._chunk_sizer = chunk_sizer
        self._controls = controls  # control tokens, which templates put around messages
        self._batching = batching or Batching()
        self._kv_bits = kv_bits
        layers = model.new_layers(kv_bits)
        self._needs_checkpoints, self._cut_step = not layers.is_trimmable, layers.cut_step
        self._queue: deque[Row] = deque()  # each with its siblings

    @property
    def rows(self) -> list[Row]:
        """The rows, with the siblings that share their prompts."""
        return [one for row in self._queue for one in (row, *row.siblings)]

    def __bool__(self) -> bool:
        return bool(self._queue)

    def add(self, row: Row, cached: CachedPrefix | None) -> None:
        """Queue a row; its prompt is computed from the end of its cached prefix."""
        state = row.prefill
        if cached:
            state.layers, state.length, state.checkpoints = cached.layers, len(cached.tokens), cached.checkpoints
        else:
            state.layers = self._model.new_layers(self._kv_bits)
        if self._needs_checkpoints:
            shared = state.cache_use.first_diff
            positions = checkpoint_positions(state.tokens, state.length, self._controls, shared, self._cut_step)
            state.next_checkpoints = sorted({row.images.before(position) for position in positions})
        if row.prompt_scorer is None and (lead := find_lead(row, self._queue)):
            self._follow(row, lead)
        self._queue.append(row)

    def cancel(self, request: RunningRequest) -> Row | None:
        """Drop the row of a request. Returns it if nobody needs its prompt: no sibling, and no row that follows it."""
        for index, row in enumerate(self._queue):
            if any(one.generation is request for one in (row, *row.siblings)):
                if rest := row.without(request):
                    self._queue[index] = rest
                    return None
                del self._queue[index]
                self._images.retain(self._queue)
                return None if self._replace_lead(row.prefill) else row
        return None

    def clear(self) -> None:
        """Drop all rows."""
        self._queue.clear()
        self._images.retain(())

    def free(self) -> None:
        """Let go of the model."""
        self._images.free()
        del self._model, self._selected

    def take(self, budget: int) -> list[Row]:
        """Take out the next row, or several with short prompts that can be computed in one call."""
        ready = [row for row in self._queue if row.prefill.lead is None]
        rows = self._short_prompts(ready, budget) or ready[:1]
        for row in rows:
            self._queue.remove(row)
        return rows

    def compute(self, rows: Sequence[Row], budget: int) -> Chunk:
        """Compute about so many tokens of rows that `take` gave; one that is not ready then is queued again."""
        try:
            chunk = self._compute_together(rows) if len(rows) > 1 else self._compute_chunk(rows[0], budget)
        except Exception:
            for row in rows:
                row.prefill.drop_layers()
                if row.scoring is not None:
                    row.scoring.restart()
                self._replace_lead(row.prefill)
            raise
        for row in chunk.ready:
            row.prefill.note_computed()
        return chunk

    def _short_prompts(self, ready: Sequence[Row], budget: int) -> list[Row]:
        """Give the first rows whose prompts can be computed in one call, if there are several."""
        if self._batching.decoding or self._batching.prefill:
            return []
        together: list[Row] = []
        longest = 0
        leads = {id(row.prefill.lead.state) for row in self._queue if row.prefill.lead}
        for row in ready:
            longest = max(longest, row.prefill.tokens_left - 1)
            if (
                longest > SHORT
                or row.max_tokens == 0
                or row.siblings
                or row.images
                or row.prompt_scorer is not None
                or row.prefill.next_checkpoints
                or id(row.prefill) in leads
                or row.failures
                or longest * (len(together) + 1) > max(budget, SHORT)
            ):
                break
            together.append(row)
        return together if len(together) > 1 else []

    def _compute_together(self, rows: Sequence[Row]) -> Chunk:
        """Compute all but the last token of short prompts in one call."""
        states = [row.prefill for row in rows]
        lengths = [state.tokens_left - 1 for state in states]
        longest = max(lengths)
        if longest == 1 and not min(lengths):
            longest = 2  # a sliding window takes a single token for one that is decoded, and is not padded then
        layers = merge([state.take_layers() for state in states])
        if longest:
            padding = [longest - length for length in lengths]
            tokens = [state.tokens[state.length : -1] + [0] * pad for state, pad in zip(states, padding, strict=True)]
            self._steering.use(rows)
            with self._chunk_sizer.measure(longest * len(rows)):
                forward_padded(self._model, layers, tokens, padding)
        for state, length in zip(states, lengths, strict=True):
            state.advance(length)
        return Chunk(longest * len(rows) + len(rows), rows, layers)

    def _compute_chunk(self, row: Row, budget: int) -> Chunk:
        """Compute a part of one prompt."""
        state = row.prefill
        if row.scoring is not None and not state.tokens_left:
            return self._score(row, row.scoring, budget)
        last = 0 if row.max_tokens == 0 else 1  # the token that is left for the batch
        forks = [length - state.length for length, _ in self._followers(state)]
        scorer = row.prompt_scorer
        most = min(budget, scorer.most_tokens) if scorer else budget
        tokens = state.next_tokens(min([state.tokens_left - last, most, *forks]))
        computed = 0
        if tokens:
            self._steering.use([row])
            if not (computed := self._compute_part(row, tokens, budget)):
                self._queue.append(row)
                return Chunk(budget)  # an image took the time
            state.advance(computed)
            if not row.answer:
                self._outbox.put(row.generation, [row.progress()])
            self._fork(state)
        if state.tokens_left > last or row.scoring is not None:
            self._queue.append(row)
            return Chunk(computed + 1)
        rows = row.share()
        if scorer is not None:
            for one in rows:
                self._outbox.put(one.generation, [scorer.event()])
        if last and len(rows) > 1 and self._batching.decoding is None:
            return Chunk(computed + 1, rows, merge([state.take_layers()] * len(rows)))
        for sibling in rows[1:] if last else ():
            assert state.layers is not None
            sibling.prefill.layers = state.layers.copy()  # its arrays are copied on write
        return Chunk(computed + 1, rows)

    def _compute_part(self, row: Row, tokens: list[int], budget: int) -> int:
        """Compute the next tokens of a prompt, up to an image, or an image. Returns how many; 0 while one is seen."""
        layers, scorer = row.prefill.layers, row.prompt_scorer
        assert layers is not None
        if row.images:
            tokens, image = self._images.next_part(row, tokens)
            if image is not None:
                return self._images.compute(row, image, len(tokens), budget)
        with self._chunk_sizer.measure(len(tokens)):
            if scorer is None:
                forward(self._model, layers, tokens)
            else:
                scorer.add(forward_with_logits(self._model, layers, [tokens])[0], row.prefill.length)
        return len(tokens)

    def _score(self, row: Row, scoring: Scoring, budget: int) -> Chunk:
        """Compute some of the texts behind a prompt, which is computed."""
        if not scoring.is_begun:
            scoring.begin(row.prefill.take_layers())
        self._steering.use([row])
        start = time.perf_counter()
        with self._chunk_sizer.expect(budget):
            tokens = scoring.compute(self._selected, budget)
        self._chunk_sizer.note(tokens, time.perf_counter() - start)
        if not scoring.is_finished:
            self._queue.append(row)
            return Chunk(tokens + 1)
        row.prefill.layers = scoring.take_layers()
        self._outbox.put(row.generation, [scoring.result(row.cached_tokens)])
        return Chunk(tokens + 1, [row])

    def _follow(self, row: Row, lead: Lead) -> None:
        """Have a row wait until its lead has computed what they share."""
        row.prefill.lead = lead
        if self._needs_checkpoints:  # for those that come when both are gone
            lead.state.plan_checkpoint(lead.length - lead.length % self._cut_step)

    def _followers(self, state: PrefillState) -> list[tuple[int, Row]]:
        """Give the rows that wait for a prompt, each after the number of tokens that it waits for."""
        return [(lead.length, row) for row in self._queue if (lead := row.prefill.lead) and lead.state is state]

    def _fork(self, state: PrefillState) -> None:
        """Have the rows go on that wait for what is computed now."""
        for length, row in self._followers(state):
            if length == state.length:
                row.prefill.fork()
                self._outbox.put(row.generation, [row.progress()])
                self._fork(row.prefill)
            elif length < state.length:
                row.prefill.lead = None  # it cannot go back

    def _replace_lead(self, gone: PrefillState) -> bool:
        """Have the row that shares most with a prompt take its place, and the others follow that one; False if none."""
        followers = self._followers(gone)
        if not followers:
            return False
        _, heir = max(followers, key=lambda follower: follower[0])
        heir.prefill.take_over(gone)
        if heir.prefill.lead:
            self._follow(heir, heir.prefill.lead)
        for length, row in followers:
            if row is not heir:
                self._follow(row, Lead(heir.prefill, length))
        self._fork(heir.prefill)
        return True
