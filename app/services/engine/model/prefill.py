"""Prefill: computes the KV cache of tokens, on all cores."""

from typing import Any

import mlx.core as mx

from app.services.engine.cache.layers import Layers
from app.services.engine.model.blas import threads
from app.services.engine.model.language_model import LanguageModel

SHORT = 64  # tokens; up to here prompts are computed together, longer ones use the machine fully by themselves


def forward(model: LanguageModel, layers: Layers, tokens: list[int], **inputs: Any) -> None:
    """Compute tokens of one row into its cache, without their logits. `inputs` are what else the model takes."""
    with threads.all():
        model.fill(layers, [tokens], **inputs)
    if len(tokens) > SHORT:
        mx.clear_cache()  # the buffers of a long chunk fit nothing that follows


def forward_with_logits(model: LanguageModel, layers: Layers, tokens: list[Any]) -> mx.array:
    """Compute tokens (rows, length) into their cache, and give their logits (rows, length, vocabulary)."""
    with threads.all():
        logits = model.step(layers, mx.array(tokens))
        mx.eval(logits)
        layers.evaluate()
    return logits


def forward_padded(model: LanguageModel, layers: Layers, tokens: list[list[int]], padding: list[int]) -> None:
    """Compute tokens of several rows into their batch cache: (rows, length), each row padded on the right."""
    with threads.all():
        model.fill(layers, tokens, padding)
