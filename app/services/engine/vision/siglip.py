"""SigLIP, the tower of Gemma 3, SmolVLM and LFM2-VL: a transformer over the patches of an image."""

from collections.abc import Callable, Generator, Mapping
from typing import Any

import mlx.core as mx
import numpy as np
import numpy.typing as npt
from mlx.nn.layers.activations import gelu_approx
from mlx.nn.layers.base import Module
from mlx.nn.layers.convolution import Conv2d
from mlx.nn.layers.embedding import Embedding
from mlx.nn.layers.linear import Linear
from mlx.nn.layers.normalization import LayerNorm

from app.services.engine.vision.mlp import MLP

# Gives the entries of the table of positions (rows * columns,) for the patches of an image, by its rows and columns.
Places = Callable[[int, int], npt.NDArray[np.int64]]


class _Attention(Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.heads = heads
        self.q_proj = Linear(width, width)
        self.k_proj = Linear(width, width)
        self.v_proj = Linear(width, width)
        self.out_proj = Linear(width, width)

    def __call__(self, x: mx.array) -> mx.array:
        """Let every patch (images, patches, width) see all others."""
        split = [
            each.reshape(*x.shape[:2], self.heads, -1).transpose(0, 2, 1, 3)
            for each in (self.q_proj(x), self.k_proj(x), self.v_proj(x))
        ]
        scale = split[0].shape[-1] ** -0.5
        out = mx.fast.scaled_dot_product_attention(*split, scale=scale)
        y: mx.array = self.out_proj(out.transpose(0, 2, 1, 3).reshape(x.shape))
        return y


class _Layer(Module):
    def __init__(self, width: int, heads: int, inner: int, epsilon: float) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.layer_norm1 = LayerNorm(width, eps=epsilon)
        self.self_attn = _Attention(width, heads)
        self.layer_norm2 = LayerNorm(width, eps=epsilon)
        self.mlp = MLP(width, inner, gelu_approx)

    def __call__(self, x: mx.array) -> mx.array:
        x = x + self.self_attn(self.layer_norm1(x))
        return x + self.mlp(self.layer_norm2(x))


class Encoder(Module):
    """The layers, which have the names of the checkpoints."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        width, epsilon = config["hidden_size"], config.get("layer_norm_eps", 1e-6)
        self.layers = [
            _Layer(width, config["num_attention_heads"], config["intermediate_size"], epsilon)
            for _ in range(config["num_hidden_layers"])
        ]

    def __call__(self, x: mx.array) -> Generator[mx.array, None, mx.array]:
        """Compute patches (images, patches, width), a layer each step."""
        for layer in self.layers:
            yield (x := layer(x))
        return x


class _Embeddings(Module):
    def __init__(self, width: int, patch: int, patches: int, places: Places) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.patch_embedding = Conv2d(3, width, patch, stride=patch)
        self.position_embedding = Embedding(patches, width)
        self.places = places

    def __call__(self, pixels: mx.array) -> mx.array:
        """Make patches (images, patches, width) of images (images, height, width, 3)."""
        x = self.patch_embedding(pixels)
        images, rows, columns, width = x.shape
        y: mx.array = x.reshape(images, -1, width) + self.position_embedding(mx.array(self.places(rows, columns)))
        return y


def in_order(rows: int, columns: int) -> npt.NDArray[np.int64]:
    """Give each patch the entry of its index: the table is as large as an image."""
    return np.arange(rows * columns)


class Siglip(Module):
    """The tower, whose layers have the names of the checkpoints."""

    def __init__(self, config: Mapping[str, Any], places: Places = in_order) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        width = config["hidden_size"]
        patches = (config["image_size"] // config["patch_size"]) ** 2
        self.embeddings = _Embeddings(width, config["patch_size"], patches, places)
        self.encoder = Encoder(config)
        self.post_layernorm = LayerNorm(width, eps=config.get("layer_norm_eps", 1e-6))

    def __call__(self, pixels: mx.array) -> Generator[mx.array, None, mx.array]:
        """Compute the patches (images, patches, width) of images (images, height, width, 3), a layer each step."""
        x = self.embeddings(pixels.astype(self.post_layernorm.weight.dtype))
        x = yield from self.encoder(x)
        return self.post_layernorm(x)  # type: ignore[no-any-return]


def squares(patches: mx.array, side: int) -> mx.array:
    """Give the numbers of each square of patches (rows, columns, width) in line: (squares, side * side * width)."""
    rows, columns, width = patches.shape
    grid = patches.reshape(rows // side, side, columns // side, side, width)
    return grid.transpose(0, 2, 1, 3, 4).reshape(-1, side * side * width)
