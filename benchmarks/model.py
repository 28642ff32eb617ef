"""The models that are measured: random weights in float32, a real tokenizer, built once into a cache folder."""

import tempfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from unittest import mock

from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer

from tests import tiny_model

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
        ids = (self.tokenizer.token_to_id(token) for token in (*tiny_model.SPECIAL, *tiny_model.MARKUP))
        return {str(token): BANNED for token in ids}


def built(name: str, cache: Path) -> Model:
    """Give the model of this name, built when `cache` does not hold it."""
    size = SIZES[name]
    folder = cache / f"bench-{name}-{size.layers}x{size.hidden}-{VOCABULARY}"
    if not (folder / "config.json").exists():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as unfinished:
            _build(size, Path(unfinished) / "model").rename(folder)
    return Model(name, folder)


def _build(size: Size, folder: Path) -> Path:
    # The demo's own text has pairs for about a thousand tokens only.
    with mock.patch.object(tiny_model, "TEXT", _english()):
        tiny_model.build(folder, vocab_size=VOCABULARY, layers=size.layers, hidden=size.hidden)
    _silence_bytes(Model(size.name, folder))
    return folder


def _silence_bytes(model: Model) -> None:
    """Zero the rows of tokens that are part of a character: a stream shows nothing for them, so no time could be told.

    A random model would draw them often; beside the logits of 4,000 others a zero is never the greatest.
    """
    assert model.tokenizer.get_vocab_size() == VOCABULARY
    texts = [model.tokenizer.decode([token]) for token in range(VOCABULARY)]
    parts = [token for token, text in enumerate(texts) if "\ufffd" in text or not text]
    path = model.folder / "model.safetensors"
    weights = load_file(path)
    weights["model.embed_tokens.weight"][parts] = 0
    save_file(weights, path, metadata={"format": "mlx"})


def _english() -> str:
    """The reference of Python's own `help()`: half a million characters that every installation has."""
    from pydoc_data.topics import topics

    return tiny_model.TEXT + "\n".join(topics[name] for name in sorted(topics))
