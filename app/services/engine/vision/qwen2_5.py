"""Qwen2.5-VL: a transformer over the patches of an image of any size, most of whose layers see windows of it."""

from collections.abc import Generator, Sequence
from functools import partial

import mlx.core as mx
import numpy as np
from mlx.nn.layers.activations import silu
from mlx.nn.layers.base import Module
from mlx.nn.layers.normalization import RMSNorm

from app.services.engine.vision.family import Config, Family, Inputs
from app.services.engine.vision.mlp import GatedMLP
from app.services.engine.vision.qwen import (
    Block,
    Merger,
    PatchEmbed,
    Windows,
    angles_of,
    fitting,
    grid,
    patch_size,
    positions,
    processor_settings,
    rename,
)


def _windows(rows: int, columns: int, side: int, unit: int) -> Windows:
    """Cut tokens (rows, columns) into squares of so many a side, each token of `unit` patches that come together."""
    index = np.arange(rows * columns * unit).reshape(rows, columns, unit)
    cut = [
        index[row : row + side, column : column + side].reshape(-1)
        for row in range(0, rows, side)
        for column in range(0, columns, side)
    ]
    size = max(map(len, cut))
    patches = np.zeros((len(cut), size), dtype=np.int32)
    is_patch = np.zeros((len(cut), size), dtype=bool)
    for number, one in enumerate(cut):
        patches[number, : len(one)] = one
        is_patch[number, : len(one)] = True
    places = np.empty(index.size, dtype=np.int32)
    places[patches[is_patch]] = np.flatnonzero(is_patch)
    mask = None if is_patch.all() else mx.array(is_patch)[:, None, None, :]
    return Windows(mx.array(patches), mask, mx.array(places))


class _Visual(Module):
    def __init__(self, vision: Config) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        width, heads, inner = vision["hidden_size"], vision["num_heads"], vision["intermediate_size"]
        self.patch_embed = PatchEmbed(patch_size(vision), width, bias=False)
        self.blocks = [
            Block(width, heads, GatedMLP(width, inner, silu, bias=True), RMSNorm) for _ in range(vision["depth"])
        ]
        self.merger = Merger(width, vision["spatial_merge_size"] ** 2, vision["out_hidden_size"], RMSNorm)


class Qwen25Tower(Module):
    """The tower, whose layers have the names of the checkpoints."""

    def __init__(self, config: Config) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        vision = config["vision_config"]
        self.visual = _Visual(vision)
        self.merge = int(vision["spatial_merge_size"])
        self.side = int(vision["window_size"]) // self.merge // int(vision["patch_size"])  # tokens, of a window
        self.whole: Sequence[int] = tuple(vision["fullatt_block_indexes"])  # layers that see all
        self.head_size = vision["hidden_size"] // vision["num_heads"]

    def __call__(self, inputs: Inputs) -> Generator[mx.array, None, mx.array]:
        """Compute the embeddings (tokens, hidden size) of an image, a layer each step."""
        rows, columns = (int(count) // self.merge for count in inputs["image_grid_thw"][0][1:])
        angles = angles_of(rows, columns, self.merge, self.head_size)
        windows = _windows(rows, columns, self.side, self.merge**2)
        dtype = self.visual.merger.ln_q.weight.dtype
        x = self.visual.patch_embed(mx.array(inputs["pixel_values"]).astype(dtype))
        for number, block in enumerate(self.visual.blocks):
            yield (x := block(x, angles, None if number in self.whole else windows))
        y: mx.array = self.visual.merger(x)
        return y


QWEN2_5_VL = Family(
    processor=("transformers.models.qwen2_vl.image_processing_pil_qwen2_vl", "Qwen2VLImageProcessorPil"),
    settings=processor_settings,
    before="<|vision_start|>",
    after="<|vision_end|>",
    placeholder=lambda config: int(config.get("image_token_id") or 151_655),
    tower=Qwen25Tower,
    grid=grid,
    rename=rename,
    fit=fitting,
    positions=partial(positions, interleaved=False),
)
