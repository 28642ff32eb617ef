"""What the layers of towers have behind their attention; the parts have the names of the checkpoints."""

from collections.abc import Callable

import mlx.core as mx
from mlx.nn.layers.base import Module
from mlx.nn.layers.linear import Linear

Activation = Callable[[mx.array], mx.array]


class MLP(Module):
    """Two linear layers with an activation between them."""

    def __init__(self, width: int, inner: int, activation: Activation) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.fc1 = Linear(width, inner)
        self.fc2 = Linear(inner, width)
        self.activation = activation

    def __call__(self, x: mx.array) -> mx.array:
        """Compute patches (…, width), each by itself."""
        y: mx.array = self.fc2(self.activation(self.fc1(x)))
        return y


class GatedMLP(Module):
    """A linear layer, multiplied with another that goes through an activation, and a third."""

    def __init__(self, width: int, inner: int, activation: Activation, *, bias: bool) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.gate_proj = Linear(width, inner, bias=bias)
        self.up_proj = Linear(width, inner, bias=bias)
        self.down_proj = Linear(inner, width, bias=bias)
        self.activation = activation

    def __call__(self, x: mx.array) -> mx.array:
        """Compute patches (…, width), each by itself."""
        y: mx.array = self.down_proj(self.activation(self.gate_proj(x)) * self.up_proj(x))
        return y
