"""Computes the images of prompts: their embeddings first, a few layers of the tower at a time, then their places."""

import time
from collections.abc import Iterable
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from app.services.engine.model.chunk_sizer import ChunkSizer
from app.services.engine.scheduler.row import Row
from app.services.engine.vision.prefill import forward_image
from app.services.engine.vision.prompt_images import PromptImage

if TYPE_CHECKING:  # it imports Pillow, which only models that see need
    from app.services.engine.vision.vision import Vision

_SECONDS = 0.1  # of a tower between two tokens of the rows that are decoded; a layer may take longer
_PATIENCE = 10  # so many times what a chunk takes is what a layer may take


class ImagePrefill:
    """What of prompts is images; nothing is, where a model reads text only."""

    def __init__(self, model: Any, vision: "Vision | None", chunk_sizer: ChunkSizer) -> None:
        self._model = model
        self._vision = vision
        self._chunk_sizer = chunk_sizer

    def next_part(self, row: Row, tokens: list[int]) -> tuple[list[int], PromptImage | None]:
        """Give what of a row's next tokens comes before an image, or is of one, which is given too.

        Where the tokens of an image see each other, these are all of it.
        """
        start = row.prefill.length
        end, image = row.images.next_part(start, start + len(tokens))
        if image is not None and self._vision is not None and self._vision.family.is_mutual:
            end = image.end
        return row.prefill.tokens[start:end], image

    def compute(self, row: Row, image: PromptImage, tokens: int, budget: int) -> int:
        """Compute the next tokens, which are of an image. Returns how many: 0 while the tower is at it."""
        assert self._vision is not None
        embeddings = self._vision.embeddings(image)
        if embeddings is None:
            self._look(self._vision, image, budget)
            return 0
        start = row.prefill.length - image.start
        positions, is_mutual = self._vision.positions, self._vision.family.is_mutual
        shift, part = row.images.shift(image.start), embeddings[start : start + tokens]
        with (
            self._chunk_sizer.measure(tokens),
            positions.of_image(image, row.prefill.length, tokens, shift) if positions else nullcontext(),
        ):
            forward_image(self._model, row.prefill.layers or [], self._vision.placeholder, part, is_mutual=is_mutual)
        return tokens

    def retain(self, rows: Iterable[Row]) -> None:
        """Give up the unfinished images of all other rows."""
        if self._vision is not None:
            self._vision.retain([row.images for row in rows])

    def free(self) -> None:
        """Let go of the model and of what it sees with."""
        self._model = None
        if self._vision is not None:
            self._vision.free()

    def _look(self, vision: "Vision", image: PromptImage, budget: int) -> None:
        end = time.perf_counter() + _SECONDS
        while vision.embeddings(image) is None and time.perf_counter() < end:
            with self._chunk_sizer.expect(_PATIENCE * budget):
                vision.look(image)
