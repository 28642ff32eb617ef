"""The head of an encoder that ranks documents: from hidden states to a number."""

from dataclasses import dataclass

import mlx.core as mx
from mlx.nn.layers.base import Module
from mlx.nn.layers.linear import Linear
from mlx.nn.layers.normalization import LayerNorm

from app.services.engine.encoders.layers import ACTIVATIONS


@dataclass(frozen=True, slots=True)
class HeadConfig:
    """How it is built."""

    size: int
    activation: str
    epsilon: float | None  # of a normalization after the dense layer; None is none
    norm_bias: bool
    dense_bias: bool
    is_mean: bool  # of all tokens; else the first token alone


class Head(Module):
    """A dense layer over the first token, or the mean of all, and a number of that."""

    def __init__(self, config: HeadConfig) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.dense = Linear(config.size, config.size, bias=config.dense_bias)
        if config.epsilon is not None:
            self.norm = LayerNorm(config.size, config.epsilon, bias=config.norm_bias)
        self.out = Linear(config.size, 1)
        self._activation = ACTIVATIONS[config.activation]
        self._is_mean = config.is_mean

    def __call__(self, hidden: mx.array, is_text: mx.array) -> mx.array:
        """Give a number (rows, 1) for hidden states (rows, length, size); it has no bounds."""
        pooled = hidden[:, 0]
        if self._is_mean:
            weights = is_text.astype(hidden.dtype)[:, :, None]
            pooled = (hidden * weights).sum(axis=1) / weights.sum(axis=1)
        pooled = self._activation(self.dense(pooled))
        return self.out(self.norm(pooled) if "norm" in self else pooled)
