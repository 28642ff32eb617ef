"""Computes the images of prompts: their embeddings first, a few layers of the tower at a time, then their places."""

import time
from collections.abc import Iterable
from contextlib import nullcontext
from typing import TYPE_CHECKING

from app.services.engine.model.chunk_sizer import ChunkSizer
from app.services.engine.model.language_model import LanguageModel
from app.services.engine.scheduler.row import Row
from app.services.engine.vision.prefill import forward_image
from app.services.engine.vision.prompt_images import PromptImage

if TYPE_CHECKING:  # it imports Pillow, which only models that see need
    from app.services.engine.vision.vision import Vision

_SECONDS = 0.1  # of a tower between two tokens of the rows that are decoded; a layer may take longer
_PATIENCE = 10  # so many times what a chunk takes is what a layer may take


class ImagePrefill:
    """What of prompts is images; nothing is, where a model reads text only."""

    def __init__(self, model: LanguageModel, vision: "Vision | None", chunk_sizer: ChunkSizer) -> None:
        self._model = model
        self._vision = vision
        self._chunk_sizer = chunk_sizer
        self._computed: set[bytes] = set()  # digests of images that were just computed, for a prompt that goes on

    def next_part(self, row: Row, tokens: list[int]) -> tuple[list[int], PromptImage | None]:
        """Give what of a row's next tokens comes before an image, or is of one, which is given too.

        Where the tokens of an image see each other, these are all of it.
        """
        start = row.prefill.length
        end, image = row.images.next_part(start, start + len(tokens))
        if image is not None and self._vision is not None and self._vision.mutual:
            end = image.end
        return row.prefill.tokens[start:end], image

    def compute(self, row: Row, image: PromptImage, tokens: int, budget: int) -> int:
        """Compute the next tokens, which are of an image. Returns how many: 0 while the tower is at it."""
        assert self._vision is not None
        embeddings = self._vision.embeddings(image)
        if embeddings is None:
            self._look(self._vision, image, budget)
            return 0
        self._count(self._vision, image, row.prefill.length)
        start = row.prefill.length - image.start
        positions, mutual = self._vision.positions, self._vision.mutual
        shift, part = row.images.shift(image.start), embeddings[start : start + tokens]
        assert row.prefill.layers is not None
        with (
            self._chunk_sizer.measure(tokens),
            positions.of_image(image, row.prefill.length, tokens, shift) if positions else nullcontext(),
        ):
            forward_image(self._model, row.prefill.layers, self._vision.stand_in, part, mutual)
        return tokens

    def retain(self, rows: Iterable[Row]) -> None:
        """Give up the unfinished images of all other rows."""
        if self._vision is not None:
            images = [row.images for row in rows]
            self._vision.retain(images)
            self._computed &= {image.image.digest for each in images for image in each.images}

    def free(self) -> None:
        """Let go of the model and of what it sees with."""
        del self._model
        if self._vision is not None:
            self._vision.free()

    def _count(self, vision: "Vision", image: PromptImage, length: int) -> None:
        """Count an image whose embeddings were there, once for each prompt that it is computed into."""
        digest = image.image.digest
        if length == image.start and digest not in self._computed:
            vision.counts.cached += 1
        self._computed.discard(digest)

    def _look(self, vision: "Vision", image: PromptImage, budget: int) -> None:
        begin = time.perf_counter()
        while vision.embeddings(image) is None and time.perf_counter() < begin + _SECONDS:
            with self._chunk_sizer.expect(_PATIENCE * budget):
                vision.look(image)
        vision.counts.seconds += time.perf_counter() - begin
        if vision.embeddings(image) is not None:
            self._computed.add(image.image.digest)
