"""The models that are measured, in float32: the demo model, one with real compute, a real one. Built once each.

No token can end an answer early: the rows of those tokens in the embedding, which is the output layer too, are the mean
of all others, so that none of them is ever the most likely. No request has to say it, and everybody does the same work.
"""

import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from unittest import mock

import numpy as np
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer

from benchmarks import names
from benchmarks.errors import BenchmarkError
from tests import tiny_model
from tests.real import gemma

DEMO_FOLDER = Path(__file__).parents[1] / "app" / "tiles_nano"
TEMPLATE = "chat_template.jinja"
VOCABULARY, LAYERS, HIDDEN = 4096, 8, 512  # of the larger one: 27 million parameters
_VERSION = 6  # of what is built here


@dataclass(frozen=True)
class Model:
    """A model folder and what a client has to know of it."""

    name: str
    folder: Path

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """Its tokenizer, without any framework."""
        return Tokenizer.from_file(str(self.folder / "tokenizer.json"))


def built(name: str, cache: Path) -> Model:
    """Give the model of this name, built when `cache` does not hold it."""
    folder = cache / f"{name.replace(' ', '-')}-{_VERSION}"
    if not (folder / "config.json").exists():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as unfinished:
            made = Path(unfinished) / "model"
            _MAKERS[name](made)
            _silence(Model(name, made))
            made.rename(folder)
    return Model(name, folder)


def _make_demo(folder: Path) -> None:
    shutil.copytree(DEMO_FOLDER, folder, ignore=shutil.ignore_patterns("preprocessor_config.json"))
    if "vision_config" in json.loads((folder / "config.json").read_text()):
        _keep_text(folder)
    _widen(folder)


def _keep_text(folder: Path) -> None:
    """Make a Qwen3 of a Qwen3-VL: text is what is measured."""
    path, config = folder / "model.safetensors", json.loads((folder / "config.json").read_text())
    text = {
        name.replace("model.language_model.", "model."): array
        for name, array in load_file(path).items()
        if not name.startswith("model.visual.")
    }
    save_file(text, path, metadata={"format": "mlx"})
    settings = {name: value for name, value in config["text_config"].items() if name != "rope_scaling"}
    (folder / "config.json").write_text(json.dumps(settings | {"model_type": "qwen3"}))


def _make_larger(folder: Path) -> None:
    # The tiny model's own text has pairs for about a thousand tokens only.
    with mock.patch.object(tiny_model, "TEXT", _english()):
        tiny_model.build(folder, vocab_size=VOCABULARY, layers=LAYERS, hidden=HIDDEN)


def _make_real(folder: Path) -> None:
    """Gemma 3 270M is a base model: its template writes no more than what is said, line after line."""
    if reason := gemma.missing():
        raise BenchmarkError(reason)
    shutil.copytree(gemma.convert(), folder)
    _widen(folder)
    (folder / TEMPLATE).write_text("{{ bos_token }}{% for message in messages %}{{ message.content }}\n{% endfor %}")


def _widen(folder: Path) -> None:
    """Write the weights of a folder in float32."""
    path = folder / "model.safetensors"
    weights = {name: array.astype(np.float32) for name, array in load_file(path).items()}
    save_file(weights, path, metadata={"format": "mlx"})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"torch_dtype": "float32"}))


_MAKERS: dict[str, Callable[[Path], None]] = {
    names.DEMO: _make_demo,
    names.LARGER: _make_larger,
    names.REAL: _make_real,
}


def _silence(model: Model) -> None:
    """Ban what ends an answer or marks a thought or a call, and tokens that are part of a character.

    A stream shows nothing for the latter, so no time could be told.
    """
    size = model.tokenizer.get_vocab_size()
    texts = [model.tokenizer.decode([token]) for token in range(size)]  # of special tokens it is empty
    banned = [token for token, text in enumerate(texts) if "\ufffd" in text or not text]
    banned += [token for token, added in model.tokenizer.get_added_tokens_decoder().items() if not added.special]
    path = model.folder / "model.safetensors"
    weights = load_file(path)
    rows = weights["model.embed_tokens.weight"]
    rows[banned] = np.delete(rows, banned, axis=0).mean(axis=0)
    save_file(weights, path, metadata={"format": "mlx"})


def _english() -> str:
    """The reference of Python's own `help()`: half a million characters that every installation has."""
    from pydoc_data.topics import topics

    return tiny_model.TEXT + "\n".join(topics[name] for name in sorted(topics))
