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
from demo_model.topics_chat import greeting
from demo_vision import files, questions, scenes
from demo_vision.network import VisionShape, patches, positions
from demo_vision.questions import Question

TOKENS = ("<|vision_start|>", "<|image_pad|>", "<|vision_end|>")
_POOL = 40  # batches that are made at once, so that pictures of a size and questions of a length come together
_FROM_FILES = 0.08  # of the pictures come from an agent's tool that reads files
_ANOTHER = 0.1  # of the conversations go on about another picture
_GREETED = 0.08  # of the conversations begin with a greeting
_FIRST = 0.7  # of the pictures stand before their question, as the Web UI sends them


@dataclass(frozen=True)
class Picture:
    """A conversation as token ids, with its pictures (pictures, patches, numbers) and the places of its tokens."""

    example: Example
    patches: np.ndarray
    places: np.ndarray
    grid: tuple[int, int]


@dataclass(frozen=True)
class PictureBatch:
    """Rows of ids (batch, length), their images in order, the flat places to predict from, and their targets."""

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

    def picture(
        self, source: Source, *asked: list[Question], opening: Conversation | None = None, from_files: float = 0.0
    ) -> Picture:
        """Draw the scene of each list of questions, all of one size, and write them as a conversation.

        It goes on from `opening`; a share of the pictures comes from the files that a tool reads.
        """
        talk, drawn = Conversation(asked[0][0].kind).extend(opening or Conversation("")), []
        for first, *others in asked:
            pixels = scenes.pixels(scenes.draw(source, first.scene))
            drawn.append(patches(pixels, self.shape))
            grid = pixels.shape[0] // self.shape.side, pixels.shape[1] // self.shape.side
            image = f"{TOKENS[0]}{TOKENS[1] * (grid[0] * grid[1])}{TOKENS[2]}"
            if source.chance(from_files):
                read = files.read(source, first, image)
                talk = talk.extend(read) if talk.messages else read
            else:
                talk.user(f"{image}{first.text}" if source.chance(_FIRST) else f"{first.text}{image}")
            talk.answer(first.answer, "")
            for question in others:
                talk.user(question.text).answer(question.answer, "")
        example = self.encoder.example(talk)
        places = positions(example.ids, grid, self.image_token)
        return Picture(example, np.stack(drawn), places, grid)

    def conversation(self, source: Source) -> Picture:
        """Any conversation about a picture, now and then about another one after it."""
        asked = [questions.conversation(source)]
        while source.chance(_ANOTHER) and len(asked) < 3:
            other = questions.conversation(source)
            while other[0].scene.size != asked[0][0].scene.size:
                other = questions.conversation(source)
            asked.append(other)
        opening = greeting(source) if source.chance(_GREETED) else None
        return self.picture(source, *asked, opening=opening, from_files=_FROM_FILES)


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
        torch.from_numpy(np.concatenate([one.patches for one in pictures])),
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
    """An endless, seeded stream of batches, each of pictures of one size and of conversations as long."""

    def __init__(self, encoder: PictureEncoder, source: Source, size: int) -> None:
        self.encoder, self.source, self.size = encoder, source, size
        self.ready: list[list[Picture]] = []
        self.waiting: list[Picture] = []

    def next(self) -> PictureBatch:
        """The next batch."""
        while not self.ready:
            self.waiting += [self.encoder.conversation(self.source) for _ in range(_POOL * self.size)]
            self.waiting.sort(key=lambda picture: len(picture.example.ids))
            groups = list(grouped(self.waiting, self.size))
            self.ready = [group for group in groups if len(group) == self.size]
            self.waiting = [picture for group in groups if len(group) < self.size for picture in group]
            self.source.rng.shuffle(self.ready)
        return collate(self.ready.pop())
