"""Samplers in any order, for rows that have the same one.

Each is a step from candidates to candidates, for all rows at once. Source of what they do: llama.cpp's samplers of the
same names.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import mlx.core as mx
import numpy as np

from app.services.engine.sampling.columns import column, top
from app.services.engine.sampling.params import SamplingParams

FEW = 256  # candidates up to which a partial sort pays
_COLD = 1e-6
_NEVER = -1e8  # logits below it are of tokens that are ruled out


@dataclass(frozen=True, slots=True)
class Candidates:
    """Tokens that may be drawn, with their logits. What is left out has a logit of minus infinity."""

    values: mx.array  # (rows, width)
    ids: mx.array | None  # (rows, width); None is every token, in the order of the vocabulary
    size: mx.array  # (rows, 1) how many are left, counting those that top_n_sigma and a grammar rule out
    ordered: bool = False  # the best first

    @property
    def tokens(self) -> mx.array:
        """The ids, whatever they are (rows, width)."""
        if self.ids is not None:
            return self.ids
        return mx.broadcast_to(mx.arange(self.values.shape[-1]), self.values.shape)

    @property
    def likelihoods(self) -> mx.array:
        """How likely each is (rows, width)."""
        return mx.softmax(self.values, axis=-1)

    def reordered(self, places: mx.array, *, ordered: bool) -> "Candidates":
        """Give the candidates at these places (rows, width or fewer) alone."""
        ids = places if self.ids is None else mx.take_along_axis(self.ids, places, axis=-1)
        values = mx.take_along_axis(self.values, places, axis=-1)
        return replace(self, values=values, ids=ids, ordered=ordered)

    def best_first(self, width: int | None = None) -> "Candidates":
        """Give them the best first, or only so many of the best."""
        if width is not None and width < self.values.shape[-1] and not self.ordered:
            best = mx.argpartition(-self.values, kth=width - 1, axis=-1)[:, :width]
            return self.reordered(best, ordered=False).best_first()
        return self if self.ordered else self.reordered(mx.argsort(-self.values, axis=-1), ordered=True)

    def only(self, stays: mx.array, least: mx.array) -> "Candidates":
        """Leave out those for which `stays` (rows, width) is false; there are so many at least (rows, 1)."""
        values = mx.where(stays, self.values, -mx.inf)
        count = mx.sum(values > -mx.inf, axis=-1, keepdims=True)
        return replace(self, values=values, size=mx.maximum(count, mx.minimum(least, self.size)))

    def without(self, out: mx.array, least: mx.array) -> "Candidates":
        """Leave some out (rows, width), but for the rows where fewer than `least` (rows, 1) would be left."""
        count = mx.sum(out & (self.values > -mx.inf), axis=-1, keepdims=True)
        size = self.size - count
        stays = size < least
        values = mx.where(out & ~stays, -mx.inf, self.values)
        return replace(self, values=values, size=mx.where(stays, self.size, size), ordered=False)


Step = Callable[[Candidates], Candidates]


def top_k(most: mx.array, width: int | None, candidates: Candidates) -> Candidates:
    """Leave the `most` likely ones of each row; `width` is that of the widest where a partial sort pays."""
    best = candidates.best_first(width)
    ranked = mx.arange(best.values.shape[-1]) < most
    return replace(best, values=mx.where(ranked, best.values, -mx.inf), size=mx.minimum(candidates.size, most))


def top_p(mass: mx.array, least: mx.array, candidates: Candidates) -> Candidates:
    """Leave the likeliest that have that mass together, `least` ones at least."""
    best = candidates.best_first()
    likely = best.likelihoods
    before = mx.cumsum(likely, axis=-1) - likely
    return best.only((before < mass) | _first(best, least), least)


def min_p(log_share: mx.array, least: mx.array, ranked: bool, candidates: Candidates) -> Candidates:
    """Leave those that are at least that share as likely as the likeliest."""
    best = candidates.best_first() if ranked else candidates
    enough = best.values >= top(best.values) + log_share
    return best.only(enough | _first(best, least) if ranked else enough, least)


def typical(mass: mx.array, least: mx.array, candidates: Candidates) -> Candidates:
    """Leave those that surprise about as much as is to be expected, until they have that mass together."""
    logs = candidates.values - mx.logsumexp(candidates.values, axis=-1, keepdims=True)
    likely = mx.exp(logs)
    strange = mx.where(logs > -mx.inf, mx.abs(-logs - _entropy(likely, logs)), mx.inf)
    order = mx.argsort(strange, axis=-1)
    usual = candidates.reordered(order, ordered=False)
    likely = mx.take_along_axis(likely, order, axis=-1)
    return usual.only((mx.cumsum(likely, axis=-1) - likely <= mass) | _first(usual, least), least)


def top_n_sigma(deviations: mx.array, candidates: Candidates) -> Candidates:
    """Rule out those whose logit is that many standard deviations below the highest."""
    values = candidates.values
    counted = values > _NEVER
    count = mx.maximum(mx.sum(counted, axis=-1, keepdims=True), 1)
    mean = mx.sum(mx.where(counted, values, 0), axis=-1, keepdims=True) / count
    spread = mx.sum(mx.where(counted, mx.square(values - mean), 0), axis=-1, keepdims=True) / count
    floor = top(values) - deviations * mx.sqrt(spread)
    return replace(candidates, values=mx.where(values < floor, -mx.inf, values))


def temperature(usual: mx.array, spread: mx.array, exponent: mx.array, candidates: Candidates) -> Candidates:
    """Divide by a temperature, which the entropy moves within the usual one's `spread`; a cold one leaves the best."""
    logs = candidates.values - mx.logsumexp(candidates.values, axis=-1, keepdims=True)
    most = mx.log(candidates.size.astype(mx.float32))
    share = mx.maximum(_entropy(mx.exp(logs), logs), 0) / mx.maximum(most, _COLD)
    lowest = mx.maximum(usual - spread, 0)
    moved = lowest + (usual + spread - lowest) * mx.power(share, exponent)
    return heated(mx.where(spread > 0, moved, usual), candidates)


def heated(degrees: mx.array, candidates: Candidates) -> Candidates:
    """Divide by a temperature; a cold one leaves the best."""
    values = candidates.values
    best = mx.arange(values.shape[-1]) == mx.argmax(values, axis=-1, keepdims=True)
    cold = mx.where(best, values, -mx.inf)
    values = mx.where(degrees < _COLD, cold, values / mx.maximum(degrees, _COLD))
    return replace(candidates, values=values)


def _entropy(likely: mx.array, logs: mx.array) -> mx.array:
    return -mx.sum(mx.where(likely > 0, likely * logs, 0), axis=-1, keepdims=True)


def _first(candidates: Candidates, least: mx.array) -> mx.array:
    return mx.arange(candidates.values.shape[-1]) < least


class Xtc:
    """Exclude Top Choices, as mlx-lm has it: now and then a row does without its most likely tokens.

    Of the tokens over the threshold the least likely one stays, so something always does.
    """

    def __init__(self, choices: Sequence[SamplingParams], vocabulary: int) -> None:
        self._probability = column([choice.xtc_probability for choice in choices])
        self._threshold = column([choice.xtc_threshold for choice in choices])
        spared = np.zeros((len(choices), vocabulary), dtype=bool)
        for row, choice in enumerate(choices):
            spared[row, [token for token in choice.xtc_spared if token < vocabulary]] = True
        self._spared = mx.array(spared)

    def __call__(self, ids: mx.array, values: mx.array, coin: mx.array) -> mx.array:
        """Say which candidates (rows, width) stay; `coin` (rows, 1) is from 0 to 1."""
        likely = mx.softmax(values, axis=-1)
        least = mx.min(mx.where(likely > self._threshold, likely, mx.inf), axis=-1, keepdims=True)
        spared = mx.take_along_axis(self._spared, ids, axis=-1)
        return (likely <= least) | spared | (coin >= self._probability)


def steps(order: Sequence[str], choices: Sequence[SamplingParams], vocabulary: int) -> dict[str, Step]:
    """Make the steps of the samplers that look at logits alone, with what each row has chosen."""
    least = mx.array([[max(1, choice.min_keep)] for choice in choices])
    ranked = any(choice.min_keep > 1 for choice in choices)
    widest = max((choice.top_k for choice in choices), default=0)
    dynamic = any(choice.dynatemp_range > 0 for choice in choices)
    degrees = column([choice.temperature for choice in choices])
    spread = column([choice.dynatemp_range for choice in choices])
    exponent = column([choice.dynatemp_exponent for choice in choices])
    shares = column([np.log(choice.min_p) if choice.min_p > 0 else -np.inf for choice in choices])
    made: dict[str, Step] = {
        "top_k": partial(
            top_k, mx.array([[choice.top_k] for choice in choices]), widest if widest <= min(FEW, vocabulary) else None
        ),
        "top_p": partial(top_p, column([choice.top_p for choice in choices]), least),
        "min_p": partial(min_p, shares, least, ranked),
        "typ_p": partial(typical, column([choice.typical_p for choice in choices]), least),
        "top_n_sigma": partial(top_n_sigma, column([choice.top_n_sigma for choice in choices])),
        "temperature": partial(temperature, degrees, spread, exponent) if dynamic else partial(heated, degrees),
    }
    return {name: step for name, step in made.items() if name in order}
