"""Batches of questions about pictures: tokens, patches, places, and what is trained on."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from tokenizers import AddedToken, Tokenizer
from torch import Tensor

from demo_model.batches import IGNORED, Encoder, Example, room
from demo_model.conversation import Conversation
from demo_model.source import Source
from demo_vision import questions, scenes
from demo_vision.network import VisionShape, patches, positions
from demo_vision.questions import Question

TOKENS = ("<|vision_start|>", "<|image_pad|>", "<|vision_end|>")
_FIRST = 0.7  # of the pictures stand before their question, as the Web UI sends them


@dataclass(frozen=True)
class Picture:
    """A question as token ids, with its picture as patches and the places of its tokens."""

    example: Example
    patches: np.ndarray
    places: np.ndarray
    grid: tuple[int, int]


@dataclass(frozen=True)
class PictureBatch:
    """Rows of ids (batch, length) with an image each; the flat places to predict from, and their targets."""

    ids: Tensor
    images: Tensor
    grid: tuple[int, int]
    positions: Tensor
    places: Tensor
    targets: Tensor
    kinds: list[str]


def with_image_tokens(tokenizer: Tokenizer) -> Tokenizer:
    """Add the tokens of images behind the others."""
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in TOKENS])
    return tokenizer


class PictureEncoder:
    """Turns questions into pictures with tokens."""

    def __init__(self, encoder: Encoder, shape: VisionShape) -> None:
        self.encoder, self.shape = encoder, shape
        token = encoder.tokenizer.token_to_id(TOKENS[1])
        assert token is not None
        self.image_token: int = token

    def picture(self, source: Source, question: Question) -> Picture:
        """Draw a question's scene and write it as a conversation."""
        pixels = scenes.pixels(scenes.draw(source, question.scene))
        grid = pixels.shape[0] // self.shape.side, pixels.shape[1] // self.shape.side
        image = f"{TOKENS[0]}{TOKENS[1] * (grid[0] * grid[1])}{TOKENS[2]}"
        content = f"{image}{question.text}" if source.chance(_FIRST) else f"{question.text}{image}"
        talk = Conversation(question.kind).user(content).answer(question.answer, "")
        example = self.encoder.example(talk)
        return Picture(example, patches(pixels, self.shape), positions(example.ids, grid, self.image_token), grid)


def collate(pictures: list[Picture]) -> PictureBatch:
    """Pad pictures of one size on the right."""
    length = room(max(len(one.example.ids) for one in pictures))
    ids = np.zeros((len(pictures), length), dtype=np.int64)
    trained = np.zeros((len(pictures), length), dtype=bool)
    places = np.zeros((3, len(pictures), length), dtype=np.int64)
    for row, one in enumerate(pictures):
        count = len(one.example.ids)
        ids[row, :count], trained[row, :count] = one.example.ids, one.example.trained
        places[:, row, :count] = one.places
    rows, columns = np.nonzero(trained)
    flat, targets = rows * length + columns - 1, ids[rows, columns]
    spare = -len(flat) % 64
    flat, targets = np.pad(flat, (0, spare)), np.pad(targets, (0, spare), constant_values=IGNORED)
    return PictureBatch(
        torch.from_numpy(ids),
        torch.from_numpy(np.stack([one.patches for one in pictures])),
        pictures[0].grid,
        torch.from_numpy(places),
        torch.from_numpy(flat),
        torch.from_numpy(targets),
        [one.example.kind for one in pictures],
    )


def grouped(pictures: list[Picture], size: int) -> Iterator[list[Picture]]:
    """Groups of pictures of one size, `size` at most."""
    by_grid: dict[tuple[int, int], list[Picture]] = {}
    for picture in pictures:
        group = by_grid.setdefault(picture.grid, [])
        group.append(picture)
        if len(group) == size:
            yield by_grid.pop(picture.grid)
    yield from by_grid.values()


class PictureFeed:
    """An endless, seeded stream of batches."""

    def __init__(self, encoder: PictureEncoder, source: Source, size: int) -> None:
        self.encoder, self.source, self.size = encoder, source, size
        self.ready: list[list[Picture]] = []

    def next(self) -> PictureBatch:
        """The next batch."""
        if not self.ready:
            made = [self.encoder.picture(self.source, questions.question(self.source)) for _ in range(8 * self.size)]
            self.ready = list(grouped(made, self.size))
            self.source.rng.shuffle(self.ready)
        return collate(self.ready.pop())
