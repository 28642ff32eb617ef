"""Checks a folder with an MLX model: configuration, tokenizer and headers, without reading the weights."""

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from app.services import architectures, hub, safetensors, sentence_files
from app.services.context_length import context_length
from app.services.files import bad, check_object, read, read_object
from app.services.model_folder import ModelFolder
from app.services.safetensors import Tensor
from app.services.vision_files import has_tower

TOKENIZERS = (("tokenizer.json",), ("tokenizer.model",), ("vocab.json", "merges.txt"))
MISSING_TOKENIZER = "tokenizer.json or tokenizer.model is missing."
CODE = (
    "{} is there, but how it splits text is Python code of the model, and this server runs no code of a model folder. "
    "Get a conversion of this model with a tokenizer.json, or write one where you trust that code."
)
FOREIGN = {
    "*.gguf": "a GGUF file that only goes with a model",
    "pytorch_model*.bin": "PyTorch weights",
    "*.pth": "PyTorch weights",
    "*.onnx": "ONNX weights",
    "*.npz": "weights of an old MLX format",
    "*.safetensors": f"safetensors under a name that mlx-lm does not read (it reads {safetensors.WEIGHTS})",
}


def has_weights(folder: Path) -> bool:
    """Whether an MLX model may be there, sound or not."""
    return any(folder.glob(safetensors.WEIGHTS))


def inspect(folder: Path, model_id: str | None = None) -> ModelFolder:
    """Check a folder with a model in it. Raises LoadFailed; its message names the file and what is wrong with it."""
    _check_folder(folder)
    config = _config(folder)
    task = sentence_files.task(config, folder / "config.json")
    tokenizer_config = _check_tokenizer(folder)
    if task is not None:
        _check_encoder(folder)
    tensors = _tensors(folder)
    return ModelFolder(
        id=hub.owner(folder) or model_id or folder.name,
        path=folder,
        model_type=config["model_type"],
        context=sentence_files.context(folder, config) if task else context_length(config, tokenizer_config),
        weight_bytes=sum(tensor.bytes for tensor in tensors.values()),
        parameters=_parameters(tensors, config),
        precision=_precision(tensors, config),
        created=int((folder / "config.json").stat().st_mtime),
        has_chat_template=task is None and _has_chat_template(folder, tokenizer_config),
        task=task or sentence_files.task_of_writer(folder, config),
        is_encoder=task is not None,
        sees=has_tower(config, tensors),
    )


def _check_folder(folder: Path) -> None:
    if folder.is_file():
        kind = next((what for name, what in FOREIGN.items() if folder.match(name)), "a file")
        raise bad(folder, f"is {kind}; a folder with an MLX model is needed.")
    if not folder.exists():
        raise bad(folder, "does not exist.")
    if not any(folder.iterdir()):
        raise bad(folder, "is empty; a folder with an MLX model is needed.")


def _foreign(folder: Path) -> str | None:
    """What a folder without the expected files holds instead."""
    strange = [path for path in sorted(folder.iterdir()) if not path.match(safetensors.WEIGHTS)]
    for pattern, what in FOREIGN.items():
        if path := next((path for path in strange if path.match(pattern)), None):
            return f"{path.name} is there, but that is {what}"
    return None


def _config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    if not path.exists() and (foreign := _foreign(folder)):
        raise bad(path, f"is missing. {foreign}; a folder with an MLX model is needed.")
    config = read_object(path)
    if config.get("model_file") is not None:
        raise bad(path, "asks to run code of its own (model_file), and this server runs no code of a model folder.")
    if not isinstance(config.get("model_type"), str):
        raise bad(path, "names no model_type.")
    if config["model_type"] not in sentence_files.TYPES and not architectures.is_known(config):
        raise bad(path, f"says model_type {config['model_type']!r}, which the installed mlx-lm does not know.")
    if key := _two_way(config):
        raise bad(path, f"says {key}: it reads text in both directions, and mlx-lm's model of its kind only in one.")
    return config


def _two_way(config: Mapping[str, Any]) -> str | None:
    """Give the key by which a decoder is said to see what comes later, as EmbeddingGemma does. Its name is the same."""
    inner = config.get("text_config")
    for one in (config, inner if isinstance(inner, dict) else {}):
        for key, value in (("use_bidirectional_attention", True), ("is_causal", False)):
            if one.get(key) is value:
                return key
    return None


def _check_encoder(folder: Path) -> None:
    """Check what an encoder needs besides. Raises LoadFailed."""
    sentence_files.read(folder)
    if not (folder / "tokenizer.json").exists():
        raise bad(folder / "tokenizer.json", "is missing, which an encoder needs.")


def _check_tokenizer(folder: Path) -> dict[str, Any]:
    """Check its files. Returns the content of tokenizer_config.json."""
    settings = folder / "tokenizer_config.json"
    config = read_object(settings) if settings.exists() else {}
    present = next((names for names in TOKENIZERS if any(os.path.lexists(folder / name) for name in names)), None)
    if present is None:
        table = next((path.name for path in sorted(folder.iterdir()) if path.match("*tiktoken*")), None)
        raise bad(folder, "has no tokenizer: " + (CODE.format(table) if table else MISSING_TOKENIZER))
    for name in present:
        content = read(folder / name)
        if name.endswith(".json"):
            check_object(folder / name, content)
    return config


def _tensors(folder: Path) -> dict[str, Tensor]:
    """Every tensor of the folder, by name, with each file checked against its header."""
    shards = safetensors.shards(folder)
    if not shards:
        reason = _foreign(folder) or "model.safetensors is missing"
        raise bad(folder, f"has no weights: {reason}; an MLX model keeps them in {safetensors.WEIGHTS}.")
    return {name: tensor for shard in shards for name, tensor in safetensors.read_header(shard).items()}


def _quantization(config: Mapping[str, Any]) -> dict[str, Any]:
    quantization = config.get("quantization") or config.get("quantization_config")
    return quantization if isinstance(quantization, dict) else {}


def _precision(tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> str:
    quantization = _quantization(config)
    mode = quantization.get("mode") or quantization.get("quant_method")
    if isinstance(bits := quantization.get("bits"), int) and mode in (None, "affine", "awq", "gptq"):
        return f"{bits}-bit"
    if isinstance(mode, str):
        return mode
    sizes: dict[str, int] = {}
    for tensor in tensors.values():
        sizes[tensor.dtype] = sizes.get(tensor.dtype, 0) + tensor.bytes
    dtype = max(sizes, key=lambda name: sizes[name], default="unknown")
    return safetensors.DTYPES.get(dtype, dtype.lower())


def _parameters(tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> int:
    """Count weights; a packed matrix has as many as its scales times the group that each of them serves."""
    quantization = _quantization(config)
    return sum(
        math.prod(tensors[f"{layer}.scales"].shape) * _group_size(quantization, layer)
        if name.endswith(".weight") and (layer := name.removesuffix(".weight")) + ".scales" in tensors
        else math.prod(tensor.shape)
        for name, tensor in tensors.items()
        if not name.endswith((".scales", ".biases"))
    )


def _group_size(quantization: Mapping[str, Any], layer: str) -> int:
    own = quantization.get(layer)
    size = (own if isinstance(own, dict) else quantization).get("group_size")
    return size if isinstance(size, int) else 64


def _has_chat_template(folder: Path, tokenizer_config: Mapping[str, Any]) -> bool:
    if any((folder / name).exists() for name in ("chat_template.jinja", "chat_template.json")):
        return True
    return bool(tokenizer_config.get("chat_template"))
