"""Qwen2-VL: a transformer over the patches of an image of any size, each of which sees all others."""

from collections.abc import Generator
from dataclasses import replace

import mlx.core as mx
from mlx.nn.layers.activations import gelu_fast_approx
from mlx.nn.layers.base import Module
from mlx.nn.layers.normalization import LayerNorm

from app.services.engine.vision.family import Config, Inputs
from app.services.engine.vision.mlp import MLP
from app.services.engine.vision.qwen import Block, Merger, PatchEmbed, angles_of, patch_size
from app.services.engine.vision.qwen2_5 import QWEN2_5_VL


class _Visual(Module):
    def __init__(self, vision: Config) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        width = vision["embed_dim"]
        inner = int(width * vision.get("mlp_ratio", 4))
        self.patch_embed = PatchEmbed(patch_size(vision), width, bias=False)
        self.blocks = [
            Block(width, vision["num_heads"], MLP(width, inner, gelu_fast_approx), LayerNorm)
            for _ in range(vision["depth"])
        ]
        self.merger = Merger(width, vision["spatial_merge_size"] ** 2, vision["hidden_size"], LayerNorm)


class Qwen2Tower(Module):
    """The tower, whose layers have the names of the checkpoints."""

    def __init__(self, config: Config) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        vision = config["vision_config"]
        self.visual = _Visual(vision)
        self.merge = int(vision["spatial_merge_size"])
        self.head_size = vision["embed_dim"] // vision["num_heads"]

    def __call__(self, inputs: Inputs) -> Generator[mx.array, None, mx.array]:
        """Compute the embeddings (tokens, hidden size) of an image, a layer each step."""
        rows, columns = (int(count) // self.merge for count in inputs["image_grid_thw"][0][1:])
        angles = angles_of(rows, columns, self.merge, self.head_size)
        x = self.visual.patch_embed(mx.array(inputs["pixel_values"]).astype(self.visual.merger.ln_q.weight.dtype))
        for block in self.visual.blocks:
            yield (x := block(x, angles))
        y: mx.array = self.visual.merger(x)
        return y


QWEN2_VL = replace(QWEN2_5_VL, tower=Qwen2Tower)
