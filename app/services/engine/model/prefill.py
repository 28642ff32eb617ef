"""Tokens that are put into caches, without asking what follows them."""

from typing import Any

import mlx.core as mx

from app.services.engine.cache.layers import Layers
from app.services.engine.model.blas import threads

SHORT = 64  # tokens up to which prompts are computed together: more fill the machine by themselves


def forward(model: Any, layers: Layers, tokens: list[int]) -> None:
    """Put tokens of one row into its cache."""
    with threads.all():
        model(mx.array([tokens]), cache=layers)
        mx.eval([layer.state for layer in layers])
    if len(tokens) > SHORT:
        mx.clear_cache()  # the buffers of a long slice fit nothing that follows


def forward_padded(model: Any, layers: Layers, tokens: list[list[int]], lengths: list[int], padding: list[int]) -> None:
    """Put tokens of several rows, padded on the right to one length, into their batch cache."""
    with threads.all():
        if any(padding):
            for layer in layers:
                layer.prepare(lengths=lengths, right_padding=padding)
        model(mx.array(tokens), cache=layers)
        if any(padding):
            for layer in layers:
                layer.finalize()
        mx.eval([layer.state for layer in layers])
