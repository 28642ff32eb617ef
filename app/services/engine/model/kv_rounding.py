"""Whether a model can read a KV cache whose older tokens are rounded: it is tried when the model is loaded."""

import mlx.core as mx

from app.services.engine.cache.footprint import why_not_rounded
from app.services.engine.cache.layers import Layers, merge
from app.services.engine.cache.mixed_cache import BLOCK
from app.services.engine.model.batching import LARGEST_DIFFERENCE, largest, logit_difference
from app.services.engine.model.language_model import LanguageModel
from app.services.engine.model.memory_budget import out_of_memory
from app.services.facts import KVBits


def check_kv_bits(model: LanguageModel, vocabulary: int, kv_bits: KVBits, *, together: bool = True) -> str | None:
    """Say why a model's older tokens cannot be rounded, None if they can. On the engine thread.

    A row that is computed in one go, across the end of a block, is compared with one that is computed in steps, the
    last of them in a batch. `together` says whether rows can be computed together at all.
    """
    if reason := why_not_rounded(model.network):
        return reason
    tokens = [(7919 * index + 101) % vocabulary for index in range(BLOCK + 2)]
    try:
        whole = _feed(model, model.new_layers(kv_bits), tokens)
        parts = model.new_layers(kv_bits)
        block = _feed(model, parts, tokens[:BLOCK])
        others = [block[0], block[-1], _feed(model, parts, tokens[-2:-1])[-1]]
        if together:
            parts = merge([parts, parts])
        others.append(_feed(model, parts, tokens[-1:], rows=2 if together else 1)[-1])
        expected = [whole[index] for index in (0, -3, -2, -1)]
        off = largest([logit_difference(*pair) for pair in zip(others, expected, strict=True)])
    except Exception as error:  # mlx-lm's models were not written for it
        if out_of_memory(error):
            raise
        return f"mlx-lm raises {type(error).__name__}: {str(error)[:100]}"
    return None if off <= LARGEST_DIFFERENCE else f"the logits differ by {off:.1%}"  # not >: it may be NaN


def _feed(model: LanguageModel, layers: Layers, tokens: list[int], rows: int = 1) -> mx.array:
    """Feed rows the same tokens. Returns the logits (tokens, vocabulary) of the last one."""
    logits = model.step(layers, mx.array([tokens] * rows))[-1]
    mx.eval(logits)
    layers.evaluate()
    return logits
