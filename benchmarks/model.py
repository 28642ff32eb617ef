"""The models that are measured: random weights in float32, a real tokenizer, built once into a cache folder."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from unittest import mock

from tokenizers import Tokenizer

from app.services import demo

VOCABULARY = 4096
BANNED = -100.0  # the logit bias of tokens that would end an answer early or open a thought or a tool call


@dataclass(frozen=True)
class Size:
    """How large a model is."""

    name: str
    layers: int
    hidden: int


SIZES = {size.name: size for size in (Size("tiny", layers=4, hidden=128), Size("25M", layers=8, hidden=512))}


@dataclass(frozen=True)
class Model:
    """A model folder and what a client has to know of it."""

    name: str
    folder: Path

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """Its tokenizer, without any framework."""
        return Tokenizer.from_file(str(self.folder / "tokenizer.json"))

    @cached_property
    def logit_bias(self) -> dict[str, float]:
        """What lets every answer run to its length."""
        ids = (self.tokenizer.token_to_id(token) for token in (*demo.SPECIAL, *demo.MARKUP))
        return {str(token): BANNED for token in ids}


def built(name: str, cache: Path) -> Model:
    """Give the model of this name, built when `cache` does not hold it."""
    size = SIZES[name]
    folder = cache / f"bench-{name}-{size.layers}x{size.hidden}-{VOCABULARY}"
    # The demo's own text has pairs for about a thousand tokens only.
    with mock.patch.object(demo, "TEXT", _english()):
        demo.build(folder, vocab_size=VOCABULARY, layers=size.layers, hidden=size.hidden)
    model = Model(name, folder)
    assert model.tokenizer.get_vocab_size() == VOCABULARY
    return model


def _english() -> str:
    """The reference of Python's own `help()`: half a million characters that every installation has."""
    from pydoc_data.topics import topics

    return demo.TEXT + "\n".join(topics[name] for name in sorted(topics))
