"""Log-probabilities of the drawn tokens, for the rows that ask for them."""

import math
from collections.abc import Sequence
from copy import copy
from typing import Any, cast

import mlx.core as mx

from app.services.engine.output.detokenizer import Detokenizer
from app.services.generation import TokenLogprob

RowLogprobs = tuple[float, list[tuple[int, float]]]  # of the drawn token; the most likely ones with theirs

_DIGITS = 4  # batches of different sizes round differently after that


class BatchLogprobs:
    """Log-probabilities of some rows of a batch: of the drawn token and of the `width` most likely ones; read lazily.

    `tokens` are those of all rows. The logits are the model's own, before penalties, grammar and temperature, or what
    the samplers leave of them, minus infinity for the others.
    """

    def __init__(self, logits: mx.array, tokens: mx.array, rows: Sequence[int], width: int) -> None:
        indices = mx.array(list(rows))
        raw = logits[indices].astype(mx.float32)
        logprobs = raw - mx.logsumexp(raw, axis=-1, keepdims=True)
        self._indices = {row: index for index, row in enumerate(rows)}
        self._token_logprobs = mx.take_along_axis(logprobs, tokens[indices][:, None].astype(mx.int32), axis=-1)[:, 0]
        self._ids, self._logprobs = _most_likely(logprobs, width)
        self._lists: tuple[list[float], list[list[int]], list[list[float]]] | None = None  # once they are read

    @property
    def arrays(self) -> list[mx.array]:
        """What has to be computed with the step."""
        return [self._token_logprobs, self._ids, self._logprobs]

    def select(self, rows: Sequence[int]) -> "BatchLogprobs":
        """Give those of these rows alone, which become the rows 0, 1, 2, …"""
        others = copy(self)
        others._indices = {new: self._indices[old] for new, old in enumerate(rows) if old in self._indices}
        return others

    def of_row(self, row: int) -> RowLogprobs:
        """Give a row's log-probability of its drawn token, and the most likely tokens with theirs."""
        index = self._indices[row]
        token_logprobs, ids, logprobs = self._read()
        return token_logprobs[index], list(zip(ids[index], logprobs[index], strict=True))

    def _read(self) -> tuple[list[float], list[list[int]], list[list[float]]]:
        """Read all rows in one go: each read of an array costs a call."""
        if self._lists is None:
            self._lists = cast("Any", (self._token_logprobs.tolist(), self._ids.tolist(), self._logprobs.tolist()))
        return self._lists


def _most_likely(logprobs: mx.array, width: int) -> tuple[mx.array, mx.array]:
    if width == 0:
        return mx.zeros((logprobs.shape[0], 0), dtype=mx.int32), mx.zeros((logprobs.shape[0], 0))
    ids = mx.argpartition(-logprobs, kth=width - 1, axis=-1)[:, :width]
    logprobs = mx.take_along_axis(logprobs, ids, axis=-1)
    order = mx.argsort(-logprobs, axis=-1)
    return mx.take_along_axis(ids, order, axis=-1), mx.take_along_axis(logprobs, order, axis=-1)


def token_logprob(token: int, logprobs: RowLogprobs, width: int, detokenizer: Detokenizer) -> TokenLogprob:
    """Make the event's log-probability of a drawn token, with the `width` most likely tokens."""
    logprob, most_likely = logprobs
    top = tuple(
        TokenLogprob(other, detokenizer.token_bytes(other), round(value, _DIGITS))
        for other, value in most_likely[:width]
        if value > -math.inf
    )
    return TokenLogprob(token, detokenizer.token_bytes(token), round(logprob, _DIGITS), top)
