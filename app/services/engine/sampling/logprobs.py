"""How likely the drawn tokens were, for the rows that ask."""

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
    """Log-probabilities of some rows: of the drawn token and of the `width` most likely ones, not read yet.

    They are of the logits that are given: the model's own, before penalties, grammar and temperature, or those that
    its samplers have left, minus infinity for the others.
    """

    def __init__(self, logits: mx.array, drawn: mx.array, places: Sequence[int], width: int) -> None:
        rows = mx.array(list(places))
        raw = logits[rows].astype(mx.float32)
        logprobs = raw - mx.logsumexp(raw, axis=-1, keepdims=True)
        self._places = {place: index for index, place in enumerate(places)}
        self._drawn = mx.take_along_axis(logprobs, drawn[rows][:, None].astype(mx.int32), axis=-1)[:, 0]
        self._ids, self._values = _best(logprobs, width)
        self._lists: tuple[list[float], list[list[int]], list[list[float]]] | None = None  # once they are read

    @property
    def arrays(self) -> list[mx.array]:
        """What has to be computed with the step."""
        return [self._drawn, self._ids, self._values]

    def keep(self, places: Sequence[int]) -> "BatchLogprobs":
        """Give the scores of these rows alone, which move to the places 0, 1, 2, …"""
        kept = copy(self)
        kept._places = {new: self._places[old] for new, old in enumerate(places) if old in self._places}
        return kept

    def of(self, place: int) -> RowLogprobs:
        """Give a row's log-probability of its token, and the most likely tokens with theirs."""
        index = self._places[place]
        drawn, ids, values = self._read()
        return drawn[index], list(zip(ids[index], values[index], strict=True))

    def _read(self) -> tuple[list[float], list[list[int]], list[list[float]]]:
        """Read all rows in one go: each array that is looked into by itself costs a call of its own."""
        if self._lists is None:
            self._lists = cast("Any", (self._drawn.tolist(), self._ids.tolist(), self._values.tolist()))
        return self._lists


def _best(logprobs: mx.array, width: int) -> tuple[mx.array, mx.array]:
    if width == 0:
        return mx.zeros((logprobs.shape[0], 0), dtype=mx.int32), mx.zeros((logprobs.shape[0], 0))
    ids = mx.argpartition(-logprobs, kth=width - 1, axis=-1)[:, :width]
    values = mx.take_along_axis(logprobs, ids, axis=-1)
    order = mx.argsort(-values, axis=-1)
    return mx.take_along_axis(ids, order, axis=-1), mx.take_along_axis(values, order, axis=-1)


def spelled(token: int, score: RowLogprobs, width: int, detokenizer: Detokenizer) -> TokenLogprob:
    """Say a token's score in the common vocabulary, with the `width` most likely tokens."""
    logprob, best = score
    top = tuple(
        TokenLogprob(other, detokenizer.data(other), round(value, _DIGITS))
        for other, value in best[:width]
        if value > -math.inf
    )
    return TokenLogprob(token, detokenizer.data(token), round(logprob, _DIGITS), top)
