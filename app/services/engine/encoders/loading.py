"""Loads an encoder from its folder, in steps, so that other models go on answering meanwhile."""

import time
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any, cast

import mlx.core as mx
import structlog
from mlx.nn.layers.quantized import quantize

from app.services import safetensors, sentence_files
from app.services.engine.encoders.layout import LAYOUTS
from app.services.engine.encoders.model import DENSE_ACTIVATIONS, Dense, EncoderModel
from app.services.engine.model import loading
from app.services.errors import LoadFailed
from app.services.files import bad, read_object
from app.services.model_folder import ModelFolder

log = structlog.get_logger()


def load(folder: ModelFolder) -> Generator[float, None, EncoderModel]:
    """Yield progress from 0 to 1 and return the model. Raises LoadFailed. On the engine thread only."""
    start, name = time.perf_counter(), folder.path.name
    try:
        config = read_object(folder.path / "config.json")
        sentence = sentence_files.read(folder.path)
        model = EncoderModel(config, sentence, ranks=folder.task == "rerank")
        model.dense = [_dense(path) for path in sentence.dense]
        _set_weights(model, folder.path, config)
        yield 0.1
        loading.widen(model)
        yield from loading.read_weights(model)
        model.eval()
    except LoadFailed as error:
        raise (error if name in error.message else LoadFailed(f"{name}: {error.message}")) from error
    except MemoryError as error:
        raise LoadFailed(f"{name}: there is not enough memory for this model") from error
    except Exception as error:  # whatever MLX makes of strange numbers
        raise LoadFailed(f"{name}: {str(error).strip()[:300] or type(error).__name__}") from error
    log.info("model read", folder=name, seconds=round(time.perf_counter() - start, 2))
    return model


def _set_weights(model: EncoderModel, folder: Path, config: Mapping[str, Any]) -> None:
    """Put the tensors of a folder into a model, packed as they are. Raises LoadFailed for any that is missing."""
    layout = LAYOUTS[config["model_type"]]
    weights: dict[str, mx.array] = {}
    for shard in safetensors.shards(folder):
        for theirs, array in _arrays(shard).items():
            if (ours := layout.name(theirs)) is not None:
                weights[ours] = array
    _pack(model, weights, config)
    needed = loading.weights(model)
    lacking = [name for name in needed if name not in weights and not name.startswith("dense.")]
    if lacking:
        raise LoadFailed(f"{len(lacking)} tensors are missing, such as that of {lacking[0]}.")
    wrong = [name for name, array in weights.items() if name in needed and needed[name].shape != array.shape]
    if wrong:
        raise LoadFailed(f"the tensor of {wrong[0]} has a shape that config.json does not say.")
    model.load_weights([(name, array) for name, array in weights.items() if name in needed], strict=False)


def _pack(model: EncoderModel, weights: Mapping[str, mx.array], config: Mapping[str, Any]) -> None:
    """Make the layers quantized whose weights are."""
    quantization = config.get("quantization")
    if isinstance(quantization, dict):
        group_size, bits = quantization.get("group_size", 64), quantization.get("bits", 4)
        quantize(model, group_size, bits, class_predicate=lambda path, _: f"{path}.scales" in weights)


def _arrays(path: Path) -> dict[str, mx.array]:
    return cast("dict[str, mx.array]", mx.load(str(path)))


def _dense(folder: Path) -> Dense:
    """Read a dense layer of sentence-transformers. Raises LoadFailed."""
    config = read_object(folder / "config.json")
    activation = str(config.get("activation_function", "tanh")).rpartition(".")[2].lower()
    if activation not in DENSE_ACTIVATIONS:
        raise bad(folder / "config.json", f"names the activation {activation!r}, which this server does not know.")
    path = folder / "model.safetensors"
    safetensors.read_header(path)
    weights = {name.rpartition(".")[2]: array for name, array in _arrays(path).items()}
    if "weight" not in weights or weights["weight"].ndim != 2:
        raise bad(path, "has no matrix of a dense layer.")
    outputs, inputs = weights["weight"].shape
    dense = Dense(inputs, outputs, bias="bias" in weights, activation=activation)
    dense.linear.update(weights)
    return dense
