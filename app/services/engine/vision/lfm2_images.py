"""Prepares images for LFM2-VL, as transformers does with PyTorch: whole, or cut into tiles where they are large."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from app.services import images

Size = tuple[int, int]  # width and height


@dataclass(frozen=True, slots=True)
class LFM2Images:
    """The settings of preprocessor_config.json, with transformers' values where it says nothing."""

    downsample_factor: int = 2  # patches, of a token's side
    do_image_splitting: bool = True
    min_tiles: int = 2
    max_tiles: int = 10
    use_thumbnail: bool = True
    min_image_tokens: int = 64  # of an image that is not cut, and of the thumbnail
    max_image_tokens: int = 256
    encoder_patch_size: int = 16  # pixels
    tile_size: int = 512  # pixels, of a tile's side
    max_pixels_tolerance: float = 2.0  # so many times the most pixels of one tile are not cut yet
    resample: int = 2  # Pillow's number: bilinear
    image_mean: Sequence[float] = (0.5, 0.5, 0.5)
    image_std: Sequence[float] = (0.5, 0.5, 0.5)

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> Self:
        """Take what is known of the content of a file."""
        names = {field.name for field in fields(cls)}
        return cls(**{name: value for name, value in settings.items() if name in names})

    def __call__(self, pixels: Sequence[images.Pixels], **_: object) -> dict[str, npt.NDArray[Any]]:
        """Give the patches (patches, numbers of a patch) of an image and the rows and columns of each of its tiles."""
        (image,) = pixels
        height, width, _channels = image.shape
        rows, columns = self.tiles(width, height)
        side, tiles = self.tile_size, []
        if rows * columns > 1:
            whole = images.stretched(image, columns * side, rows * side, self.resample)
            tiles = [
                whole[row * side : (row + 1) * side, column * side : (column + 1) * side]
                for row in range(rows)
                for column in range(columns)
            ]
        if self.use_thumbnail or not tiles:
            tiles.append(images.stretched(image, *self._thumbnail(width, height), self.resample))
        return {
            "pixel_values": np.concatenate([self._patches(tile) for tile in tiles]),
            "spatial_shapes": np.array(self.shapes(width, height)),
        }

    def tiles(self, width: int, height: int) -> tuple[int, int]:
        """Give the rows and columns of the tiles that an image is cut into: one each where it is not."""
        if not self.do_image_splitting or self.max_tiles == 1 or not self._is_large(width, height):
            return 1, 1
        counts = range(1, self.max_tiles + 1)
        shapes = [(across, down) for across in counts for down in counts]
        shapes = [shape for shape in shapes if self.min_tiles <= math.prod(shape) <= self.max_tiles]
        best, least = (1, 1), math.inf
        for across, down in sorted(shapes, key=math.prod):
            difference = abs(width / height - across / down)
            larger_fits = 2 * width * height > self.tile_size**2 * across * down
            if difference < least or (difference == least and larger_fits):
                best, least = (across, down), difference
        return best[1], best[0]

    def shapes(self, width: int, height: int) -> list[tuple[int, int]]:
        """Give the rows and columns of the patches of each tile, and last of the thumbnail or the whole."""
        rows, columns = self.tiles(width, height)
        side = self.tile_size // self.encoder_patch_size
        shapes = [(side, side)] * (rows * columns) if rows * columns > 1 else []
        if self.use_thumbnail or not shapes:
            across, down = self._thumbnail(width, height)
            shapes.append((down // self.encoder_patch_size, across // self.encoder_patch_size))
        return shapes

    @property
    def _side(self) -> int:
        """Pixels of a token's side."""
        return self.encoder_patch_size * self.downsample_factor

    def _is_large(self, width: int, height: int) -> bool:
        sides = [max(self.encoder_patch_size, round(length / self._side) * self._side) for length in (width, height)]
        return math.prod(sides) > self.max_image_tokens * self._side**2 * self.max_pixels_tolerance

    def _thumbnail(self, width: int, height: int) -> Size:
        """Give the size in which an image is shown whole: sides of whole tokens, not too few and not too many."""
        side = self._side
        sides = [max(side, round(length / side) * side) for length in (width, height)]
        least, most = self.min_image_tokens * side**2, self.max_image_tokens * side**2
        if math.prod(sides) > most:
            scale = math.sqrt(height * width / most)
            sides = [max(side, math.floor(length / scale / side) * side) for length in (width, height)]
        elif math.prod(sides) < least:
            scale = math.sqrt(least / (height * width))
            sides = [math.ceil(length * scale / side) * side for length in (width, height)]
        return sides[0], sides[1]

    def _patches(self, tile: images.Pixels) -> npt.NDArray[np.float32]:
        """Give the patches of a tile, in rows: of each its pixels in rows, and of each of these its three numbers."""
        mean, deviation = (np.array(each, dtype=np.float32) for each in (self.image_mean, self.image_std))
        numbers: npt.NDArray[Any] = (tile.astype(np.float32) / 255 - mean) / deviation
        height, width, channels = tile.shape
        side = self.encoder_patch_size
        grid = numbers.reshape(height // side, side, width // side, side, channels).transpose(0, 2, 1, 3, 4)
        patches: npt.NDArray[np.float32] = grid.reshape(-1, side * side * channels)
        return patches
