"""What the towers of Qwen's models have in common: patches of images of any size, turned by their place."""

from collections.abc import Mapping
from typing import Any

import mlx.core as mx
import numpy as np

from app.services.engine.vision.family import Config

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


def processor_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
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


def angles_of(rows: int, columns: int, merge: int, size: int) -> tuple[mx.array, mx.array]:
    """Give cosine and sine (patches, size) of the places of patches, which come token by token."""
    places = np.mgrid[: rows * merge, : columns * merge].reshape(2, rows, merge, columns, merge)
    ordered = places.transpose(0, 1, 3, 2, 4).reshape(2, -1)
    frequencies = _BASE ** (-np.arange(0, size // 2, 2, dtype=np.float32) / (size // 2))
    half = np.concatenate([each[:, None].astype(np.float32) * frequencies for each in ordered], axis=-1)
    angles = np.concatenate([half, half], axis=-1)
    return mx.array(np.cos(angles)), mx.array(np.sin(angles))
