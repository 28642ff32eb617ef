"""The classes of text models: mlx-lm's, and those of families that see of which it reads no checkpoint."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import mlx.core as mx
from mlx_lm.models import mistral3
from mlx_lm.utils import _get_classes

from app.services import sentence_files
from app.services.engine.cache.footprint import Footprint, measure, why_not_rounded
from app.services.facts import KVBits

Weights = Mapping[str, mx.array]


def model_classes(config: Mapping[str, Any]) -> tuple[Any, Any]:
    """Give the class of a model and that of its arguments, as mlx-lm's `_get_classes` does for those that it has."""
    if config["model_type"] in ("idefics3", "smolvlm"):
        return _LlamaThatSees, _LlamaArguments
    if config["model_type"] in ("lfm2-vl", "lfm2_vl"):
        return _lfm2_classes()
    classes: tuple[Any, Any] = _get_classes(dict(config))
    return classes


def footprint_of(config: Mapping[str, Any], dtype: mx.Dtype, kv_bits: KVBits | None = None) -> Footprint:
    """Measure the model of a config.json without its weights: what `measure` finds once it is loaded in this dtype.

    mlx-lm fills the weights of a new model only when something is computed with them, and here nothing is. An encoder
    has no cache.
    """
    if config.get("model_type") in sentence_files.TYPES:
        return Footprint(0, {})
    model_class, arguments = model_classes(config)
    model = model_class(arguments.from_dict(dict(config)))
    model.set_dtype(dtype)
    return measure(model, None if why_not_rounded(model) else kv_bits)


@dataclass
class _LlamaArguments(mistral3.ModelArgs):
    tie_word_embeddings: bool = False

    def __post_init__(self) -> None:
        self.text_config.setdefault("tie_word_embeddings", self.tie_word_embeddings)


class _LlamaThatSees(mistral3.Model):
    """Llama, within a model whose tower is left out."""

    def sanitize(self, weights: Weights) -> dict[str, mx.array]:
        """Give the weights of the text model, of a checkpoint or a conversion, their names here."""
        text = {_text_name(name): array for name, array in weights.items() if _text_name(name)}
        return {f"language_model.{name}": array for name, array in self.language_model.sanitize(text).items()}


def _lfm2_classes() -> tuple[Any, Any]:
    module: Any = import_module("mlx_lm.models.lfm2-vl")

    class LFM2ThatSees(module.Model):  # type: ignore[misc]
        """LFM 2, within a model whose tower is left out. Its input embeddings are those of its output too."""

        def sanitize(self, weights: Weights) -> dict[str, mx.array]:
            named = {_text_name(name): array for name, array in weights.items()}
            output = named.get("lm_head.weight")
            if output is not None and not mx.array_equal(output, named["model.embed_tokens.weight"]):
                raise ValueError("it has an output layer of its own, which mlx-lm's LFM 2 has not")
            text = {name: array for name, array in named.items() if name.startswith("model.")}
            return {f"language_model.{name}": array for name, array in self.language_model.sanitize(text).items()}

    return LFM2ThatSees, module.ModelArgs


def _text_name(name: str) -> str:
    """Give a weight of the text model its name in that alone; nothing for one of a tower."""
    name = name.removeprefix("model.")
    inner = name.removeprefix("text_model.").removeprefix("language_model.")
    if inner.startswith("lm_head."):
        return inner
    return "" if inner == name else f"model.{inner.removeprefix('model.')}"
