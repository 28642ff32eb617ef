"""SmolVLM and Idefics 3: SigLIP over square tiles of an image and over the whole of it, each made small."""

import math
from collections.abc import Generator, Mapping
from typing import Any

import mlx.core as mx
import numpy as np
import numpy.typing as npt
from mlx.nn.layers.base import Module
from mlx.nn.layers.linear import Linear

from app.services.engine.vision.family import Config, Family, Inputs, Layout
from app.services.engine.vision.siglip import Siglip, squares

_FAKE = "<fake_token_around_image>"  # around each tile
_WHOLE = "<global-img>"
_VISION: Mapping[str, Any] = {  # what transformers takes where the configuration says nothing
    "hidden_size": 1152,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 16,
    "image_size": 224,
    "patch_size": 32,
}


def _vision(config: Config) -> Mapping[str, Any]:
    return {**_VISION, **config["vision_config"]}


class _Projection(Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.proj = Linear(width, hidden, bias=False)


class _Connector(Module):
    def __init__(self, width: int, hidden: int, scale: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.modality_projection = _Projection(width * scale**2, hidden)
        self.scale = scale  # patches, of a token's side

    def __call__(self, patches: mx.array) -> mx.array:
        """Make tokens (tokens, hidden size) of the patches (patches, width) of a square."""
        side = math.isqrt(len(patches))
        y: mx.array = self.modality_projection.proj(squares(patches.reshape(side, side, -1), self.scale))
        return y


class SmolVLMTower(Module):
    """The tower and what follows it, whose layers have the names of the checkpoints."""

    def __init__(self, config: Config) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        vision = _vision(config)
        side = vision["image_size"] // vision["patch_size"]
        self.vision_model = Siglip(vision, lambda rows, columns: _places(side, rows, columns))
        self.connector = _Connector(vision["hidden_size"], config["text_config"]["hidden_size"], _scale(config))

    def __call__(self, inputs: Inputs) -> Generator[mx.array, None, mx.array]:
        """Compute the embeddings (tokens, hidden size) of an image, tile by tile, a layer each step."""
        tiles: list[mx.array] = []
        for pixels in inputs["pixel_values"][0]:
            patches = yield from self.vision_model(mx.array(pixels.transpose(1, 2, 0))[None])
            tiles.append(self.connector(patches[0]))
            yield tiles[-1]
        return mx.concatenate(tiles)


def _places(side: int, rows: int, columns: int) -> npt.NDArray[np.int64]:
    """Give the patches of a tile their entries of a square table: those at the same part of its height and width.

    In 32 bits, as transformers computes them: rounding may make two patches share an entry.
    """
    edges = np.arange(1 / side, 1.0, 1 / side).astype(np.float32)

    def entries(count: int) -> Any:
        parts = np.arange(count, dtype=np.float32) * np.float32(1 / count)
        return np.searchsorted(edges, np.minimum(parts, np.float32(1 - 1e-6)), side="right")

    places: npt.NDArray[Any] = entries(rows)[:, None] * side + entries(columns)
    return places.flatten()


def _scale(config: Config) -> int:
    return int(config.get("scale_factor") or 2)


def tiles(processor: Any, width: int, height: int) -> tuple[int, int]:
    """Give the rows and columns of the tiles that an image is cut into, by its size; none where it is one tile."""
    from transformers.models.idefics3 import image_processing_pil_idefics3 as module

    if not processor.do_image_splitting:
        return 0, 0
    limited: Any = module._resize_output_size_scale_below_upper_bound  # whose annotations are wrong
    height, width = module._resize_output_size_rescale_to_max_len(height, width, max_len=processor.size["longest_edge"])
    height, width = limited(height, width, max_len=module.MAX_IMAGE_SIZE)
    side, shape = processor.max_image_size["longest_edge"], width / height
    if width >= height:  # as the processor rounds: the longer side first
        columns = math.ceil(width / side)
        rows = math.ceil(int(columns * side / shape) / side)
    else:
        rows = math.ceil(height / side)
        columns = math.ceil(int(rows * side * shape) / side)
    return (0, 0) if (rows, columns) == (1, 1) else (rows, columns)


def layout(config: Config, processor: Any, width: int, height: int) -> Layout:
    """Give the tokens of each tile of an image and of the whole of it, with the texts between them."""
    side = processor.max_image_size["longest_edge"] // _vision(config)["patch_size"] // _scale(config)
    rows, columns = tiles(processor, width, height)
    parts: list[int | str] = []
    for row in range(rows):
        for column in range(columns):
            before = ("\n" if row and not column else "") + (_FAKE if parts else "")
            parts += [f"{before}<row_{row + 1}_col_{column + 1}>", side**2]
    return [*parts, f"\n\n{_FAKE}{_WHOLE}" if parts else _WHOLE, side**2]


SMOLVLM = Family(  # and Idefics 3
    processor=("transformers.models.idefics3.image_processing_pil_idefics3", "Idefics3ImageProcessorPil"),
    settings=lambda config, settings: {**settings, "do_pad": False},  # all tiles are of one size
    before=_FAKE,
    after=_FAKE,
    placeholder=lambda config: int(config.get("image_token_id") or 128_257),
    tower=SmolVLMTower,
    layout=layout,
    tile_size=lambda inputs: int(inputs["pixel_values"][0, 0].size),
)
