"""Batches of conversations: tokens, and the places in them that are trained on."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from demo_model.conversation import Conversation
from demo_model.forced import forced
from demo_model.mixture import Mixture, draw, repeated_share, stage
from demo_model.source import Source
from demo_model.template import Template
from demo_model.tokenization import SPECIAL, TAGS, scattered, token_id

LONGEST = 3584
BUFFER = 384
SCATTERED = 32  # tokenizers that spell other words in pieces
SCATTERED_SHARE = 0.4  # of the conversations are cut by one of them
IGNORED = -100


@dataclass(frozen=True)
class Example:
    """A conversation as token ids; `trained` marks those that the model must produce itself."""

    ids: list[int]
    trained: list[bool]
    kind: str


@dataclass(frozen=True)
class Batch:
    """Rows of ids (batch, length), the flat places to predict from, and their targets; spare ones are ignored."""

    ids: Tensor
    places: Tensor
    targets: Tensor


class Encoder:
    """Turns conversations into examples."""

    def __init__(self, tokenizer: Tokenizer, template: Template) -> None:
        self.tokenizer, self.template = tokenizer, template
        self.start, self.end, self.think = (token_id(tokenizer, t) for t in ("<|im_start|>", "<|im_end|>", "<think>"))
        self.assistant = tokenizer.encode("assistant").ids
        self.plain = range(len(SPECIAL + TAGS), tokenizer.get_vocab_size())
        self.scattered = [scattered(tokenizer, Source(f"scattered {i}")) for i in range(SCATTERED)]

    def example(self, talk: Conversation, tokenizer: Tokenizer | None = None) -> Example:
        """The tokens of a conversation; answers are trained on, of a thinking one only the last.

        Of structured answers, what a grammar forces is not trained on.
        """
        text = self.template.render(talk)
        encoding = (tokenizer or self.tokenizer).encode(text)
        ids = encoding.ids
        spans = list(self.answers(ids))
        if talk.thinking:
            # the prompt opens the thought, so the tag and its line break are given
            spans = [(spans[-1][0] + 2, spans[-1][1])]
        trained = [False] * len(ids)
        for first, last in spans:
            trained[first:last] = [True] * (last - first)
            if talk.schema is not None:
                for place in forced(text, encoding.offsets[first:last]):
                    trained[first + place] = False
        return Example(ids, trained, "thinking" if talk.thinking else talk.kind)

    def answers(self, ids: list[int]) -> Iterator[tuple[int, int]]:
        """First and one past the last token of each answer, its end token included."""
        head = [self.start, *self.assistant]
        for i, token in enumerate(ids):
            if token == self.start and ids[i : i + len(head)] == head:
                first = i + len(head) + 1
                yield first, ids.index(self.end, first) + 1


def repetition(source: Source, vocabulary: range) -> Example:
    """Random tokens in chunks that come again in any order: whoever knows a chunk's start can copy the rest."""
    chunks = [
        [source.any(vocabulary) for _ in range(source.rng.randint(3, 12))] for _ in range(source.rng.randint(2, 8))
    ]
    ids = [token for chunk in chunks for token in chunk]
    trained = [False] * len(ids)
    for chunk in source.rng.choices(chunks, k=source.rng.randint(len(chunks), 3 * len(chunks))):
        ids, trained = ids + chunk, trained + [False] + [True] * (len(chunk) - 1)
    return Example(ids, trained, "repetition")


def room(length: int) -> int:
    """The row length for a conversation: few different ones, since the CPU prepares its kernels per shape."""
    step = 32 if length <= 512 else 128 if length <= 1536 else 512
    return -(-length // step) * step


def collate(examples: list[Example]) -> Batch:
    """Pad examples on the right, which causal attention never sees."""
    length = room(max(len(e.ids) for e in examples))
    ids = np.zeros((len(examples), length), dtype=np.int64)
    trained = np.zeros((len(examples), length), dtype=bool)
    for row, e in enumerate(examples):
        ids[row, : len(e.ids)], trained[row, : len(e.ids)] = e.ids, e.trained
    rows, columns = np.nonzero(trained)
    places, targets = rows * length + columns - 1, ids[rows, columns]
    spare = -len(places) % 256
    places, targets = np.pad(places, (0, spare)), np.pad(targets, (0, spare), constant_values=IGNORED)
    return Batch(torch.from_numpy(ids), torch.from_numpy(places), torch.from_numpy(targets))


def grouped(examples: list[Example], tokens: int) -> list[list[Example]]:
    """Groups of like length that fill at most `tokens` places each."""
    groups: list[list[Example]] = [[]]
    for e in sorted(examples, key=lambda e: len(e.ids)):
        if groups[-1] and (len(groups[-1]) + 1) * room(len(e.ids)) > tokens:
            groups.append([])
        groups[-1].append(e)
    return groups


def answers(targets: Tensor, end: int) -> Iterator[slice]:
    """Give where the targets of each answer stand, which are up to its end token."""
    first = 0
    for last in (targets == end).nonzero().flatten().tolist():
        yield slice(first, last + 1)
        first = last + 1


class Feed:
    """An endless, seeded stream of batches."""

    def __init__(self, encoder: Encoder, source: Source, tokens: int) -> None:
        self.encoder, self.source, self.tokens = encoder, source, tokens
        self.ready: list[list[Example]] = []

    def next(self, progress: float) -> Batch:
        """The next batch for that share of the training."""
        if not self.ready:
            mixture = stage(progress)
            made = [self._example(mixture, repeated_share(progress)) for _ in range(BUFFER)]
            self.ready = grouped([e for e in made if len(e.ids) <= LONGEST], self.tokens)
            self.source.rng.shuffle(self.ready)
        return collate(self.ready.pop())

    def _example(self, mixture: Mixture, repeated: float) -> Example:
        if self.source.chance(repeated):
            return repetition(self.source, self.encoder.plain)
        cut = self.source.any(self.encoder.scattered) if self.source.chance(SCATTERED_SHARE) else None
        return self.encoder.example(draw(self.source, mixture), cut)
