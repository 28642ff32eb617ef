"""Whether a model's rows may be computed together: a few are, when it is loaded, and compared with each by itself.

Some of mlx-lm's models take the padding of shorter prompts into their state, cut blocks where padding shifts them, or
cannot be called with several rows at all. Only their answers would tell, which then depend on who else asks.
"""

from collections.abc import Callable, Sequence
from typing import cast

import mlx.core as mx

from app.services.engine.cache.batch_cache import BatchCache
from app.services.engine.cache.layers import Layers, leaves, merge
from app.services.engine.cache.long_past import keyed
from app.services.engine.model.language_model import LanguageModel
from app.services.engine.model.loading import weights
from app.services.engine.model.memory_budget import out_of_memory
from app.services.engine.model.prefill import forward, forward_padded
from app.services.facts import Batching

_EXACT, _ROUNDED = 0.002, 0.03  # difference of logits that is always rounding: in float32, and in less
_NOISE = 5  # times as far as a row that is not padded, others may be off as well
LARGEST_DIFFERENCE = 0.15  # difference that is never rounding; a wrong token of 16 bits makes about as much
_LONG = 6000  # tokens of the longer row with a long past: sliding windows and blocks have moved by then
_LEFT = 8  # tokens of the context that such a row leaves


def check_batching(model: LanguageModel, vocabulary: int, context_length: int, free_bytes: int) -> Batching:
    """Compute rows together and by themselves, and say what must not be done. On the engine thread."""
    check = _Check(model, vocabulary)
    if decoding := check.run(check.decode) or check.run(lambda: check.decode_long(context_length, free_bytes)):
        return Batching(decoding, decoding)
    return Batching(prefill=check.run(check.prefill))


class _Probe:
    """A row: tokens that are computed first, tokens fed after them, and the logits it has while it is alone."""

    def __init__(self, model: LanguageModel, layers: Layers, tokens: list[int], fed: list[int]) -> None:
        self.tokens = tokens
        self.fed = fed
        self._layers = layers
        self.logits = model.step(self.layers(), mx.array([fed]))[0]  # (fed, vocabulary)

    def layers(self) -> Layers:
        """Copy the layers of the tokens; no array is copied here."""
        return self._layers.copy()


class _Check:
    """Rows of different length. The longest has no padding, so what it is off when it is not alone is rounding."""

    def __init__(self, model: LanguageModel, vocabulary: int) -> None:
        self._model = model
        self._weights = list(weights(model.network).values())
        exact = all(array.dtype == mx.float32 for array in self._weights if mx.issubdtype(array.dtype, mx.inexact))
        quantized = any(array.dtype == mx.uint32 for array in self._weights)
        self._rounding = _EXACT if exact and not quantized else _ROUNDED
        tokens = [(7919 * index + 101) % vocabulary for index in range(22)]
        self._long = self._probe(tokens[:7], tokens[7:10])
        self._short = self._probe(tokens[10:15], tokens[15:18])
        self._late = self._probe(tokens[18:20], tokens[20:22])
        self._padding = tokens[:7]  # tokens that shorter rows are padded with
        self._differences: list[mx.array] = []
        self._noise: list[mx.array] = []  # differences of the longest row, while nothing is padded on the right

    def run(self, computation: Callable[[], None]) -> str | None:
        """Say what is wrong with a way to compute rows together, None if nothing is."""
        self._differences = []
        try:
            computation()
            difference, noise = (largest(values) for values in (self._differences, self._noise))
        except Exception as error:  # mlx-lm's models were not written for it
            if out_of_memory(error):
                raise
            return f"mlx-lm raises {type(error).__name__}: {str(error)[:100]}"
        tolerance = min(max(self._rounding, _NOISE * noise), LARGEST_DIFFERENCE)
        return None if difference <= tolerance else f"the logits differ by {difference:.1%}"  # not >: it may be NaN

    def decode(self) -> None:
        """Decode a row with another; a third joins, and the second leaves."""
        cache = BatchCache()
        cache.join([self._long.layers()])
        cache.join([self._short.layers()])
        self._step(cache.layers, [(self._long, 0), (self._short, 0)])
        self._noise = self._differences[:1]
        cache.join([self._late.layers()])
        self._step(cache.layers, [(self._long, 1), (self._short, 1), (self._late, 0)])
        left = cache.extract(1)
        cache.keep([0, 2])
        self._step(cache.layers, [(self._long, 2), (self._late, 1)])
        self._step(left, [(self._short, 2)])

    def decode_long(self, context_length: int, free_bytes: int) -> None:
        """Decode two rows with a long past, which is made up: to compute it would take long."""
        each = _token_bytes(self._long.layers())
        budget = min(free_bytes // 8, sum(array.nbytes for array in self._weights) // 8)  # bytes of a row
        longest = min(_LONG, context_length - _LEFT, budget // each if each else 0)
        if longest < len(self._long.tokens):
            return
        rows = [self._lengthened(self._long, longest), self._lengthened(self._short, longest * 3 // 4)]
        self._step(merge([row.layers() for row in rows]), [(row, 0) for row in rows])

    def prefill(self) -> None:
        """Compute two prompts in one call, and their rests in another, then decode them."""
        rows = (self._long, self._short)
        layers = merge([self._model.new_layers() for _ in rows])
        begin = [0, 0]
        for lengths in ((6, 2), (1, 3)):
            width = max(lengths)
            padding = [width - length for length in lengths]
            ends = [start + length for start, length in zip(begin, lengths, strict=True)]
            tokens = [
                row.tokens[start:end] + self._padding[:pad]
                for row, start, end, pad in zip(rows, begin, ends, padding, strict=True)
            ]
            forward_padded(self._model, layers, tokens, padding)
            begin = ends
        for index in range(2):
            self._step(layers, [(row, index) for row in rows])

    def _probe(self, tokens: list[int], fed: list[int]) -> _Probe:
        layers = self._model.new_layers()
        forward(self._model, layers, tokens)
        return _Probe(self._model, layers, tokens, fed)

    def _lengthened(self, row: _Probe, length: int) -> _Probe:
        """Give a row with a long past, and the first of its tokens."""
        layers = row.layers()
        layers.lengthen(length)
        return _Probe(self._model, layers, row.tokens, row.fed[:1])

    def _step(self, layers: Layers, rows: Sequence[tuple[_Probe, int]]) -> None:
        """Feed rows their tokens of these indices, and note how far their logits are off."""
        logits = self._model.step(layers, mx.array([[row.fed[index]] for row, index in rows]))[:, -1]
        expected = [row.logits[index] for row, index in rows]
        self._differences += [logit_difference(*pair) for pair in zip(logits, expected, strict=True)]
        mx.async_eval(self._differences[-len(rows) :], [cache.state for cache in layers.caches])


def largest(values: list[mx.array]) -> float:
    """Compute the largest of some numbers, 0 without any."""
    return cast("float", mx.max(mx.stack(values)).item()) if values else 0.0


def logit_difference(logits: mx.array, expected: mx.array) -> mx.array:
    """Give how far logits (vocabulary,) are from others, as a share of their spread. NaN is as far as can be."""
    logits, expected = logits.astype(mx.float32), expected.astype(mx.float32)
    used = mx.isfinite(expected)  # some models give tokens that do not exist minus infinity
    off = mx.where(used, logits - expected, 0.0)
    spread = mx.where(used, expected - mx.mean(mx.where(used, expected, 0.0)), 0.0)
    return mx.linalg.norm(off) / mx.linalg.norm(spread)


def _token_bytes(layers: Layers) -> int:
    """Bytes of a token in layers that hold keys of each."""
    return sum(leaf.nbytes // leaf.keys.shape[2] for leaf in keyed(leaves(layers.caches)))
