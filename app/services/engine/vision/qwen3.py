"""Qwen3-VL and Qwen3.5: a transformer over the patches of an image of any size, each of which sees all others.

What some of its layers make is added behind the first layers of Qwen3-VL's text model, besides what stands for the
image in the prompt (deepstack); Qwen3.5 has none of that.
"""

from collections.abc import Generator
from dataclasses import replace
from functools import partial
from typing import Any

import mlx.core as mx
import numpy as np
import numpy.typing as npt
from mlx.nn.layers.activations import gelu, gelu_approx
from mlx.nn.layers.base import Module
from mlx.nn.layers.embedding import Embedding
from mlx.nn.layers.linear import Linear
from mlx.nn.layers.normalization import LayerNorm

from app.services.engine.vision.family import Config, Inputs
from app.services.engine.vision.qwen import (
    EPSILON,
    Block,
    PatchEmbed,
    angles_of,
    patch_size,
    positions,
    token_by_token,
)
from app.services.engine.vision.qwen2_5 import QWEN2_5_VL


class _MLP(Module):
    def __init__(self, width: int, inner: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.linear_fc1 = Linear(width, inner)
        self.linear_fc2 = Linear(inner, width)

    def __call__(self, x: mx.array) -> mx.array:
        y: mx.array = self.linear_fc2(gelu_approx(self.linear_fc1(x)))
        return y


class _Merger(Module):
    """Makes one token of the patches of a square, whose norm is that of each patch or of the whole square."""

    def __init__(self, width: int, unit: int, out: int, *, norm_of_square: bool = False) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.norm = LayerNorm(width * unit if norm_of_square else width, eps=EPSILON)
        self.linear_fc1 = Linear(width * unit, width * unit)
        self.linear_fc2 = Linear(width * unit, out)
        self.unit = unit

    def __call__(self, x: mx.array) -> mx.array:
        """Make tokens (tokens, hidden size) of patches (patches, width), which come token by token."""
        width = self.norm.weight.shape[0]
        tokens = self.norm(x.reshape(-1, width)).reshape(len(x) // self.unit, -1)
        y: mx.array = self.linear_fc2(gelu(self.linear_fc1(tokens)))
        return y


class _Visual(Module):
    def __init__(self, vision: Config) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        width, heads, inner = vision["hidden_size"], vision["num_heads"], vision["intermediate_size"]
        unit, out = vision["spatial_merge_size"] ** 2, vision["out_hidden_size"]
        deep = vision.get("deepstack_visual_indexes") or ()
        self.patch_embed = PatchEmbed(patch_size(vision), width, bias=True)
        self.pos_embed = Embedding(vision["num_position_embeddings"], width)
        self.blocks = [Block(width, heads, _MLP(width, inner), LayerNorm) for _ in range(vision["depth"])]
        self.merger = _Merger(width, unit, out)
        self.deepstack_merger_list = [_Merger(width, unit, out, norm_of_square=True) for _ in deep]


class Qwen3Tower(Module):
    """The tower, whose layers have the names of the checkpoints."""

    def __init__(self, config: Config) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        vision = config["vision_config"]
        self.visual = _Visual(vision)
        self.merge = int(vision["spatial_merge_size"])
        self.side = int(vision["num_position_embeddings"] ** 0.5)  # of the square that position embeddings are for
        self.deep = tuple(vision.get("deepstack_visual_indexes") or ())  # layers
        self.head_size = vision["hidden_size"] // vision["num_heads"]

    def __call__(self, inputs: Inputs) -> Generator[mx.array, None, mx.array]:
        """Compute the embeddings of an image, a layer each step.

        They are (tokens, hidden size), or with deepstack (tokens, 1 + layers of the text model, hidden size).
        """
        rows, columns = (int(count) // self.merge for count in inputs["image_grid_thw"][0][1:])
        angles = angles_of(rows, columns, self.merge, self.head_size)
        dtype = self.visual.merger.norm.weight.dtype
        x = self.visual.patch_embed(mx.array(inputs["pixel_values"]).astype(dtype))
        x = x + self._positions(rows * self.merge, columns * self.merge).astype(dtype)
        deep: list[mx.array] = []
        for number, block in enumerate(self.visual.blocks):
            yield (x := block(x, angles))
            if number in self.deep:
                deep.append(self.visual.deepstack_merger_list[len(deep)](x))
        y: mx.array = self.visual.merger(x)
        return mx.stack([y, *deep], axis=1) if deep else y

    def _positions(self, rows: int, columns: int) -> mx.array:
        """Give the position embeddings (patches, width) of an image: those of the square, stretched over it."""
        (top, down), (left, right) = (_neighbours(count, self.side) for count in (rows, columns))
        corners = [
            (row[:, None] * self.side + column, row_weight[:, None] * column_weight)
            for row, row_weight in (top, down)
            for column, column_weight in (left, right)
        ]
        indices, weights = (
            np.stack([token_by_token(each, self.merge) for each in corner], axis=-1)
            for corner in zip(*corners, strict=True)
        )
        embeddings = self.visual.pos_embed(mx.array(indices)) * mx.array(weights.astype(np.float32))[..., None]
        y: mx.array = embeddings.sum(axis=1)
        return y


def _neighbours(count: int, side: int) -> list[tuple[npt.NDArray[Any], npt.NDArray[Any]]]:
    """Give the two entries of a row of `side` that each of `count` places lies between, with their weights."""
    places = np.arange(count) * (side - 1) / max(count - 1, 1)
    low = np.floor(places).astype(np.int32)
    rest = places - low
    return [(low, 1 - rest), (np.minimum(low + 1, side - 1), rest)]


QWEN3_VL = replace(QWEN2_5_VL, tower=Qwen3Tower, positions=partial(positions, interleaved=True))  # and Qwen3.5
