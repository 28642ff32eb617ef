"""A GGUF's tokenizer, chat templates and stop tokens, as the files of an MLX folder."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import msgspec
import numpy as np

from app.services.gguf.tokenizer.content import adds, tokenizer_json
from app.services.gguf.tokenizer.vocabulary import Vocabulary, check, damaged, numbers, text

__all__ = ["check", "write"]

_TEMPLATE = "tokenizer.chat_template"
_SAMPLING = {
    "temp": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
    "min_p": "min_p",
    "penalty_repeat": "repetition_penalty",
}


class _File(Protocol):
    @property
    def metadata(self) -> Mapping[str, Any]: ...


def write(file: _File, folder: Path) -> None:
    """Write tokenizer.json, tokenizer_config.json, generation_config.json and the chat templates that there are.

    Raises LoadFailed, with what was found, for a tokenizer that is not known or not whole.
    """
    vocabulary = Vocabulary(file.metadata)
    templates = {name: _with_bos(template, vocabulary) for name, template in _templates(file.metadata)}
    files: dict[str, Any] = {
        "tokenizer.json": tokenizer_json(vocabulary),
        "tokenizer_config.json": _config(vocabulary),
        "generation_config.json": _generation_config(vocabulary),
    }
    for name, content in files.items():
        (folder / name).write_bytes(msgspec.json.encode(content))
    for name, template in templates.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(template, encoding="utf-8", newline="")


def _templates(metadata: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Give the chat templates by the path that transformers looks for. The names come from the file, so are checked."""
    templates = [("chat_template.jinja", text(metadata, _TEMPLATE))] if _TEMPLATE in metadata else []
    for key in metadata:
        if not key.startswith(f"{_TEMPLATE}."):
            continue
        name = key.removeprefix(f"{_TEMPLATE}.")
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name):
            raise damaged(f"its chat template has the name {name[:80]!r}, which is not one")
        templates.append((f"additional_chat_templates/{name}.jinja", text(metadata, key)))
    return templates


def _with_bos(template: str, vocabulary: Vocabulary) -> str:
    """Give a template that begins with the BOS token, if the file adds one and the template does not write it itself.

    transformers leaves that token to the template; llama.cpp adds it to every prompt that does not begin with it.
    """
    bos = vocabulary.special("bos")
    writes_bos = bos is None or "bos_token" in template or vocabulary.tokens[bos] in template
    return template if writes_bos or not adds(vocabulary)[0] else "{{ bos_token }}" + template


def _config(vocabulary: Vocabulary) -> dict[str, Any]:
    names = {"bos": "bos_token", "eos": "eos_token", "unknown": "unk_token", "padding": "pad_token"}
    tokens = {
        key: vocabulary.tokens[token] for name, key in names.items() if (token := vocabulary.special(name)) is not None
    }
    return {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False, **tokens}


def _generation_config(vocabulary: Vocabulary) -> dict[str, Any]:
    """Give the tokens that end an answer, those that never stand in one, and the sampling that the file advises."""
    metadata = vocabulary.metadata
    config: dict[str, Any] = {"eos_token_id": vocabulary.stop_tokens}
    suppressed = [int(token) for token in numbers(metadata, "tokenizer.ggml.suppress_tokens")]
    if tokens := [token for token in suppressed if 0 <= token < len(vocabulary.tokens)]:
        config["suppress_tokens"] = tokens
    for key, field in _SAMPLING.items():
        value = metadata.get(f"general.sampling.{key}")
        if isinstance(value, str | list | np.ndarray):
            raise damaged(f"general.sampling.{key} is no number")
        config |= {} if value is None else {field: value}
    return config
