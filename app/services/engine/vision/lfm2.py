"""LFM2-VL: SigLIP 2 over an image of nearly any shape, or over tiles of a large one and the whole of it, made small."""

import math
from collections.abc import Generator
from typing import Any

import mlx.core as mx
import numpy as np
from mlx.nn.layers.activations import gelu, gelu_approx
from mlx.nn.layers.base import Module
from mlx.nn.layers.embedding import Embedding
from mlx.nn.layers.linear import Linear
from mlx.nn.layers.normalization import LayerNorm

from app.services.engine.vision.family import Config, Family, Inputs, Layout
from app.services.engine.vision.lfm2_images import LFM2Images
from app.services.engine.vision.siglip import Encoder, squares

_ACTIVATIONS = {"gelu": gelu, "gelu_pytorch_tanh": gelu_approx}


class _Embeddings(Module):
    def __init__(self, vision: Config) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        width = vision["hidden_size"]
        self.patch_embedding = Linear(3 * vision["patch_size"] ** 2, width)
        self.position_embedding = Embedding(vision.get("num_patches", 256), width)
        self.side = math.isqrt(vision.get("num_patches", 256))  # of the table of positions

    def __call__(self, patches: mx.array, rows: int, columns: int) -> mx.array:
        """Make vectors (patches, width) of patches (patches, numbers of a patch), with the table resized to them."""
        table = self.position_embedding(mx.arange(self.side**2)).astype(mx.float32)
        down, across = mx.array(_triangles(self.side, rows)), mx.array(_triangles(self.side, columns))
        places = across @ (down @ table.reshape(self.side, -1)).reshape(rows, self.side, -1)
        x = self.patch_embedding(patches)
        y: mx.array = x + places.reshape(rows * columns, -1).astype(x.dtype)
        return y


def _triangles(length: int, target: int) -> Any:
    """Give the weights (target, length) by which a row is resized: bilinear, and of all of it where it shrinks."""
    scale = length / target
    reach = max(scale, 1.0)
    middles = scale * (np.arange(target)[:, None] + 0.5)
    weights = np.maximum(1 - np.abs(np.arange(length) + 0.5 - middles) / reach, 0)
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


class _VisionTower(Module):
    def __init__(self, vision: Config) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.embeddings = _Embeddings(vision)
        self.encoder = Encoder(vision)
        self.post_layernorm = LayerNorm(vision["hidden_size"], eps=vision.get("layer_norm_eps", 1e-6))

    def __call__(self, patches: mx.array, rows: int, columns: int) -> Generator[mx.array, None, mx.array]:
        """Compute patches (patches, width) of those of a tile (patches, numbers of a patch), a layer each step."""
        x = self.embeddings(patches.astype(self.post_layernorm.weight.dtype), rows, columns)[None]
        x = yield from self.encoder(x)
        return self.post_layernorm(x)[0]  # type: ignore[no-any-return]


class _Projector(Module):
    def __init__(self, config: Config) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.factor = _factor(config)  # patches, of a token's side
        inputs = config["vision_config"]["hidden_size"] * self.factor**2
        inner = config.get("projector_hidden_size", 2560)
        self.is_normed = bool(config.get("projector_use_layernorm", True))
        bias = bool(config.get("projector_bias", True))
        if self.is_normed:
            self.layer_norm = LayerNorm(inputs)
        self.linear_1 = Linear(inputs, inner, bias=bias)
        self.linear_2 = Linear(inner, config["text_config"]["hidden_size"], bias=bias)
        self.activation = _ACTIVATIONS[config.get("projector_hidden_act", "gelu")]

    def __call__(self, patches: mx.array) -> mx.array:
        """Make tokens (tokens, hidden size) of patches (rows, columns, width)."""
        x = squares(patches, self.factor)
        y: mx.array = self.linear_2(self.activation(self.linear_1(self.layer_norm(x) if self.is_normed else x)))
        return y


class LFM2VLTower(Module):
    """The tower and what follows it, whose layers have the names of the checkpoints."""

    def __init__(self, config: Config) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.vision_tower = _VisionTower(config["vision_config"])
        self.multi_modal_projector = _Projector(config)

    def __call__(self, inputs: Inputs) -> Generator[mx.array, None, mx.array]:
        """Compute the embeddings (tokens, hidden size) of an image, tile by tile, a layer each step."""
        tiles: list[mx.array] = []
        start = 0
        for rows, columns in inputs["spatial_shapes"].astype(int).tolist():
            patches = mx.array(inputs["pixel_values"][start : start + rows * columns])
            start += rows * columns
            x = yield from self.vision_tower(patches, rows, columns)
            tiles.append(self.multi_modal_projector(x.reshape(rows, columns, -1)))
            yield tiles[-1]
        return mx.concatenate(tiles)


def _factor(config: Config) -> int:
    return int(config.get("downsample_factor") or 2)


def layout(config: Config, processor: LFM2Images, width: int, height: int) -> Layout:
    """Give the tokens of each tile of an image and of the whole of it, with the texts between them."""
    tokens = [rows * columns // _factor(config) ** 2 for rows, columns in processor.shapes(width, height)]
    rows, columns = processor.tiles(width, height)
    if len(tokens) == 1:
        return tokens
    names = [f"<|img_row_{row + 1}_col_{column + 1}|>" for row in range(rows) for column in range(columns)]
    names += ["<|img_thumbnail|>"] * (len(tokens) - len(names))
    return [part for pair in zip(names, tokens, strict=True) for part in pair]


LFM2_VL = Family(
    processor=("app.services.engine.vision.lfm2_images", "LFM2Images"),
    before="<|image_start|>",
    after="<|image_end|>",
    placeholder=lambda config: int(config.get("image_token_id") or config.get("image_token_index") or 396),
    tower=LFM2VLTower,
    rename=lambda name: name.replace("vision_tower.vision_model.", "vision_tower."),  # the first checkpoints have it so
    layout=layout,
    tile_size=lambda inputs: int(inputs["spatial_shapes"].prod(axis=1).max()) * inputs["pixel_values"].shape[1],
)
