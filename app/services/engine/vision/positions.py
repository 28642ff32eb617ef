"""Positions in three dimensions: time, height and width, by which rotary embeddings of Qwen's models place images.

The tokens of a text have the same position in each. An image takes as many positions as its longer side has tokens, so
what follows it is closer than its index: by a shift, which every row has its own of.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import mlx.core as mx
import numpy as np
from mlx.nn.layers.base import Module

from app.services.engine.vision.prompt_images import PromptImage


class Positions:
    """Where the tokens of the next call of a model are. On the engine thread."""

    def __init__(self, size: int, base: float, sections: Sequence[int], *, interleaved: bool) -> None:
        self.shift: int | mx.array | None = None  # of the rows, to be added to the index of their tokens; None is none
        self.angles: tuple[mx.array, mx.array] | None = None  # cosine and sine, of the tokens of an image
        self.rope = size, base  # numbers of a head that are turned, and the base of their frequencies
        self._frequencies = base ** (-np.arange(0, size, 2, dtype=np.float32) / size)
        self._axes = _axes(size // 2, sections, interleaved=interleaved)

    def use(self, shifts: Sequence[int]) -> None:
        """Set the shift of each row for the next calls."""
        if not any(shifts):
            self.shift = None
        else:
            self.shift = shifts[0] if len(set(shifts)) == 1 else mx.array(list(shifts))

    @contextmanager
    def of_image(self, image: PromptImage, start: int, tokens: int, shift: int) -> Iterator[None]:
        """Have the next call compute tokens of an image, from index `start` on; `shift` is that of what precedes it."""
        assert image.grid is not None
        index = np.arange(start - image.start, start - image.start + tokens)
        places = np.stack([np.zeros_like(index), index // image.grid[1], index % image.grid[1]]) + image.start + shift
        angles = places[self._axes].T.astype(np.float32) * self._frequencies  # (tokens, half)
        doubled = np.concatenate([angles, angles], axis=-1)
        self.angles = mx.array(np.cos(doubled)), mx.array(np.sin(doubled))
        try:
            yield
        finally:
            self.angles = None


def _axes(half: int, sections: Sequence[int], *, interleaved: bool) -> Any:
    """Say by which dimension each frequency (half,) turns: 0 is time, 1 height, 2 width."""
    if not interleaved:
        return np.repeat(np.arange(3), sections)[:half]
    axes = np.zeros(half, dtype=np.int64)
    for axis in (1, 2):
        axes[axis : 3 * sections[axis] : 3] = axis
    return axes


class SteeredRope(Module):
    """The rotary embedding of a layer, for texts, or for the image that is computed."""

    def __init__(self, rope: Any, positions: Positions) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.rope = rope
        self._positions = positions

    def __call__(self, x: mx.array, offset: Any = 0) -> mx.array:
        """Turn queries or keys (rows, heads, tokens, size); `offset` is the index of the first token."""
        if (angles := self._positions.angles) is None:
            shift = self._positions.shift
            y: mx.array = self.rope(x, offset=offset if shift is None else offset + shift)
            return y
        return turn(x, angles)


def turn(x: mx.array, angles: tuple[mx.array, mx.array]) -> mx.array:
    """Turn the first numbers of queries or keys (…, tokens, size) by cosine and sine (tokens, numbers to turn)."""
    cosine, sine = angles
    size = cosine.shape[-1]
    part = x[..., :size]
    half = mx.concatenate([-part[..., size // 2 :], part[..., : size // 2]], axis=-1)
    turned = (part * cosine + half * sine).astype(x.dtype)
    return turned if size == x.shape[-1] else mx.concatenate([turned, x[..., size:]], axis=-1)


def steer(model: Any, positions: Positions) -> None:
    """Have the layers of a model look where their tokens are; recurrent ones know no positions.

    Raises ValueError for a model that turns queries otherwise than images would be.
    """
    attentions = [layer.self_attn for layer in model.layers if "self_attn" in layer]
    plain = [rope.rope if isinstance(rope := each.rope, SteeredRope) else rope for each in attentions]
    for rope in plain:
        if (getattr(rope, "dims", None), getattr(rope, "base", None)) != positions.rope:
            raise ValueError("its rotary embeddings are scaled, which images are not placed by")
    for attention, rope in zip(attentions, plain, strict=True):
        attention.rope = SteeredRope(rope, positions)
