"""Tiny models of every architecture that mlx-lm knows: their configurations lie in architectures.json, by name."""

import json
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx.utils import tree_flatten, tree_unflatten
from mlx_lm.utils import _get_classes as model_classes

from tests import tiny_model

ROOT = Path(__file__).parents[2]
CONFIGS: dict[str, dict[str, Any]] = json.loads(Path(__file__).with_suffix(".json").read_text())
SMALL_EMBEDDINGS = "_x"  # ends the names of models whose embeddings are a tenth: large ones repeat one token for ever
_TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json")


def build(name: str, folder: Path, *, seed: int = 1) -> Path:
    """Build the folder of a model by its name, whole or not at all; one that is there stays as it is.

    Its weights are random, float32; tokenizer and chat template are the demo model's.
    """
    if (folder / "config.json").exists():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        for file in _TOKENIZER:
            shutil.copy(ROOT / "app" / "tiles_nano" / file, unfinished)
        weights = dict(tree_flatten(random_model(name, seed=seed).parameters()))
        mx.save_safetensors(str(unfinished / "model.safetensors"), weights, {"format": "mlx"})
        (unfinished / "config.json").write_text(json.dumps(CONFIGS[name]))
        tiny_model.put(unfinished, folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return folder


def random_model(name: str, *, seed: int = 1, **config: Any) -> Any:
    """Make a model by its name, with random weights; `config` is laid over its configuration."""
    settings = CONFIGS[name] | config
    model_class, arguments = model_classes(settings)
    mx.random.seed(seed)
    model = model_class(arguments.from_dict(settings))
    weights = {path: _randomise(array) for path, array in tree_flatten(model.parameters())}
    model.update(tree_unflatten([(path, array * _scale(name, path, array)) for path, array in weights.items()]))
    mx.eval(model.parameters())
    return model


def _scale(name: str, path: str, array: mx.array) -> float:
    """Say what to multiply weights by, so that a token is answered with what came before it, and not with itself."""
    if "embed_tokens" in path:
        return 0.1 if name.endswith(SMALL_EMBEDDINGS) else 1.0
    inner = re.search(r"layers|blocks|\bh\b", path) is not None
    return 2.0 if inner and path.endswith("weight") and array.ndim == 2 else 1.0


def _randomise(array: mx.array) -> mx.array:
    """Make what a new model has the same everywhere, such as zeros, differ, so that it has an effect."""
    if array.size == 1 or not mx.issubdtype(array.dtype, mx.floating) or mx.any(array != array.flatten()[0]).item():
        return array
    return array + 0.2 * mx.random.normal(array.shape)
