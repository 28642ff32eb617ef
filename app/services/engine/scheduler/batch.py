"""The rows that are being decoded together."""

import time
from collections.abc import Collection, Sequence
from typing import cast

import mlx.core as mx
import numpy as np

from app.services.engine.cache.batch_cache import BatchCache
from app.services.engine.cache.layers import Layers
from app.services.engine.model.chunk_sizer import ChunkSizer
from app.services.engine.model.language_model import LanguageModel
from app.services.engine.sampling.logprobs import BatchLogprobs, RowLogprobs
from app.services.engine.scheduler.drafts import draw_each, note_draft, propose, walk
from app.services.engine.scheduler.draws import Draws
from app.services.engine.scheduler.row import Row, forced_run, take_back_draws
from app.services.engine.scheduler.steering import Steering
from app.services.engine.scheduler.step_costs import StepCosts

RowToken = tuple[Row, int, RowLogprobs | None]  # a row, its next token, and the log-probabilities if the row asks


class Batch:
    """Continuous batching over mlx-lm's batch caches: rows join and leave between steps.

    A row joins with all of its prompt but the last token in its cache; every step feeds one token a row and draws the
    next. A step is launched before the tokens of the one before are read, so that the device never waits for Python;
    where how a row goes on depends on what is drawn, as at its end, all is read at once. A row that is
    alone runs on its own cache, without the padding mask of a batch.
    """

    def __init__(
        self,
        model: LanguageModel,
        vocabulary: int,
        *,
        steering: Steering | None = None,
        chunk_sizer: ChunkSizer | None = None,
    ) -> None:
        self.rows: list[Row] = []
        self._model = model
        self._vocabulary = vocabulary
        self._steering = steering or Steering()
        self._chunk_sizer = chunk_sizer  # of prompts
        self._costs = StepCosts(chunk_sizer)
        self._cache = BatchCache()
        self._draws = Draws(vocabulary)
        self._next: mx.array | None = None  # (rows,) tokens to feed
        self._logprobs: BatchLogprobs | None = None  # of the tokens in `_next`
        self._logits: mx.array | None = None  # (rows, draws, vocabulary) of the last step, for `redraw`
        self._fresh = 0  # rows at the end whose next token is still the prompt's
        self._next_is_read = True  # whether the tokens in `_next` are read; those of prompts need not be

    def __len__(self) -> int:
        return len(self.rows)

    def join(self, rows: Sequence[Row], merged: Layers | None = None) -> None:
        """Take in rows, with a batch cache of theirs if they have one already; else theirs are copied into one."""
        last = mx.array([row.prefill.tokens[-1] for row in rows], dtype=mx.uint32)
        if merged is None:
            self._cache.join([row.prefill.take_layers() for row in rows])
        else:
            self._cache.join_merged(merged, len(rows))
        self._next = last if self._next is None else mx.concatenate([self._next, last])
        self._fresh += len(rows)
        self.rows.extend(rows)
        self._draws.forget()

    def step(self, *, speculate: bool = False) -> list[RowToken]:
        """Feed a token of every row, draw the next, and give the tokens that can be read now.

        A row that is alone may have several, where a draft of what it says next can be made.
        """
        if self._next is None:
            return []
        if any(runs := self._forced_runs()):
            return self._feed_runs(runs)
        if speculate and not self._cache.merged:
            is_read, can_trim = self._next_is_read or self._fresh > 0, self._cache.can_trim
            if draft := propose(self.rows[0], self._next, is_read=is_read, can_trim=can_trim):
                return self._verify(self.rows[0], draft)
        start = time.perf_counter()
        fed, logprobs, unread = self._next, self._logprobs, 0 if self._next_is_read else len(self.rows) - self._fresh
        self._steering.use(self.rows)
        self._draw(self._model.step(self._cache.layers, fed[:, None])[:, -1, :], fed)
        tokens = self._read(fed[:unread], logprobs) if unread else []
        self._next_is_read = any(row.pivotal for row in self.rows)
        tokens += self._read(self._next, self._logprobs) if self._next_is_read else []
        self._costs.note_step(len(self.rows), time.perf_counter() - start)
        return tokens

    def _draw(self, logits: mx.array, fed: mx.array) -> None:
        """Draw the next tokens from logits (rows, vocabulary) behind the tokens (rows,) that were fed; none is read."""
        self._next, self._fresh = self._draws(self.rows, logits, fed, self._fresh), 0
        self._logprobs = self._draws.logprobs(self.rows, logits, self._next)
        self._remember(logits[:, None])
        mx.async_eval(self._next, *(self._logprobs.arrays if self._logprobs else ()))

    def redraw(self) -> list[RowToken]:
        """Have rows draw again what they drew before it was read that a call begins, which a grammar binds.

        To be called once the tokens of a step are read. Gives the tokens that can be read now.
        """
        indices = [index for index, row in enumerate(self.rows) if row.must_redraw and not row.finish_reason]
        if not indices or self._logits is None:
            return []
        surplus = max(take_back_draws(self.rows[index]) for index in indices)
        self._cache.trim(surplus)  # of a draft, which only a row that is alone has
        logits = self._logits[:, -1 - surplus]
        self._next = self._draws.again(self.rows, logits)
        self._logprobs = self._draws.logprobs(self.rows, logits, self._next)
        tokens = self._read(self._next, self._logprobs) if self._next_is_read else []
        return [tokens[index] for index in indices] if tokens else []

    def leave(self, rows: Collection[Row]) -> None:
        """Let rows go, handing each its cache back: it holds the prompt and `decoded_tokens` of the answer."""
        leaving = set(rows)
        keep = [index for index, row in enumerate(self.rows) if row not in leaving]
        for index, row in enumerate(self.rows):
            if row in leaving:
                row.prefill.layers = self._cache.extract(index)
        self._fresh = sum(1 for index in keep if index >= len(self.rows) - self._fresh)
        self.rows = [self.rows[index] for index in keep]
        self._draws.forget()
        if not keep:
            self._cache, self._next, self._logprobs, self._logits = BatchCache(), None, None, None
            return
        assert self._next is not None
        self._next = self._next[mx.array(keep)]
        self._logits = None if self._logits is None else self._logits[mx.array(keep)]
        self._logprobs = self._logprobs.select(keep) if self._logprobs else None
        self._cache.keep(keep)

    def layers(self, row: Row) -> Layers:
        """Give the layers of a row, which are its own if it is alone, else copies."""
        return self._cache.extract(self.rows.index(row))

    def split_off(self, rows: Sequence[Row]) -> "Batch":
        """Move rows out into a batch of their own, between two steps."""
        assert self._next is not None
        indices = [self.rows.index(row) for row in rows]
        other = Batch(self._model, self._vocabulary, steering=self._steering, chunk_sizer=self._chunk_sizer)
        other._next, other._next_is_read = self._next[mx.array(indices)], self._next_is_read
        other._logits = None if self._logits is None else self._logits[mx.array(indices)]
        other._logprobs = self._logprobs.select(indices) if self._logprobs else None
        self.leave(rows)
        other.rows = list(rows)
        other._cache.join([row.prefill.take_layers() for row in rows])
        return other

    def _forced_runs(self) -> list[list[int]]:
        """Give what grammars force of each row behind its next token, as far as it is worth a wider step."""
        old = self.rows[: len(self.rows) - self._fresh]
        for index, row in enumerate(old):
            if row.forced_tokens.follow_draws and row.drawn_tokens - 1 not in row.forced_tokens:
                self._look_ahead(index, row)
        runs = [*map(forced_run, old), *([] for _ in range(self._fresh))]
        if not self._cache.merged or not any(runs):
            return runs
        width = self._costs.width([1 + len(run) for run in runs]) if self._cache.can_trim_rows else 1
        return [run[: width - 1] for run in runs]

    def _look_ahead(self, index: int, row: Row) -> None:
        """Read a row's next token to see what is forced behind it, so that both can be fed in one step.

        Other steps are launched before that token is read. So this is for rows whose grammar is likely to force some.
        """
        assert self._next is not None
        if row.constraint is None or not row.is_bound or row.constraint.accepted_tokens != row.drawn_tokens - 1:
            return
        row.constraint.accept(token := cast("int", self._next[index].item()))
        if run := row.constraint.forced_tokens():
            row.forced_tokens.add_by_grammar(row.drawn_tokens - 1, [token, *run])
        else:
            row.forced_tokens.follow_draws = False

    def _feed_runs(self, runs: Sequence[Sequence[int]]) -> list[RowToken]:
        """Feed each row's next token and those that are certain to come behind it, and draw what follows them.

        Rows with fewer than others are padded, and the padding is taken out of the cache.
        """
        assert self._next is not None
        unread = 0 if self._next_is_read else len(self.rows) - self._fresh
        tokens = self._read(self._next[:unread], self._logprobs) if unread else []
        start, width = time.perf_counter(), 1 + max(map(len, runs))
        fed = [[first, *run] for first, run in zip(cast("list[int]", self._next.tolist()), runs, strict=True)]
        padding = [width - len(one) for one in fed]
        padded = mx.array([[*one, *[0] * count] for one, count in zip(fed, padding, strict=True)])
        self._steering.use(self.rows)
        logits = self._model.step(self._cache.layers, padded)
        mx.async_eval(logits)
        if any(padding):
            self._cache.trim_rows(padding)
        for index, (row, run) in enumerate(zip(self.rows, runs, strict=True)):
            if row.constraint is not None and run:
                accepted = row.constraint.accepted_tokens - row.drawn_tokens + 1  # 1: it was read before
                for token in fed[index][accepted:-1]:
                    row.constraint.accept(token)
            row.note_certain(len(run))
            tokens += _with_logprobs(row, run, logits[index])
        last = mx.take_along_axis(logits, mx.array([[[len(run)]] for run in runs]), axis=1)[:, 0]
        self._draws.forget()
        self._draw(last, mx.array([one[-1] for one in fed], dtype=mx.uint32))
        self._next_is_read = any(row.pivotal for row in self.rows)
        if self._cache.merged:
            mx.eval(self._next)
            self._costs.note_wide(padded.size, time.perf_counter() - start)
        return tokens + self._read(self._next, self._logprobs) if self._next_is_read else tokens

    def _verify(self, row: Row, draft: list[int]) -> list[RowToken]:
        """Feed a row's next token and a draft of what follows it; what is drawn is what single steps would draw.

        The draw at each position is made as if the draft were accepted until there, so it counts as far as it is.
        """
        assert self._next is not None and row.proposer is not None
        tokens = [] if self._next_is_read or self._fresh else self._read(self._next, self._logprobs)
        first = cast("int", self._next.item())
        if row.constraint is not None and row.is_bound and row.constraint.accepted_tokens < row.drawn_tokens:
            row.constraint.accept(first)
        masks = walk(row, draft)
        draft = draft[: len(masks) - 1] if masks else draft
        self._steering.use([row])
        before = self._cache.layers.checkpoint()
        logits = self._model.step(self._cache.layers, mx.array([[first, *draft]]))[0]
        allowed = mx.where(mx.array(np.stack(masks)), logits, -mx.inf) if masks else logits
        drawn = draw_each(row, allowed, [first, *draft], self._vocabulary, fresh=bool(self._fresh))
        accepted = next((index for index, token in enumerate(draft) if token != drawn[index]), len(draft))
        if row.constraint is not None and masks:
            for token in draft[:accepted]:
                row.constraint.accept(token)
        if accepted < len(draft) and not self._cache.can_trim:
            self._cache.layers.go_back(before, len(draft) + 1)
            self._model.fill(self._cache.layers, [[first, *draft[:accepted]]])
        else:
            self._cache.trim(len(draft) - accepted)
        if not self._cache.can_trim:  # they stay in the layers if the answer ends before them
            row.forced_tokens.add_certain(row.drawn_tokens, draft[:accepted])
        tokens += _with_logprobs(row, drawn[: accepted + 1], logits)
        row.proposer.update(len(draft), accepted)
        note_draft(row, len(draft), accepted, fresh=bool(self._fresh))
        self._next, self._fresh = mx.array(drawn[accepted : accepted + 1], mx.uint32), 0
        self._next_is_read = True
        self._logprobs = None
        self._draws.forget()
        self._remember(logits[None, : accepted + 1])
        return tokens

    def _read(self, tokens: mx.array, logprobs: BatchLogprobs | None) -> list[RowToken]:
        row_tokens = []
        for index, token in enumerate(cast("list[int]", tokens.tolist())):
            row = self.rows[index]
            row_tokens.append((row, token, logprobs.of_row(index) if logprobs and row.logprobs is not None else None))
        return row_tokens

    def _remember(self, logits: mx.array) -> None:
        """Keep logits (rows, draws, vocabulary) for `redraw`, where it may be needed."""
        self._logits = logits if any(row.constraint is not None for row in self.rows) else None


def _with_logprobs(row: Row, run: Sequence[int], logits: mx.array) -> list[RowToken]:
    """Give tokens of a row, with what logits (tokens, vocabulary) say of each if the row asks for that."""
    if row.logprobs is None or not run:
        return [(row, token, None) for token in run]
    logprobs = BatchLogprobs(logits, mx.array(list(run)), range(len(run)), row.logprobs)
    return [(row, token, logprobs.of_row(index)) for index, token in enumerate(run)]
