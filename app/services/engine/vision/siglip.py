"""SigLIP, the tower of Gemma 3: a transformer over the patches of a square image."""

from collections.abc import Generator, Mapping
from typing import Any

import mlx.core as mx
from mlx.nn.layers.activations import gelu_approx
from mlx.nn.layers.base import Module
from mlx.nn.layers.convolution import Conv2d
from mlx.nn.layers.embedding import Embedding
from mlx.nn.layers.linear import Linear
from mlx.nn.layers.normalization import LayerNorm

from app.services.engine.vision.mlp import MLP


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


class _Embeddings(Module):
    def __init__(self, width: int, patch: int, patches: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.patch_embedding = Conv2d(3, width, patch, stride=patch)
        self.position_embedding = Embedding(patches, width)

    def __call__(self, pixels: mx.array) -> mx.array:
        """Make patches (images, patches, width) of images (images, height, width, 3)."""
        x = self.patch_embedding(pixels)
        y: mx.array = x.reshape(x.shape[0], -1, x.shape[-1]) + self.position_embedding.weight
        return y


class _Encoder(Module):
    def __init__(self, layers: list[_Layer]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.layers = layers


class Siglip(Module):
    """The tower, whose layers have the names of the checkpoints."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        width, epsilon = config["hidden_size"], config.get("layer_norm_eps", 1e-6)
        self.side = config["image_size"] // config["patch_size"]  # patches
        self.embeddings = _Embeddings(width, config["patch_size"], self.side**2)
        self.encoder = _Encoder(
            [
                _Layer(width, config["num_attention_heads"], config["intermediate_size"], epsilon)
                for _ in range(config["num_hidden_layers"])
            ]
        )
        self.post_layernorm = LayerNorm(width, eps=epsilon)

    def __call__(self, pixels: mx.array) -> Generator[mx.array, None, mx.array]:
        """Compute the patches (images, patches, width) of images (images, height, width, 3), a layer each step."""
        x: mx.array = self.embeddings(pixels.astype(self.post_layernorm.weight.dtype))
        for layer in self.encoder.layers:
            yield (x := layer(x))
        return self.post_layernorm(x)  # type: ignore[no-any-return]
