"""How the models of a family take images."""

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from app.services.engine.vision.positions import Positions

Config = Mapping[str, Any]  # config.json
Inputs = Mapping[str, npt.NDArray[np.float32]]  # what a processor of transformers makes of an image, without batch

# What an image is in a prompt: numbers of tokens, of each tile or row that a tower sees, and the texts between them.
Layout = Sequence[int | str]

# In which layers the tokens of an image see those of it that come later too, so that they are computed at once: in all,
# also beyond windows, or in those that have windows.
Mutual = Literal["everywhere", "windows"]


class Tower(Protocol):
    """What makes embeddings of an image: a Module of layers. On the engine thread."""

    def __call__(self, inputs: Inputs) -> Generator[mx.array, None, mx.array]:
        """Compute the embeddings (tokens, hidden size), a layer each step; what a step gives is to be evaluated."""


def channels_last(array: mx.array, shape: tuple[int, ...]) -> mx.array:
    """Give the kernels of a convolution in MLX's order; checkpoints of PyTorch have the channels second."""
    return mx.moveaxis(array, 1, -1) if array.ndim >= 4 and array.shape != shape else array


@dataclass(frozen=True, slots=True)
class Family:
    """How the models of a family take images, as their configuration has it."""

    processor: tuple[str, str]  # module and class of what prepares images, without PyTorch
    before: str  # what a prompt has before the tokens of an image, and behind them
    after: str
    placeholder: Callable[[Config], int]  # the token that stands in the places of an image
    tower: Callable[[Config], Any]  # a Tower, without its weights
    # By the width and height of an image: rows and columns of its tokens, or its layout where texts stand within it.
    grid: Callable[[Config, Any, int, int], tuple[int, int]] | None = None
    layout: Callable[[Config, Any, int, int], Layout] | None = None
    rename: Callable[[str], str] = str  # names of weights in the files as those of the tower
    fit: Callable[[mx.array, tuple[int, ...]], mx.array] = channels_last  # weights of the files to a shape of the tower
    # Settings of the processor, of those that the files have.
    settings: Callable[[Config, Mapping[str, Any]], Mapping[str, Any]] = lambda config, settings: settings
    positions: Callable[[Config], Positions] | None = None  # None where an image is placed like text
    mutual: Callable[[Config], Mutual | None] = lambda config: None
    stand_in: Callable[[Config], int] | None = None  # the token whose part in layers an image has; None: its own
    # Has a processor make so many tokens of an image at most, where their number does not depend on its size.
    limit: Callable[[Any, int], None] | None = None
    # Counts the numbers that the tower computes at a time, where that is a tile and not the whole image.
    tile_size: Callable[[Inputs], int] = lambda inputs: int(inputs["pixel_values"].size)
