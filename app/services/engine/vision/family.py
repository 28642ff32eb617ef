"""How the models of a family take images."""

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import mlx.core as mx
import numpy as np
import numpy.typing as npt

Config = Mapping[str, Any]  # config.json
Inputs = Mapping[str, npt.NDArray[np.float32]]  # what a processor of transformers makes of an image, without batch


class Tower(Protocol):
    """What makes embeddings of an image: a Module of layers. On the engine thread."""

    def __call__(self, inputs: Inputs) -> Generator[mx.array, None, mx.array]:
        """Compute the embeddings (tokens, hidden size), a layer each step; what a step gives is to be evaluated."""


@dataclass(frozen=True, slots=True)
class Family:
    """How the models of a family take images, as their configuration has it."""

    processor: tuple[str, str]  # module and class of transformers that prepare images, without PyTorch
    before: str  # what a prompt has before the tokens of an image, and behind them
    after: str
    is_mutual: bool  # whether the tokens of an image see each other, so that they are computed at once
    placeholder: Callable[[Config], int]  # the token that stands in the places of an image
    tower: Callable[[Config], Any]  # a Tower, without its weights
    tokens: Callable[[Config, Any, int, int], int]  # of an image: by configuration, processor, width and height
    rename: Callable[[str], str] = str  # names of weights in the files as those of the tower
