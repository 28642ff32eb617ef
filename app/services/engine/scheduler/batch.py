"""The rows that are being decoded together."""

from collections.abc import Collection, Sequence
from typing import Any, cast

import mlx.core as mx
import numpy as np

from app.services.engine.cache.batch_cache import BatchCache
from app.services.engine.cache.layers import Layers, is_trimmable
from app.services.engine.model.adapters import Adapters
from app.services.engine.sampling.logprobs import BatchLogprobs, RowLogprobs
from app.services.engine.sampling.sampler import Sampler
from app.services.engine.scheduler.drafts import draw_each, note_draft
from app.services.engine.scheduler.row import Row, forced_run, take_back_draws

RowToken = tuple[Row, int, RowLogprobs | None]  # a row, its next token, and the log-probabilities if the row asks


class Batch:
    """Continuous batching over mlx-lm's batch caches: rows join and leave between steps.

    A row joins with all of its prompt but the last token in its cache; every step feeds one token a row and draws the
    next. A step is launched before the tokens of the one before are read, so that the device never waits for Python;
    where how a row goes on depends on what is drawn, as at its end, all is read at once. A row that is
    alone runs on its own cache, without the padding mask of a batch.
    """

    def __init__(self, model: Any, vocabulary: int, *, adapters: Adapters | None = None) -> None:
        self.rows: list[Row] = []
        self._model = model
        self._vocabulary = vocabulary
        self._adapters = adapters or Adapters()
        self._cache = BatchCache()
        self._sampler: Sampler | None = None
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
        self._sampler = None

    def step(self, *, speculate: bool = False) -> list[RowToken]:
        """Feed a token of every row, draw the next, and give the tokens that can be read now.

        A row that is alone may have several, where a draft of what it says next can be made.
        """
        if self._next is None:
            return []
        if not self._cache.merged:
            row = self.rows[0]
            if run := [] if self._fresh else forced_run(row):
                return self._feed_forced(row, run)
            if speculate and (draft := self._propose(row)):
                return self._verify(row, draft)
        fed, logprobs, unread = self._next, self._logprobs, 0 if self._next_is_read else len(self.rows) - self._fresh
        self._adapters.use([row.scales for row in self.rows])
        logits = self._model(fed[:, None], cache=self._cache.layers)[:, -1, :]
        self._next, self._fresh = self._draw(logits, fed), 0
        self._logprobs = self._logprobs_of(logits, self._next)
        self._remember(logits[:, None])
        mx.async_eval(self._next, *(self._logprobs.arrays if self._logprobs else ()))
        tokens = self._read(fed[:unread], logprobs) if unread else []
        self._next_is_read = any(row.pivotal for row in self.rows)
        return tokens + self._read(self._next, self._logprobs) if self._next_is_read else tokens

    def redraw(self) -> list[RowToken]:
        """Have rows draw again what they drew before it was read that a call begins, which a grammar binds.

        To be called once the tokens of a step are read. Gives the tokens that can be read now.
        """
        indices = [index for index, row in enumerate(self.rows) if row.must_redraw and not row.finish_reason]
        if not indices or self._logits is None:
            return []
        surplus = max(take_back_draws(self.rows[index]) for index in indices)
        if surplus:  # of a draft, which only a row that is alone has
            for layer in self._cache.layers:
                layer.trim(surplus)
        logits = self._logits[:, -1 - surplus]
        answers = [row.answer[: row.drawn_tokens - 1] for row in self.rows]
        params, prompts = [row.params for row in self.rows], [row.prompt for row in self.rows]
        # For the others it is what they have drawn: the same noise at the same position.
        self._sampler = Sampler(params, answers, [len(answer) for answer in answers], self._vocabulary, prompts)
        none = mx.full((len(self.rows),), self._vocabulary, dtype=mx.uint32)
        self._next = _force(self.rows, self._sampler(self._mask(logits, drawn=1), none).astype(mx.uint32))
        self._logprobs = self._logprobs_of(logits, self._next)
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
        self._sampler = None
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
        other = Batch(self._model, self._vocabulary, adapters=self._adapters)
        other._next, other._next_is_read = self._next[mx.array(indices)], self._next_is_read
        other._logits = None if self._logits is None else self._logits[mx.array(indices)]
        other._logprobs = self._logprobs.select(indices) if self._logprobs else None
        self.leave(rows)
        other.rows = list(rows)
        other._cache.join([row.prefill.take_layers() for row in rows])
        return other

    def _feed_forced(self, row: Row, run: list[int]) -> list[RowToken]:
        """Feed a row's next token and those that a grammar forces behind it, and draw what follows them."""
        assert self._next is not None and row.constraint is not None
        self._adapters.use([row.scales])
        fed = mx.concatenate([self._next, mx.array(run, dtype=mx.uint32)])
        logits = self._model(fed[None], cache=self._cache.layers)[0]
        mx.async_eval(logits)
        tokens = [] if self._next_is_read else self._read(self._next, self._logprobs)
        certain = [cast("int", self._next.item()), *run[:-1]]
        for token in certain:
            row.constraint.accept(token)
        answer = [*row.answer[: row.computed_tokens], *certain]
        row.note_certain(len(run))
        self._sampler = Sampler([row.params], [answer], [row.drawn_tokens], self._vocabulary, [row.prompt])
        logprobs = None if row.logprobs is None else BatchLogprobs(logits, fed[1:], range(len(run)), row.logprobs)
        tokens += [(row, token, logprobs.of_row(index) if logprobs else None) for index, token in enumerate(run)]
        self._next = self._draw(logits[-1:], fed[-1:])
        self._logprobs = self._logprobs_of(logits[-1:], self._next)
        self._remember(logits[None])
        mx.async_eval(self._next, *(self._logprobs.arrays if self._logprobs else ()))
        self._next_is_read = row.pivotal
        return tokens + self._read(self._next, self._logprobs) if self._next_is_read else tokens

    def _propose(self, row: Row) -> list[int]:
        """Draft what a row says next, where that can be taken back and nothing depends on each single step."""
        if row.proposer is None or row.is_bound or row.logprobs is not None:
            return []
        if any(position >= row.drawn_tokens for position in row.forced_tokens):
            return []
        if not all(is_trimmable(layer) for layer in self._cache.layers):
            return []
        assert self._next is not None
        tokens, tokens_left = row.prefill.tokens + row.answer[row.resumed_tokens :], row.max_tokens - row.drawn_tokens
        if self._next_is_read or self._fresh:
            return row.proposer.propose(tokens, tokens_left)
        if row.proposer.needs_last_token:
            return row.proposer.propose([*tokens, cast("int", self._next.item())], tokens_left)
        # The next token is drawn, but not read yet: the draft begins with it.
        draft = row.proposer.propose(tokens, tokens_left)
        if not draft or cast("int", self._next.item()) == draft[0]:
            return draft[1:]
        row.proposer.update(len(draft), 0)
        return []

    def _verify(self, row: Row, draft: list[int]) -> list[RowToken]:
        """Feed a row's next token and a draft of what follows it; what is drawn is what single steps would draw.

        The draw at each position is made as if the draft were accepted until there, so it counts as far as it is.
        """
        assert self._next is not None and row.proposer is not None
        first = cast("int", self._next.item())
        self._adapters.use([row.scales])
        logits = self._model(mx.array([[first, *draft]]), cache=self._cache.layers)[0]
        drawn = draw_each(row, logits, [first, *draft], self._vocabulary, fresh=bool(self._fresh))
        accepted = next((index for index, token in enumerate(draft) if token != drawn[index]), len(draft))
        for layer in self._cache.layers:
            layer.trim(len(draft) - accepted)
        tokens = drawn[: accepted + 1] if self._next_is_read or self._fresh else [first, *drawn[: accepted + 1]]
        row.proposer.update(len(draft), accepted)
        note_draft(row, len(draft), accepted, fresh=bool(self._fresh))
        self._next, self._fresh = mx.array(drawn[accepted : accepted + 1], mx.uint32), 0
        self._next_is_read = True
        self._sampler = self._logprobs = None
        self._remember(logits[None, : accepted + 1])
        return [(row, token, None) for token in tokens]

    def _draw(self, logits: mx.array, fed: mx.array) -> mx.array:
        if self._sampler is None:
            params = [row.params for row in self.rows]
            answers = [row.answer[: row.computed_tokens] for row in self.rows]  # what is fed now is counted below
            positions, prompts = [row.drawn_tokens for row in self.rows], [row.prompt for row in self.rows]
            self._sampler = Sampler(params, answers, positions, self._vocabulary, prompts)
        drawn = self._sampler(self._constrain(logits, fed), self._to_count(fed)).astype(mx.uint32)
        for index, row in enumerate(self.rows):
            row.note_step(fresh=index >= len(self.rows) - self._fresh)
        return _force(self.rows, drawn)

    def _logprobs_of(self, logits: mx.array, drawn: mx.array) -> BatchLogprobs | None:
        indices = [index for index, row in enumerate(self.rows) if row.logprobs is not None]
        if not indices:
            return None
        if any(row.params.post_sampling for row in self.rows):
            assert self._sampler is not None
            post_sampling = mx.array([[row.params.post_sampling] for row in self.rows])
            logits = mx.where(post_sampling, self._sampler.distribution(), logits.astype(mx.float32))
        return BatchLogprobs(logits, drawn, indices, max(self.rows[index].logprobs or 0 for index in indices))

    def _read(self, tokens: mx.array, logprobs: BatchLogprobs | None) -> list[RowToken]:
        row_tokens = []
        for index, token in enumerate(cast("list[int]", tokens.tolist())):
            row = self.rows[index]
            row_tokens.append((row, token, logprobs.of_row(index) if logprobs and row.logprobs is not None else None))
        return row_tokens

    def _remember(self, logits: mx.array) -> None:
        """Keep logits (rows, draws, vocabulary) for `redraw`, where it may be needed."""
        self._logits = logits if any(row.constraint is not None for row in self.rows) else None

    def _constrain(self, logits: mx.array, fed: mx.array) -> mx.array:
        """Leave of the logits what the grammars allow behind the fed tokens."""
        if not any(row.is_bound for row in self.rows):
            return logits
        mx.async_eval(logits)  # computed while the masks are made
        for row, token in zip(self.rows, cast("list[int]", fed.tolist()), strict=True):
            if row.constraint is not None and row.is_bound and row.constraint.accepted_tokens < row.drawn_tokens:
                row.constraint.accept(token)
        return self._mask(logits)

    def _mask(self, logits: mx.array, drawn: int = 0) -> mx.array:
        """Leave of the logits what the grammars allow, and note what they force. `drawn`: tokens that are drawn anew.

        What is forced needs no mask, unless something is told of what else there was.
        """
        allowed = np.ones(logits.shape, dtype=bool)
        for index, row in enumerate(self.rows):
            if row.constraint is None or not row.is_bound:
                continue
            position = row.drawn_tokens - drawn
            if position not in row.forced_tokens:
                row.forced_tokens.add_by_grammar(position, row.constraint.forced_tokens())
            if position not in row.forced_tokens or row.params.post_sampling:
                allowed[index] = row.constraint.mask()
        return mx.where(mx.array(allowed), logits, -mx.inf)

    def _to_count(self, fed: mx.array) -> mx.array:
        """What samplers have to count of the fed tokens: not the last of a prompt, which they know already."""
        if not self._fresh:
            return fed
        old = len(self.rows) - self._fresh
        return mx.concatenate([fed[:old], mx.full((self._fresh,), self._vocabulary, dtype=fed.dtype)])


def _force(rows: Sequence[Row], drawn: mx.array) -> mx.array:
    """Replace what rows drew (rows,) by the tokens that they must say."""
    tokens = [row.forced_tokens.get(row.drawn_tokens - 1, -1) for row in rows]
    if max(tokens) < 0:
        return drawn
    forced = mx.array(tokens)
    return mx.where(forced >= 0, forced, drawn).astype(mx.uint32)
