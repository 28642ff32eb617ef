"""Prefill: computes the KV cache of tokens, without their logits."""

from typing import Any

import mlx.core as mx

from app.services.engine.cache.layers import Layers
from app.services.engine.model.blas import threads
from app.services.engine.model.language_model import LanguageModel

SHORT = 64  # tokens; up to here prompts are computed together, longer ones use the machine fully by themselves


def forward(model: LanguageModel, layers: Layers, tokens: list[int]) -> None:
    """Compute tokens of one row into its cache."""
    with threads.all():
        model(mx.array([tokens]), cache=layers)
        mx.eval([layer.state for layer in layers])
    if len(tokens) > SHORT:
        mx.clear_cache()  # the buffers of a long chunk fit nothing that follows


def forward_with_logits(model: LanguageModel, layers: Layers, tokens: list[Any]) -> mx.array:
    """Compute tokens (rows, length) into their cache, and give their logits (rows, length, vocabulary)."""
    with threads.all():
        logits = model(mx.array(tokens), cache=layers)
        mx.eval(logits, [layer.state for layer in layers])
    return logits


def forward_padded(
    model: LanguageModel, layers: Layers, tokens: list[list[int]], lengths: list[int], padding: list[int]
) -> None:
    """Compute tokens of several rows into their batch cache: (rows, length), each row padded on the right."""
    with threads.all():
        if any(padding):
            for layer in layers:
                layer.prepare(lengths=lengths, right_padding=padding)
        model(mx.array(tokens), cache=layers)
        if any(padding):
            for layer in layers:
                layer.finalize()
        mx.eval([layer.state for layer in layers])
