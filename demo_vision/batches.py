"""Batches of questions about pictures: tokens, patches, places, and what is trained on."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from tokenizers import AddedToken, Tokenizer
from torch import Tensor

from demo_model.batches import IGNORED, Encoder, Example, room
from demo_model.conversation import Conversation
from demo_model.source import Source
from demo_model.tokenization import token_id
from demo_model.topics_chat import greeting
from demo_model.webui_tools import DATETIME, INFO, browser_tool
from demo_vision import files, questions, scenes
from demo_vision.network import VisionShape, patches, positions, token_by_token
from demo_vision.questions import Question
from demo_vision.scenes import Scene

_APART = "<|endoftext|>"  # stands between letters that are to be tokens of their own, and is left out then
TOKENS = ("<|vision_start|>", "<|image_pad|>", "<|vision_end|>")
_POOL = 40  # batches that are made at once, so that pictures of a size and questions of a length come together
_FROM_FILES = 0.15  # of the conversations are about pictures that come from an agent's tool that reads files
_ANOTHER = 0.1  # of the conversations go on about another picture
_GREETED = 0.08  # of the conversations begin with a greeting
_BROWSER = 0.08  # of the conversations have the tools that the Web UI offers by itself
_FIRST = 0.7  # of the pictures stand before their question, as the Web UI sends them


class Drawn(NamedTuple):
    """A picture as patches (patches, numbers), with what is in each, and the rows and columns of its tokens."""

    patches: np.ndarray
    contents: np.ndarray
    grid: tuple[int, int]


def drawing(source: Source, scene: Scene, shape: VisionShape) -> Drawn:
    """Draw a scene for the network."""
    image, contents = scenes.draw(source, scene)
    pixels = scenes.pixels(image)
    grid = pixels.shape[0] // shape.side, pixels.shape[1] // shape.side
    return Drawn(patches(pixels, shape), token_by_token(contents, shape.spatial_merge_size).astype(np.int64), grid)


def _stacked(drawn: list[Drawn]) -> tuple[np.ndarray, np.ndarray]:
    """Patches (pictures, patches, numbers) of pictures of one size, and what is in them (pictures, patches)."""
    return np.stack([one.patches for one in drawn]), np.stack([one.contents for one in drawn])


@dataclass(frozen=True)
class Picture:
    """A conversation as token ids, with its pictures (pictures, patches, numbers) and the places of its tokens."""

    example: Example
    patches: np.ndarray
    contents: np.ndarray  # of the patches (pictures, patches)
    places: np.ndarray
    grid: tuple[int, int]


P = TypeVar("P", Drawn, Picture)


@dataclass(frozen=True)
class PictureBatch:
    """Rows of ids (batch, length), their images in order, the flat places to predict from, and their targets."""

    ids: Tensor
    images: Tensor
    contents: Tensor
    grid: tuple[int, int]
    positions: Tensor
    places: Tensor
    targets: Tensor
    kinds: list[str]


def with_image_tokens(tokenizer: Tokenizer) -> Tokenizer:
    """Add the tokens of images behind the others."""
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in TOKENS])
    return tokenizer


def _letter_by_letter(question: Question) -> str:
    """An answer whose word has a token for each letter, as the tower sees them; none of larger parts is learnt."""
    word = question.scene.text
    if question.kind != "words":
        return question.answer
    return f"{question.answer.removesuffix(f'{word}.')}{_APART.join(word)}."


class PictureEncoder:
    """Turns questions into pictures with tokens."""

    def __init__(self, encoder: Encoder, shape: VisionShape) -> None:
        self.encoder, self.shape = encoder, shape
        self.image_token = token_id(encoder.tokenizer, TOKENS[1])
        self.apart = token_id(encoder.tokenizer, _APART)

    def picture(
        self, source: Source, *asked: list[Question], opening: Conversation | None = None, is_file: bool = False
    ) -> Picture:
        """Draw the scene of each list of questions, all of one size, and write them as a conversation.

        It goes on from `opening`; the pictures come from the user, or from files that a tool reads.
        """
        talk = Conversation(asked[0][0].kind).extend(opening or Conversation(""))
        drawn = [drawing(source, first.scene, self.shape) for first, *_ in asked]
        grid = drawn[0].grid
        for first, *others in asked:
            image = f"{TOKENS[0]}{TOKENS[1] * (grid[0] * grid[1])}{TOKENS[2]}"
            if is_file:
                read = files.read(source, first, image)
                talk = talk.extend(read) if talk.messages else read
            else:
                talk.user(f"{image}{first.text}" if source.chance(_FIRST) else f"{first.text}{image}")
            talk.answer(_letter_by_letter(first), "")
            for question in others:
                talk.user(question.text).answer(_letter_by_letter(question), "")
        example = self._joined(self.encoder.example(talk))
        places = positions(example.ids, grid, self.image_token)
        return Picture(example, *_stacked(drawn), places, grid)

    def _joined(self, example: Example) -> Example:
        """Without what kept letters apart."""
        kept = [place for place, token in enumerate(example.ids) if token != self.apart]
        return replace(example, ids=[example.ids[i] for i in kept], trained=[example.trained[i] for i in kept])

    def conversation(self, source: Source) -> Picture:
        """Any conversation about a picture, now and then about another one after it."""
        is_file = source.chance(_FROM_FILES)
        asked = [questions.conversation(source, is_file=is_file)]
        while source.chance(_ANOTHER) and len(asked) < 3:
            other = questions.conversation(source, is_file=is_file)
            while other[0].scene.size != asked[0][0].scene.size:
                other = questions.conversation(source, is_file=is_file)
            asked.append(other)
        opening = Conversation("")
        if source.chance(_BROWSER):
            opening.tools += [browser_tool(source, name) for name in (DATETIME, INFO)]
        if source.chance(_GREETED):
            opening.extend(greeting(source))
        return self.picture(source, *asked, opening=opening, is_file=is_file)


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
        torch.from_numpy(np.concatenate([one.contents for one in pictures])),
        pictures[0].grid,
        torch.from_numpy(places),
        torch.from_numpy(flat),
        torch.from_numpy(targets),
        [one.example.kind for one in pictures],
    )


def grouped(pictures: Iterable[P], size: int) -> Iterator[list[P]]:
    """Groups of pictures of one size, `size` at most."""
    by_grid: dict[tuple[int, int], list[P]] = {}
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


class SceneFeed:
    """An endless, seeded stream of pictures of one size that nothing is asked about."""

    def __init__(self, shape: VisionShape, source: Source, size: int) -> None:
        self.shape, self.source, self.size = shape, source, size
        self.groups = grouped(self._drawn(), size)

    def _drawn(self) -> Iterator[Drawn]:
        while True:
            yield drawing(self.source, questions.question(self.source).scene, self.shape)

    def next(self) -> tuple[Tensor, Tensor, tuple[int, int]]:
        """Images, what is in their patches, and the rows and columns of their tokens."""
        group = next(self.groups)
        images, contents = _stacked(group)
        return torch.from_numpy(images), torch.from_numpy(contents), group[0].grid
