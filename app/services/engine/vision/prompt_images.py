"""Where the images of a prompt stand, and what their places are called in the prefix cache."""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import shake_128

import numpy as np

from app.services.generation import EncodedImage


@dataclass(frozen=True, slots=True)
class PromptImage:
    """An image in a prompt: its tokens are all the same one, which only says that there is an image."""

    image: EncodedImage
    start: int  # index of its first token
    length: int  # tokens
    grid: tuple[int, int] | None = None  # their rows and columns, where these are positions; else they stand in line

    @property
    def span(self) -> int:
        """How many positions it takes."""
        return max(self.grid) if self.grid else self.length

    @property
    def end(self) -> int:
        """Index of the first token behind it."""
        return self.start + self.length

    @property
    def keys(self) -> list[int]:
        """What its tokens are called in the prefix cache: negative, so none is a token, and made of its content.

        Other settings may give the same image other tokens, which are called otherwise.
        """
        content = repr((self.image.digest, self.length, self.grid)).encode()
        drawn = np.frombuffer(shake_128(content).digest(4 * self.length), dtype="<i4")
        return [int(key) for key in drawn | np.int32(-(2**31))]


@dataclass(frozen=True, slots=True)
class PromptImages:
    """The images of one prompt, in their order."""

    images: tuple[PromptImage, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.images)

    @property
    def end(self) -> int:
        """Index of the first token behind the last of them; 0 where there are none."""
        return self.images[-1].end if self.images else 0

    def keyed(self, tokens: Sequence[int]) -> list[int]:
        """Give the tokens with keys in the places of images: the same places of another image have others."""
        keyed = list(tokens)
        for image in self.images:
            keyed[image.start : image.end] = image.keys
        return keyed

    def before(self, length: int) -> int:
        """Give the most tokens, up to so many, that end within no image."""
        return next((image.start for image in self.images if image.start < length < image.end), length)

    def shift(self, length: int) -> int:
        """Say how much closer than its index the position of the token is that follows so many, behind images."""
        return sum(image.span - image.length for image in self.images if image.end <= length)

    def next_part(self, start: int, end: int) -> tuple[int, PromptImage | None]:
        """Give where the part ends that begins at `start`, `end` at most: it is text, or of the one image given."""
        for image in self.images:
            if image.start <= start < image.end:
                return min(end, image.end), image
            if start < image.start < end:
                return image.start, None
        return end, None


NO_IMAGES = PromptImages()
