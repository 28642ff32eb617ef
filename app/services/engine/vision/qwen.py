"""What the towers of Qwen's models have in common: patches of images of any size, turned by their place."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import mlx.core as mx
import numpy as np
import numpy.typing as npt
from mlx.nn.layers.activations import GELU
from mlx.nn.layers.base import Module
from mlx.nn.layers.linear import Linear

from app.services.engine.vision.family import Config
from app.services.engine.vision.positions import Positions, turn

EPSILON = 1e-6  # of norms
_BASE = 10_000.0  # of the rotary embedding of patches


def grid(config: Config, processor: Any, width: int, height: int) -> tuple[int, int]:
    """Give the rows and columns of the tokens of an image of so many pixels."""
    side = processor.patch_size * processor.merge_size
    count = processor.get_number_of_image_patches(height, width) // processor.merge_size**2
    rows = _rows(processor, width, height, side)
    return rows, count // rows


def _rows(processor: Any, width: int, height: int, side: int) -> int:
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

    size = processor.size
    resized, _ = smart_resize(height, width, side, size["shortest_edge"], size["longest_edge"])
    return int(resized) // side


def processor_settings(config: Config, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Give the limits of the size of images in one way, of the several that files have."""
    side = settings.get("patch_size", 14) * settings.get("merge_size", 2)
    size = settings.get("size") or {}
    most = settings.get("max_pixels") or size.get("longest_edge") or size.get("max_pixels") or 2**40
    least = settings.get("min_pixels") or size.get("shortest_edge") or size.get("min_pixels") or 4 * side**2
    rest = {name: value for name, value in settings.items() if name not in ("size", "min_pixels", "max_pixels")}
    return {**rest, "size": {"shortest_edge": least, "longest_edge": most}}


def patch_size(vision: Config) -> int:
    """Count the numbers of a patch: channels, moments, rows, columns."""
    return int((vision.get("in_channels") or 3) * vision["temporal_patch_size"] * vision["patch_size"] ** 2)


def rename(name: str) -> str:
    """Give the name of a weight as checkpoints of PyTorch have it; MLX's conversions call the tower otherwise."""
    return f"visual.{rest}" if (rest := name.removeprefix("vision_tower.")) != name else name


def fitting(array: mx.array, shape: tuple[int, ...]) -> mx.array:
    """Give the kernel of the patches, a convolution in the files, as a matrix; MLX's conversions have channels last."""
    if array.ndim != 5:
        return array
    channels_first = array if array.shape[1] == 3 else mx.moveaxis(array, -1, 1)
    return channels_first.reshape(shape)


def token_by_token(patches: npt.NDArray[Any], merge: int) -> npt.NDArray[Any]:
    """Put what stands of each patch (rows, columns) in line (patches,), those of one token together."""
    rows, columns = (count // merge for count in patches.shape)
    return patches.reshape(rows, merge, columns, merge).transpose(0, 2, 1, 3).reshape(-1)


def angles_of(rows: int, columns: int, merge: int, size: int) -> tuple[mx.array, mx.array]:
    """Give cosine and sine (patches, size) of the places of patches, which come token by token."""
    places = np.mgrid[: rows * merge, : columns * merge]
    ordered = [token_by_token(each, merge) for each in places]
    frequencies = _BASE ** (-np.arange(0, size // 2, 2, dtype=np.float32) / (size // 2))
    half = np.concatenate([each[:, None].astype(np.float32) * frequencies for each in ordered], axis=-1)
    angles = np.concatenate([half, half], axis=-1)
    return mx.array(np.cos(angles)), mx.array(np.sin(angles))


def positions(config: Config, *, interleaved: bool) -> Positions:
    """Say how the text model turns queries and keys by the places of images."""
    text: Any = config.get("text_config") or config
    rope = text.get("rope_scaling") or text.get("rope_parameters") or {}
    size = text.get("head_dim") or text["hidden_size"] // text["num_attention_heads"]
    part = rope.get("partial_rotary_factor") or text.get("partial_rotary_factor") or 1.0  # the rest is not turned
    base = text.get("rope_theta") or rope.get("rope_theta") or 1_000_000.0
    return Positions(int(part * size), base, rope.get("mrope_section") or [16, 24, 24], interleaved=interleaved)


class Windows(NamedTuple):
    """The patches of each window, those of small ones padded."""

    patches: mx.array  # (windows, size) indices
    is_patch: mx.array | None  # (windows, 1, 1, size); None where no window is padded
    places: mx.array  # (patches,) where each stands in the first, as one line


class PatchEmbed(Module):
    """Makes vectors (patches, width) of patches (patches, numbers of a patch)."""

    def __init__(self, size: int, width: int, *, bias: bool) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.proj = Linear(size, width, bias=bias)

    def __call__(self, patches: mx.array) -> mx.array:
        """Make vectors of patches."""
        y: mx.array = self.proj(patches)
        return y


class Attention(Module):
    """Attention between patches, turned by their places."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.heads = heads
        self.qkv = Linear(width, 3 * width)
        self.proj = Linear(width, width)

    def __call__(self, x: mx.array, angles: tuple[mx.array, mx.array], windows: Windows | None = None) -> mx.array:
        """Let patches (patches, width) see all others, or those of their window."""
        queries, keys, values = self.qkv(x).reshape(len(x), 3, self.heads, -1).transpose(1, 2, 0, 3)
        split = [turn(queries, angles), turn(keys, angles), values]  # (heads, patches, size)
        scale = queries.shape[-1] ** -0.5
        if windows is None:
            out = mx.fast.scaled_dot_product_attention(*[each[None] for each in split], scale=scale)[0]
        else:
            inside = [each[:, windows.patches].transpose(1, 0, 2, 3) for each in split]
            seen = mx.fast.scaled_dot_product_attention(*inside, scale=scale, mask=windows.is_patch)
            out = seen.transpose(1, 0, 2, 3).reshape(self.heads, -1, seen.shape[-1])[:, windows.places]
        y: mx.array = self.proj(out.transpose(1, 0, 2).reshape(len(x), -1))
        return y


class Block(Module):
    """A layer of a tower, whose inner part and norms are those of its family."""

    def __init__(self, width: int, heads: int, mlp: Module, norm: Callable[..., Module]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.norm1 = norm(width, eps=EPSILON)
        self.attn = Attention(width, heads)
        self.norm2 = norm(width, eps=EPSILON)
        self.mlp = mlp

    def __call__(self, x: mx.array, angles: tuple[mx.array, mx.array], windows: Windows | None = None) -> mx.array:
        """Compute patches (patches, width), which see all others, or those of their window."""
        x = x + self.attn(self.norm1(x), angles, windows)
        y: mx.array = x + self.mlp(self.norm2(x))
        return y


class Merger(Module):
    """Makes one token of the patches of a square."""

    def __init__(self, width: int, unit: int, out: int, norm: Callable[..., Module]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.ln_q = norm(width, eps=EPSILON)
        self.mlp = [Linear(width * unit, width * unit), GELU(), Linear(width * unit, out)]
        self.unit = unit

    def __call__(self, x: mx.array) -> mx.array:
        """Make tokens (tokens, hidden size) of patches (patches, width), which come token by token."""
        first, activation, last = self.mlp
        y: mx.array = last(activation(first(self.ln_q(x).reshape(len(x) // self.unit, -1))))
        return y
