"""What a model sees with: images are prepared on threads of their own, and its tower computes them layer by layer."""

from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Callable, Collection, Generator, Mapping
from functools import cached_property
from math import prod
from threading import Lock
from typing import Any, Generic, TypeVar

import mlx.core as mx
import numpy as np

from app.services import images
from app.services.engine.model.loading import dtype
from app.services.engine.vision.counts import ImageCounts
from app.services.engine.vision.family import Family, Inputs, Layout
from app.services.engine.vision.memory import count_patches, peak_bytes
from app.services.engine.vision.prompt_images import PromptImage, PromptImages
from app.services.engine.vision.texts import Texts
from app.services.errors import InvalidImage
from app.services.errors.base import first_line
from app.services.generation import EncodedImage, Image

_MOST_INPUTS = 256 * 2**20  # bytes of prepared images whose turn is still to come
MOST_EMBEDDINGS = 256 * 2**20  # bytes of embeddings of images that were seen lately
IMAGE_TOKENS = 1280  # about a megapixel for Qwen, whose own limit would be twelve thousand for a photo
_SMALL = 512  # pixels of the longer side of an image that may be made small
_MOST_CHECKED = 4096  # images of which it is remembered that they can be decoded
V = TypeVar("V")


class Vision:
    """The tower of one model, and what is computed with it.

    `read`, `expand` and what they call are for any thread, the rest is for the engine's.
    """

    def __init__(
        self,
        family: Family,
        config: Mapping[str, Any],
        tower: Any,
        make_processor: Callable[[], Any],
        texts: Texts,
        dtype: mx.Dtype,
    ) -> None:
        self.family = family
        self.placeholder = family.placeholder(config)
        self.stand_in = family.stand_in(config) if family.stand_in else self.placeholder
        self.mutual = family.mutual(config)
        self.positions = family.positions(config) if family.positions else None
        self.counts = ImageCounts()
        self._image_tokens = IMAGE_TOKENS  # that an image has at most, where their number depends on its size
        self._config = config
        self._tower = tower
        self._make_processor = make_processor
        self._texts = texts
        self._dtype = dtype  # of the text model
        self._inputs: _Recent[Inputs] = _Recent(
            _MOST_INPUTS, lambda inputs: sum(each.nbytes for each in inputs.values())
        )
        # By image that can be decoded: the numbers of it that a tower computes at a time.
        self._checked: _Recent[int] = _Recent(_MOST_CHECKED, lambda _: 1)
        self._embeddings: _Recent[mx.array] = _Recent(MOST_EMBEDDINGS, lambda array: array.nbytes)
        self._unfinished: dict[bytes, Generator[mx.array, None, mx.array]] = {}

    @property
    def nbytes(self) -> int:
        """Bytes of the embeddings that are stored."""
        return self._embeddings.size

    def limit(self, most_bytes: int, image_tokens: int = IMAGE_TOKENS) -> int:
        """Set how many tokens an image has, and how many bytes of embeddings are stored. Returns how many these are."""
        self._image_tokens = image_tokens
        if self.family.limit and "_processor" in vars(self):
            self.family.limit(self._processor, image_tokens)
        self._embeddings.most = min(MOST_EMBEDDINGS, most_bytes)
        return self._embeddings.most

    def read(self, image: Image) -> EncodedImage:
        """Read and check an image. One that was not seen lately is decoded too. Raises InvalidImage."""
        encoded = images.read(image)
        encoded = images.resized(encoded, *self._size(encoded, is_small=image.is_small))
        if encoded.digest not in self._checked:
            self._inputs.put(encoded.digest, inputs := self._prepare(encoded))
            self._checked.put(encoded.digest, self.family.tile_size(inputs))
        return encoded

    def placed(self, image: EncodedImage, start: int) -> PromptImage:
        """Give an image its tokens in a prompt, from an index on."""
        layout = self._layout(image.width, image.height)
        grid = self._grid(image.width, image.height) if self.positions else None
        return PromptImage(image, start, self._texts.length(layout), grid)

    def embeddings(self, image: PromptImage) -> mx.array | None:
        """Give the embeddings (tokens, hidden size) of an image; None if they are still to be computed."""
        return self._embeddings.get(image.image.digest)

    def look(self, image: PromptImage) -> None:
        """Have the tower compute one more layer of an image."""
        digest = image.image.digest
        steps = self._unfinished.pop(digest, None)
        if steps is None:
            inputs = self._inputs.pop(digest)
            steps = self._tower(self._prepare(image.image) if inputs is None else inputs)
        try:
            mx.eval(next(steps))
        except StopIteration as end:
            mx.eval(embeddings := self._with_texts(image.image, end.value.astype(self._dtype)))
            self._embeddings.put(digest, embeddings)
            self.counts.computed += 1
        else:
            self._unfinished[digest] = steps

    def bytes_needed(self, prompt: PromptImages) -> int:
        """Bytes for the images of a prompt that were not seen lately: of their embeddings, and of the tower at one."""
        unseen = {image.image.digest: image for image in prompt.images if image.image.digest not in self._embeddings}
        if not unseen:
            return 0
        vision = self._config["vision_config"]
        hidden = (self._config.get("text_config") or self._config).get("hidden_size", 0)
        numbers = hidden * (1 + len(vision.get("deepstack_visual_indexes") or ()))  # of a token
        embeddings = sum(image.length for image in unseen.values()) * numbers * self._dtype.size
        patches = max(count_patches(vision, self._checked.get(digest) or 0) for digest in unseen)
        return int(embeddings) + peak_bytes(vision, patches, dtype().size)

    def retain(self, prompts: Collection[PromptImages]) -> None:
        """Give up what is unfinished of images that none of these prompts has."""
        digests = {image.image.digest for prompt in prompts for image in prompt.images}
        self._unfinished = {digest: steps for digest, steps in self._unfinished.items() if digest in digests}

    def forget(self) -> None:
        """Free all that is only stored for later."""
        self._embeddings.clear()

    def free(self) -> None:
        """Let go of the tower and of everything computed with it."""
        self.forget()
        self._unfinished.clear()
        self._texts.free()
        self._tower = None

    @cached_property
    def _processor(self) -> Any:
        """What prepares images, made for the first: its modules take long to import. Raises InvalidImage."""
        try:
            processor = self._make_processor()
        except Exception as error:
            raise InvalidImage(f"this model's settings for images cannot be used: {first_line(error)}") from error
        if self.family.limit:
            self.family.limit(processor, self._image_tokens)
        return processor

    def _grid(self, width: int, height: int) -> tuple[int, int]:
        assert self.family.grid is not None
        return self.family.grid(self._config, self._processor, width, height)

    def _layout(self, width: int, height: int) -> Layout:
        if self.family.layout is None:
            return (prod(self._grid(width, height)),)
        return self.family.layout(self._config, self._processor, width, height)

    def _with_texts(self, image: EncodedImage, embeddings: mx.array) -> mx.array:
        if self.family.layout is None:
            return embeddings
        return self._texts.between(self._layout(image.width, image.height), embeddings)

    def _size(self, image: EncodedImage, *, is_small: bool) -> tuple[int, int]:
        """Give the largest size in which an image may be shown, not larger than its own."""
        width, height = image.width, image.height
        if self.family.limit:
            return width, height
        longest = max(width, height)

        def scaled(side: int) -> tuple[int, int]:
            return -(-width * side // longest), -(-height * side // longest)  # rounded up: never without a pixel

        def tokens(side: int) -> int:
            return sum(part for part in self._layout(*scaled(side)) if isinstance(part, int))

        side, most = longest, max(self._image_tokens, tokens(1))  # some models have as many for any size
        if is_small and longest > _SMALL and tokens(_SMALL) < tokens(longest):
            side = _SMALL
        if tokens(side) > most:
            side = bisect_left(range(1, side), x=True, key=lambda side: tokens(side) > most)  # the last that is not
        return scaled(side)

    def _prepare(self, image: EncodedImage) -> Inputs:
        try:
            features = self._processor([images.pixels(image)], return_tensors="np", input_data_format="channels_last")
        except InvalidImage:
            raise
        except ValueError as error:
            raise InvalidImage(f"the image cannot be taken: {str(error)[:100]}", param=image.param) from None
        return {name: np.asarray(value) for name, value in features.items()}


class _Recent(Generic[V]):
    """What was used last, up to so much; the latest stays however large it is. For any thread."""

    def __init__(self, most: int, size: Callable[[V], int]) -> None:
        self.size = 0
        self.most = most
        self._size_of = size
        self._entries: OrderedDict[bytes, V] = OrderedDict()
        self._lock = Lock()

    def __contains__(self, key: bytes) -> bool:
        return key in self._entries

    def get(self, key: bytes) -> V | None:
        with self._lock:
            if key in self._entries:
                self._entries.move_to_end(key)
            return self._entries.get(key)

    def put(self, key: bytes, value: V) -> None:
        self.pop(key)
        with self._lock:
            self._entries[key] = value
            self.size += self._size_of(value)
            while self.size > self.most and len(self._entries) > 1:
                self.size -= self._size_of(self._entries.popitem(last=False)[1])

    def pop(self, key: bytes) -> V | None:
        with self._lock:
            if key not in self._entries:
                return None
            self.size -= self._size_of(value := self._entries.pop(key))
            return value

    def clear(self) -> None:
        with self._lock:
            self._entries.clear()
            self.size = 0
