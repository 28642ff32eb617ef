"""Qwen2-VL: a transformer over the patches of an image of any size, each of which sees all others."""

from collections.abc import Generator
from dataclasses import replace

import mlx.core as mx
from mlx.nn.layers.activations import GELU, gelu_fast_approx
from mlx.nn.layers.base import Module
from mlx.nn.layers.linear import Linear
from mlx.nn.layers.normalization import LayerNorm

from app.services.engine.vision.family import Config, Inputs
from app.services.engine.vision.qwen import EPSILON, Block, PatchEmbed, angles_of, patch_size
from app.services.engine.vision.qwen2_5 import QWEN2_5_VL


class _MLP(Module):
    def __init__(self, width: int, inner: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.fc1 = Linear(width, inner)
        self.fc2 = Linear(inner, width)

    def __call__(self, x: mx.array) -> mx.array:
        y: mx.array = self.fc2(gelu_fast_approx(self.fc1(x)))
        return y


class _Merger(Module):
    """Makes one token of the patches of a square."""

    def __init__(self, width: int, unit: int, out: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.ln_q = LayerNorm(width, eps=EPSILON)
        self.mlp = [Linear(width * unit, width * unit), GELU(), Linear(width * unit, out)]
        self.unit = unit

    def __call__(self, x: mx.array) -> mx.array:
        first, activation, last = self.mlp
        y: mx.array = last(activation(first(self.ln_q(x).reshape(len(x) // self.unit, -1))))
        return y


class _Visual(Module):
    def __init__(self, vision: Config) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        width = vision["embed_dim"]
        inner = int(width * vision.get("mlp_ratio", 4))
        self.patch_embed = PatchEmbed(patch_size(vision), width, bias=False)
        self.blocks = [Block(width, vision["num_heads"], _MLP(width, inner), LayerNorm) for _ in range(vision["depth"])]
        self.merger = _Merger(width, vision["spatial_merge_size"] ** 2, vision["hidden_size"])


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
