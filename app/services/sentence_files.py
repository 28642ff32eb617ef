"""Encoders, and the files that sentence-transformers puts beside a model: pooling, prompts, the longest text."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from app.services import hub
from app.services.context_length import ContextLength
from app.services.files import bad, read_object, read_objects
from app.services.model_folder import Task

Mode = Literal["cls", "max", "mean", "mean_sqrt_len", "weightedmean", "last"]

# By the model_type of config.json: whether positions begin after the padding token's id, as RoBERTa's do.
TYPES = {
    "bert": False,
    "roberta": True,
    "xlm-roberta": True,
    "camembert": True,
    "mpnet": True,
    "distilbert": False,
    "modernbert": False,
}
_BODIES = ("Model", "ForMaskedLM", "ForPreTraining", "ForCausalLM", "LMHeadModel")
_MODES: Mapping[str, Mode] = {  # in the order in which several are joined
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "last",
}
_NAMES: Mapping[str, Mode] = {  # of newer files
    "cls": "cls",
    "max": "max",
    "mean": "mean",
    "mean_sqrt_len_tokens": "mean_sqrt_len",
    "weightedmean": "weightedmean",
    "lasttoken": "last",
}
_RERANKER = "qwen3-reranker"
_README = 2**14  # characters of it that are looked at
_NO_MODULE = "Transformer", "Normalize"  # the model itself; vectors get the length that a request asks for


@dataclass(frozen=True, slots=True)
class SentenceFiles:
    """How a text becomes a vector, as far as the files of a model say it."""

    pooling: tuple[Mode, ...] = ()  # whose vectors are joined; none where no file says it
    include_prompt: bool = True  # whether the tokens of a prompt count
    dense: tuple[Path, ...] = ()  # folders of layers that the pooled vector goes through
    max_tokens: int | None = None
    prompts: Mapping[str, str] = field(default_factory=dict)  # that are put before a text, by name
    default_prompt: str | None = None  # the name of the one that goes before a text where a request names none


def task(config: Mapping[str, Any], path: Path) -> Task | None:
    """Say what an encoder is for, by its config.json at this path; None where it is no encoder.

    Raises LoadFailed for one that sorts texts or tokens into several classes.
    """
    if config.get("model_type") not in TYPES:
        return None
    names = config.get("architectures")
    name = names[0] if isinstance(names, list) and names and isinstance(names[0], str) else "Model"
    if name.endswith("ForSequenceClassification"):
        if (labels := _labels(config)) != 1:
            raise bad(path, f"is that of a classifier with {labels} classes; a model that ranks documents has one.")
        return "rerank"
    if not name.endswith(_BODIES):
        raise bad(path, f"is that of {name}, which makes no vectors of texts.")
    return "embedding"


def task_of_writer(folder: Path, config: Mapping[str, Any]) -> Task:
    """Say what a model that writes was made for, as far as its files tell.

    Nothing but names and the README tells Qwen3-Reranker from Qwen3.
    """
    if (folder / "modules.json").exists():
        return "embedding"
    if str(config["model_type"]).startswith("qwen3"):
        names = f"{hub.owner(folder) or folder.name} {config.get('_name_or_path')}"
        if _RERANKER in names.lower() or re.search(rf"^# .*{_RERANKER}", _readme(folder), re.MULTILINE | re.IGNORECASE):
            return "rerank"
    return "completion"


def context(folder: Path, config: Mapping[str, Any]) -> ContextLength:
    """Give how many tokens of a text an encoder reads."""
    tokens, source = _count(config.get("max_position_embeddings")), "max_position_embeddings in config.json"
    if not tokens:
        tokens, source = 512, "assumed"
    if TYPES[str(config["model_type"])]:
        tokens -= _padding(config) + 1
    own = read_settings(folder).max_tokens
    if own is not None and own <= tokens:
        tokens, source = own, "max_seq_length in sentence_bert_config.json"
    return ContextLength(tokens, tokens, source)


def read(folder: Path) -> SentenceFiles:
    """Read all of them. Raises LoadFailed for a model that has parts which this server does not know."""
    if not (folder / "modules.json").exists():
        return read_settings(folder)
    settings = read_settings(folder)
    dense = []
    for module in read_objects(folder / "modules.json"):
        name, path = str(module.get("type", "")).rpartition(".")[2], folder / str(module.get("path", ""))
        if name == "Dense":
            dense.append(path)
        elif name not in (*_NO_MODULE, "Pooling"):
            raise bad(folder / "modules.json", f"has a part of type {name or '?'}, which this server does not know.")
    return replace(settings, dense=tuple(dense))


def read_settings(folder: Path) -> SentenceFiles:
    """Read pooling, prompts and the longest text, as far as they are there and make sense."""
    pooling = _optional(folder / "1_Pooling" / "config.json")
    names = _optional(folder / "config_sentence_transformers.json")
    prompts = names.get("prompts")
    texts = {name: text for name, text in prompts.items() if isinstance(text, str)} if isinstance(prompts, dict) else {}
    default = names.get("default_prompt_name")
    longest = _optional(folder / "sentence_bert_config.json").get("max_seq_length")
    return SentenceFiles(
        pooling=_pooling(pooling),
        include_prompt=pooling.get("include_prompt") is not False,
        max_tokens=_count(longest) or None,
        prompts=texts,
        default_prompt=default if isinstance(default, str) and default in texts else None,
    )


def _pooling(config: Mapping[str, Any]) -> tuple[Mode, ...]:
    named = config.get("pooling_mode")
    if named is not None:
        names = named if isinstance(named, list) else [named]
        return tuple(_NAMES[name] for name in names if isinstance(name, str) and name in _NAMES)
    return tuple(mode for key, mode in _MODES.items() if config.get(key) is True)


def _readme(folder: Path) -> str:
    try:
        with (folder / "README.md").open(encoding="utf-8", errors="replace") as file:
            return file.read(_README)
    except OSError:
        return ""


def _labels(config: Mapping[str, Any]) -> int:
    labels = config.get("id2label")
    if isinstance(labels, dict):
        return len(labels)
    number = config.get("num_labels")
    return number if isinstance(number, int) else 2  # transformers' default


def _padding(config: Mapping[str, Any]) -> int:
    padding = config.get("pad_token_id")
    return padding if isinstance(padding, int) else 1


def _count(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0


def _optional(path: Path) -> dict[str, Any]:
    return read_object(path) if path.exists() else {}
