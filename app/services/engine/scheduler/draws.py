"""Draws the next tokens of the rows of a batch, as their samplers, their grammars and what they must say have it."""

from collections.abc import Sequence
from typing import cast

import mlx.core as mx
import numpy as np

from app.services.engine.sampling.logprobs import BatchLogprobs
from app.services.engine.sampling.sampler import Sampler
from app.services.engine.scheduler.row import Row, computed_answer


class Draws:
    """Draws for one batch. The sampler is made anew where the rows have changed, or what they have drawn elsewhere."""

    def __init__(self, vocabulary: int) -> None:
        self._vocabulary = vocabulary
        self._sampler: Sampler | None = None

    def forget(self) -> None:
        """Note that the rows, or their positions, are no longer those of the last call."""
        self._sampler = None

    def __call__(self, rows: Sequence[Row], logits: mx.array, fed: mx.array, fresh: int) -> mx.array:
        """Draw tokens (rows,) from logits (rows, vocabulary) behind the tokens (rows,) that were fed.

        `fresh`: the rows at the end to which the last token of their prompt was fed.
        """
        if self._sampler is None:
            # what is fed now is counted below
            self._sampler = self._make([computed_answer(row) for row in rows], rows, [row.drawn_tokens for row in rows])
        drawn = self._sampler(_constrain(rows, logits, fed), self._to_count(fed, fresh)).astype(mx.uint32)
        for index, row in enumerate(rows):
            row.note_step(fresh=index >= len(rows) - fresh)
        return _force(rows, drawn)

    def again(self, rows: Sequence[Row], logits: mx.array) -> mx.array:
        """Repeat the last draw, which is not read yet, with the grammars that bind rows now.

        For the others it is what they have drawn: the same noise at the same position.
        """
        answers = [row.answer[: row.drawn_tokens - 1] for row in rows]
        self._sampler = self._make(answers, rows, [len(answer) for answer in answers])
        none = mx.full((len(rows),), self._vocabulary, dtype=mx.uint32)
        return _force(rows, self._sampler(_mask(rows, logits, drawn=1), none).astype(mx.uint32))

    def logprobs(self, rows: Sequence[Row], logits: mx.array, drawn: mx.array) -> BatchLogprobs | None:
        """Give the log-probabilities of what was drawn last, for the rows that ask for them; None if none does."""
        indices = [index for index, row in enumerate(rows) if row.logprobs is not None]
        if not indices:
            return None
        if any(row.params.post_sampling for row in rows):
            assert self._sampler is not None
            post_sampling = mx.array([[row.params.post_sampling] for row in rows])
            logits = mx.where(post_sampling, self._sampler.distribution(), logits.astype(mx.float32))
        return BatchLogprobs(logits, drawn, indices, max(rows[index].logprobs or 0 for index in indices))

    def _make(self, answers: Sequence[Sequence[int]], rows: Sequence[Row], positions: Sequence[int]) -> Sampler:
        params, prompts = [row.params for row in rows], [row.prompt for row in rows]
        return Sampler(params, answers, positions, self._vocabulary, prompts)

    def _to_count(self, fed: mx.array, fresh: int) -> mx.array:
        """What samplers have to count of the fed tokens: not the last of a prompt, which they know already."""
        if not fresh:
            return fed
        return mx.concatenate([fed[: fed.size - fresh], mx.full((fresh,), self._vocabulary, dtype=fed.dtype)])


def _constrain(rows: Sequence[Row], logits: mx.array, fed: mx.array) -> mx.array:
    """Leave of the logits what the grammars allow behind the fed tokens."""
    if not any(row.is_bound for row in rows):
        return logits
    mx.async_eval(logits)  # computed while the masks are made
    for row, token in zip(rows, cast("list[int]", fed.tolist()), strict=True):
        if row.constraint is not None and row.is_bound and row.constraint.accepted_tokens < row.drawn_tokens:
            row.constraint.accept(token)
    return _mask(rows, logits)


def _mask(rows: Sequence[Row], logits: mx.array, drawn: int = 0) -> mx.array:
    """Leave of the logits what the grammars allow, and note what they force. `drawn`: tokens that are drawn anew.

    What is forced needs no mask, unless something is told of what else there was.
    """
    allowed = np.ones(logits.shape, dtype=bool)
    for index, row in enumerate(rows):
        if row.constraint is None or not row.is_bound:
            continue
        position = row.drawn_tokens - drawn
        if position not in row.forced_tokens:
            row.forced_tokens.add_by_grammar(position, row.constraint.forced_tokens())
        if position not in row.forced_tokens or row.params.post_sampling:
            allowed[index] = row.constraint.mask()
    return mx.where(mx.array(allowed), logits, -mx.inf)


def _force(rows: Sequence[Row], drawn: mx.array) -> mx.array:
    """Replace what rows drew (rows,) by the tokens that they must say."""
    tokens = [row.forced_tokens.get(row.drawn_tokens - 1, -1) for row in rows]
    if max(tokens) < 0:
        return drawn
    forced = mx.array(tokens)
    return mx.where(forced >= 0, forced, drawn).astype(mx.uint32)
