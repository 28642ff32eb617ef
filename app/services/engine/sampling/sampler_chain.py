"""A sampler chain in any order, for all rows that have the same one.

Each sampler is a step from candidates to candidates. Source of what they do: llama.cpp's samplers of the same names.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import mlx.core as mx
import numpy as np

from app.services.engine.sampling.params import SamplingParams
from app.services.engine.sampling.penalties import column

MAX_PARTIAL_SORT = 256  # candidates up to which a partial sort pays
_MIN_TEMPERATURE = 1e-6
_RULED_OUT = -1e8  # logits below it are of tokens that are ruled out


@dataclass(frozen=True, slots=True)
class Candidates:
    """Tokens that may be drawn. One that is removed has a logit of minus infinity."""

    logits: mx.array  # (rows, width)
    ids: mx.array | None  # (rows, width); None is every token, in the order of the vocabulary
    count: mx.array  # (rows, 1) how many remain, counting those that top_n_sigma and a grammar rule out
    is_sorted: bool = False  # the likeliest first

    @property
    def tokens(self) -> mx.array:
        """The ids, whatever they are (rows, width)."""
        if self.ids is not None:
            return self.ids
        return mx.broadcast_to(mx.arange(self.logits.shape[-1]), self.logits.shape)

    @property
    def probabilities(self) -> mx.array:
        """Softmax of the logits (rows, width)."""
        return mx.softmax(self.logits, axis=-1)

    def take(self, indices: mx.array, *, is_sorted: bool) -> "Candidates":
        """Give the candidates at these indices (rows, width or fewer) alone."""
        ids = indices if self.ids is None else mx.take_along_axis(self.ids, indices, axis=-1)
        logits = mx.take_along_axis(self.logits, indices, axis=-1)
        return replace(self, logits=logits, ids=ids, is_sorted=is_sorted)

    def sort(self, width: int | None = None) -> "Candidates":
        """Give the likeliest first, or only the `width` likeliest."""
        if width is not None and width < self.logits.shape[-1] and not self.is_sorted:
            likeliest = mx.argpartition(-self.logits, kth=width - 1, axis=-1)[:, :width]
            return self.take(likeliest, is_sorted=False).sort()
        return self if self.is_sorted else self.take(mx.argsort(-self.logits, axis=-1), is_sorted=True)

    def keep(self, mask: mx.array, min_keep: mx.array) -> "Candidates":
        """Remove those for which `mask` (rows, width) is false; it is true for `min_keep` (rows, 1) at least."""
        logits = mx.where(mask, self.logits, -mx.inf)
        count = mx.sum(logits > -mx.inf, axis=-1, keepdims=True)
        return replace(self, logits=logits, count=mx.maximum(count, mx.minimum(min_keep, self.count)))

    def remove(self, mask: mx.array, min_keep: mx.array) -> "Candidates":
        """Remove some (rows, width), but in no row where fewer than `min_keep` (rows, 1) would remain."""
        count = self.count - mx.sum(mask & (self.logits > -mx.inf), axis=-1, keepdims=True)
        too_few = count < min_keep
        logits = mx.where(mask & ~too_few, -mx.inf, self.logits)
        return replace(self, logits=logits, count=mx.where(too_few, self.count, count), is_sorted=False)


Step = Callable[[Candidates], Candidates]


def top_k(k: mx.array, width: int | None, candidates: Candidates) -> Candidates:
    """Keep the `k` likeliest of each row; `width` is the largest k where a partial sort pays."""
    best = candidates.sort(width)
    mask = mx.arange(best.logits.shape[-1]) < k
    return replace(best, logits=mx.where(mask, best.logits, -mx.inf), count=mx.minimum(candidates.count, k))


def top_p(p: mx.array, min_keep: mx.array, candidates: Candidates) -> Candidates:
    """Keep the likeliest whose probabilities reach `p` together, `min_keep` at least."""
    best = candidates.sort()
    probabilities = best.probabilities
    before = mx.cumsum(probabilities, axis=-1) - probabilities
    return best.keep((before < p) | _first(best, min_keep), min_keep)


def min_p(log_p: mx.array, min_keep: mx.array, needs_order: bool, candidates: Candidates) -> Candidates:
    """Keep those whose probability is at least `p` times the highest."""
    best = candidates.sort() if needs_order else candidates
    mask = best.logits >= mx.max(best.logits, axis=-1, keepdims=True) + log_p
    return best.keep(mask | _first(best, min_keep) if needs_order else mask, min_keep)


def typical_p(p: mx.array, min_keep: mx.array, candidates: Candidates) -> Candidates:
    """Keep those whose surprise is the closest to the entropy, until their probabilities exceed `p` together."""
    logprobs = _logprobs(candidates)
    probabilities = mx.exp(logprobs)
    distance = mx.where(logprobs > -mx.inf, mx.abs(-logprobs - _entropy(probabilities, logprobs)), mx.inf)
    order = mx.argsort(distance, axis=-1)
    candidates = candidates.take(order, is_sorted=False)
    probabilities = mx.take_along_axis(probabilities, order, axis=-1)
    before = mx.cumsum(probabilities, axis=-1) - probabilities
    return candidates.keep((before <= p) | _first(candidates, min_keep), min_keep)


def top_n_sigma(n: mx.array, candidates: Candidates) -> Candidates:
    """Rule out those whose logit is more than `n` standard deviations below the highest."""
    logits = candidates.logits
    is_possible = logits > _RULED_OUT
    count = mx.maximum(mx.sum(is_possible, axis=-1, keepdims=True), 1)
    mean = mx.sum(mx.where(is_possible, logits, 0), axis=-1, keepdims=True) / count
    variance = mx.sum(mx.where(is_possible, mx.square(logits - mean), 0), axis=-1, keepdims=True) / count
    floor = mx.max(logits, axis=-1, keepdims=True) - n * mx.sqrt(variance)
    return replace(candidates, logits=mx.where(logits < floor, -mx.inf, logits))


def dynamic_temperature(base: mx.array, spread: mx.array, exponent: mx.array, candidates: Candidates) -> Candidates:
    """Divide by a temperature from `base` - `spread` to `base` + `spread`, by the entropy; 0 keeps the likeliest."""
    logprobs = _logprobs(candidates)
    max_entropy = mx.log(candidates.count.astype(mx.float32))
    share = mx.maximum(_entropy(mx.exp(logprobs), logprobs), 0) / mx.maximum(max_entropy, _MIN_TEMPERATURE)
    lowest = mx.maximum(base - spread, 0)
    dynamic = lowest + (base + spread - lowest) * mx.power(share, exponent)
    return temperature(mx.where(spread > 0, dynamic, base), candidates)


def temperature(degrees: mx.array, candidates: Candidates) -> Candidates:
    """Divide by a temperature (rows, 1); 0 keeps the likeliest."""
    logits = candidates.logits
    is_best = mx.arange(logits.shape[-1]) == mx.argmax(logits, axis=-1, keepdims=True)
    greedy = mx.where(is_best, logits, -mx.inf)
    logits = mx.where(degrees < _MIN_TEMPERATURE, greedy, logits / mx.maximum(degrees, _MIN_TEMPERATURE))
    return replace(candidates, logits=logits)


def _logprobs(candidates: Candidates) -> mx.array:
    return candidates.logits - mx.logsumexp(candidates.logits, axis=-1, keepdims=True)


def _entropy(probabilities: mx.array, logprobs: mx.array) -> mx.array:
    return -mx.sum(mx.where(probabilities > 0, probabilities * logprobs, 0), axis=-1, keepdims=True)


def _first(candidates: Candidates, count: mx.array) -> mx.array:
    return mx.arange(candidates.logits.shape[-1]) < count


class Xtc:
    """Exclude Top Choices, as mlx-lm has it: with a probability, removes the likeliest tokens of a row.

    Of the tokens over the threshold the least likely one stays, so something always remains.
    """

    def __init__(self, params: Sequence[SamplingParams], vocabulary: int) -> None:
        self._probability = column([row.xtc_probability for row in params])
        self._threshold = column([row.xtc_threshold for row in params])
        is_protected = np.zeros((len(params), vocabulary), dtype=bool)
        for index, row in enumerate(params):
            is_protected[index, [token for token in row.xtc_protected if token < vocabulary]] = True
        self._is_protected = mx.array(is_protected)

    def __call__(self, ids: mx.array, logits: mx.array, uniform: mx.array) -> mx.array:
        """Say which candidates (rows, width) stay; `uniform` (rows, 1) is a random number from 0 to 1."""
        probabilities = mx.softmax(logits, axis=-1)
        lowest = mx.min(mx.where(probabilities > self._threshold, probabilities, mx.inf), axis=-1, keepdims=True)
        is_protected = mx.take_along_axis(self._is_protected, ids, axis=-1)
        return (probabilities <= lowest) | is_protected | (uniform >= self._probability)


def make_steps(names: Sequence[str], params: Sequence[SamplingParams], vocabulary: int) -> dict[str, Step]:
    """Make the steps of those samplers that look at logits alone, with the parameters of each row."""
    min_keep = mx.array([[max(1, row.min_keep)] for row in params])
    needs_order = any(row.min_keep > 1 for row in params)
    largest_k = max((row.top_k for row in params), default=0)
    width = largest_k if largest_k <= min(MAX_PARTIAL_SORT, vocabulary) else None
    is_dynamic = any(row.dynatemp_range > 0 for row in params)
    degrees = column([row.temperature for row in params])
    spread = column([row.dynatemp_range for row in params])
    exponent = column([row.dynatemp_exponent for row in params])
    log_min_p = column([np.log(row.min_p) if row.min_p > 0 else -np.inf for row in params])
    steps: dict[str, Step] = {
        "top_k": partial(top_k, mx.array([[row.top_k] for row in params]), width),
        "top_p": partial(top_p, column([row.top_p for row in params]), min_keep),
        "min_p": partial(min_p, log_min_p, min_keep, needs_order),
        "typ_p": partial(typical_p, column([row.typical_p for row in params]), min_keep),
        "top_n_sigma": partial(top_n_sigma, column([row.top_n_sigma for row in params])),
        "temperature": (
            partial(dynamic_temperature, degrees, spread, exponent) if is_dynamic else partial(temperature, degrees)
        ),
    }
    return {name: step for name, step in steps.items() if name in names}
