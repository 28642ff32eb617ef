"""Mistral 3 and Pixtral: a transformer over the patches of an image of any size, whose rows end with a token each."""

import math
from collections.abc import Generator, Mapping
from typing import Any

import mlx.core as mx
import numpy as np
from mlx.nn.layers.activations import gelu, gelu_approx, silu
from mlx.nn.layers.base import Module
from mlx.nn.layers.convolution import Conv2d
from mlx.nn.layers.linear import Linear
from mlx.nn.layers.normalization import RMSNorm

from app.services.engine.vision.family import Config, Family, Inputs, Layout
from app.services.engine.vision.mlp import Activation, GatedMLP
from app.services.engine.vision.positions import turn

_EPSILON = 1e-5
_BREAK, _END = "[IMG_BREAK]", "[IMG_END]"  # what ends a row, and the last one
_ACTIVATIONS: Mapping[str, Activation] = {"gelu": gelu, "gelu_pytorch_tanh": gelu_approx, "silu": silu}


class _Attention(Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.heads = heads
        self.q_proj = Linear(width, width, bias=False)
        self.k_proj = Linear(width, width, bias=False)
        self.v_proj = Linear(width, width, bias=False)
        self.o_proj = Linear(width, width, bias=False)

    def __call__(self, x: mx.array, angles: tuple[mx.array, mx.array]) -> mx.array:
        """Let every patch (patches, width) see all others."""
        queries, keys, values = (
            each.reshape(len(x), self.heads, -1).transpose(1, 0, 2)[None]
            for each in (self.q_proj(x), self.k_proj(x), self.v_proj(x))
        )
        scale = queries.shape[-1] ** -0.5
        out = mx.fast.scaled_dot_product_attention(turn(queries, angles), turn(keys, angles), values, scale=scale)[0]
        y: mx.array = self.o_proj(out.transpose(1, 0, 2).reshape(x.shape))
        return y


class _Layer(Module):
    def __init__(self, vision: Config) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        width = vision["hidden_size"]
        self.attention_norm = RMSNorm(width, eps=_EPSILON)
        self.attention = _Attention(width, vision["num_attention_heads"])
        self.ffn_norm = RMSNorm(width, eps=_EPSILON)
        activation = _ACTIVATIONS[vision.get("hidden_act", "gelu")]
        self.feed_forward = GatedMLP(width, vision["intermediate_size"], activation, bias=False)

    def __call__(self, x: mx.array, angles: tuple[mx.array, mx.array]) -> mx.array:
        x = x + self.attention(self.attention_norm(x), angles)
        y: mx.array = x + self.feed_forward(self.ffn_norm(x))
        return y


class _Transformer(Module):
    def __init__(self, vision: Config) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.layers = [_Layer(vision) for _ in range(vision["num_hidden_layers"])]


class _VisionTower(Module):
    def __init__(self, vision: Config) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        width, patch = vision["hidden_size"], vision["patch_size"]
        self.patch_conv = Conv2d(3, width, patch, stride=patch, bias=False)
        self.ln_pre = RMSNorm(width, eps=_EPSILON)
        self.transformer = _Transformer(vision)


class _PatchMerger(Module):
    def __init__(self, width: int, merge: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.merging_layer = Linear(width * merge**2, width, bias=False)
        self.merge = merge

    def __call__(self, patches: mx.array) -> mx.array:
        """Make tokens (tokens, width) of the squares of patches (rows, columns, width), a channel after the other."""
        rows, columns, width = patches.shape
        squares = patches.reshape(rows // self.merge, self.merge, columns // self.merge, self.merge, width)
        y: mx.array = self.merging_layer(squares.transpose(0, 2, 4, 1, 3).reshape(-1, width * self.merge**2))
        return y


class _Projector(Module):
    """Makes tokens of patches, of several if the model merges them."""

    def __init__(self, config: Config) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        width, text = config["vision_config"]["hidden_size"], config["text_config"]
        bias = bool(config.get("multimodal_projector_bias", not _merges(config)))
        self.merges = _merges(config)
        if self.merges:
            self.norm = RMSNorm(width, eps=text.get("rms_norm_eps", _EPSILON))
            self.patch_merger = _PatchMerger(width, _merge(config))
        self.linear_1 = Linear(width, text["hidden_size"], bias=bias)
        self.linear_2 = Linear(text["hidden_size"], text["hidden_size"], bias=bias)
        self.activation = _ACTIVATIONS[config.get("projector_hidden_act", "gelu")]

    def __call__(self, patches: mx.array) -> mx.array:
        """Make tokens (tokens, hidden size) of patches (rows, columns, width)."""
        tokens = self.patch_merger(self.norm(patches)) if self.merges else patches.reshape(-1, patches.shape[-1])
        y: mx.array = self.linear_2(self.activation(self.linear_1(tokens)))
        return y


class PixtralTower(Module):
    """The tower and what follows it, whose layers have the names of the checkpoints."""

    def __init__(self, config: Config) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        vision = config["vision_config"]
        self.vision_tower = _VisionTower(vision)
        self.multi_modal_projector = _Projector(config)
        self.head_size = vision["hidden_size"] // vision["num_attention_heads"]
        rope = vision.get("rope_parameters") or {}
        self.base = float(vision.get("rope_theta") or rope.get("rope_theta") or 10_000.0)

    def __call__(self, inputs: Inputs) -> Generator[mx.array, None, mx.array]:
        """Compute the embeddings (tokens, hidden size) of an image, row by row, a layer each step."""
        tower = self.vision_tower
        pixels = mx.array(inputs["pixel_values"].transpose(0, 2, 3, 1)).astype(tower.ln_pre.weight.dtype)
        patches = tower.patch_conv(pixels)[0]
        rows, columns, width = patches.shape
        angles = self._angles(rows, columns)
        x = tower.ln_pre(patches.reshape(-1, width))
        for layer in tower.transformer.layers:
            yield (x := layer(x, angles))
        return self.multi_modal_projector(x.reshape(rows, columns, width))

    def _angles(self, rows: int, columns: int) -> tuple[mx.array, mx.array]:
        """Give cosine and sine (patches, size): every other frequency turns by rows, the rest by columns."""
        frequencies = self.base ** (-np.arange(0, self.head_size, 2, dtype=np.float32) / self.head_size)
        row, column = np.mgrid[:rows, :columns].reshape(2, -1, 1).astype(np.float32)
        angles = np.tile(np.concatenate([row * frequencies[::2], column * frequencies[1::2]], axis=-1), 2)
        return mx.array(np.cos(angles)), mx.array(np.sin(angles))


def _merges(config: Config) -> bool:
    return bool(config["model_type"] == "mistral3")


def _merge(config: Config) -> int:
    """Say how many patches a token has a side."""
    return int(config.get("spatial_merge_size") or 2) if _merges(config) else 1


def _placeholder(config: Config) -> int:
    return int(config.get("image_token_index") or config.get("image_token_id") or 10)


def settings(config: Config, files: Mapping[str, Any]) -> dict[str, Any]:
    """Have sides of images be whole tokens, as the processor of prompts does."""
    return {**files, "patch_size": config["vision_config"]["patch_size"] * _merge(config)}


def layout(config: Config, processor: Any, width: int, height: int) -> Layout:
    """Give the tokens of each row of an image, with what ends it."""
    size = processor.size
    most = size["longest_edge"] or max(size["height"], size["width"])
    ratio = max(height / most, width / most)
    if ratio > 1:
        height, width = math.floor(height / ratio), math.floor(width / ratio)
    side = config["vision_config"]["patch_size"] * _merge(config)
    rows, columns = int((height - 1) // side + 1), int((width - 1) // side + 1)
    return [*(columns, _BREAK) * (rows - 1), columns, _END]


PIXTRAL = Family(  # and Mistral 3
    processor=("transformers.models.pixtral.image_processing_pil_pixtral", "PixtralImageProcessorPil"),
    settings=settings,
    before="",
    after="",
    placeholder=_placeholder,
    tower=PixtralTower,
    rename=lambda name: name.replace("vision_tower.vision_model.", "vision_tower."),  # MLX's conversions have it so
    layout=layout,
)
