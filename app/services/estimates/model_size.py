"""What of a model decides how much memory it takes, read from its headers alone."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.services import mlx_folder, safetensors
from app.services.context_length import context_length
from app.services.files import bad, explained, read_object
from app.services.gguf import architectures, blocks
from app.services.gguf.file import read

_MOST_LAYERS = 1000  # more than any model has; each takes a moment of the engine's time
_EXPERTS = ("_exps", "switch_mlp", ".experts.")  # in the names of tensors: GGUF's, mlx-lm's, transformers'


@dataclass(frozen=True, slots=True)
class ModelSize:
    """How large a model is, and its config.json, which says what its KV cache is made of."""

    config: Mapping[str, Any]
    context: int  # tokens
    weight_bytes: int  # as a GPU holds them
    parameters: int
    expert_share: float  # of the weights, 0 to 1: what belongs to experts of which each token uses a few


def of_path(path: Path) -> ModelSize:
    """Read that of an MLX model in a folder, or of a GGUF file. Raises LoadFailed."""
    return of_folder(path) if path.is_dir() else of_gguf(path)


def of_folder(path: Path) -> ModelSize:
    """Read that of an MLX model. Raises LoadFailed."""
    with explained(path):
        folder = mlx_folder.inspect(path)
        tensors = [tensor for shard in safetensors.shards(path) for tensor in safetensors.read_header(shard).items()]
        return _checked(
            path,
            ModelSize(
                config=read_object(path / "config.json"),
                context=folder.context.model_tokens,
                weight_bytes=folder.weight_bytes,
                parameters=folder.parameters,
                expert_share=_expert_share((name, tensor.bytes) for name, tensor in tensors),
            ),
        )


def of_gguf(path: Path) -> ModelSize:
    """Read that of a GGUF file. Raises LoadFailed."""
    with explained(path):
        file = read(path)
        config = architectures.for_file(file).config
        sizes = {name: blocks.packed_bytes(tensor) for name, tensor in file.tensors.items()}
        return _checked(
            path,
            ModelSize(
                config=config,
                context=context_length(config, {}).model_tokens,
                weight_bytes=sum(sizes.values()),
                parameters=sum(math.prod(tensor.shape) for tensor in file.tensors.values()),
                expert_share=_expert_share(sizes.items()),
            ),
        )


def _checked(path: Path, size: ModelSize) -> ModelSize:
    inner = size.config.get("text_config")
    for config in (size.config, inner if isinstance(inner, dict) else {}):
        layers = config.get("num_hidden_layers", 0)
        if isinstance(layers, int) and layers > _MOST_LAYERS:
            raise bad(path, f"counts {layers} layers, which no model has.")
    return size


def _expert_share(sizes: Iterable[tuple[str, int]]) -> float:
    experts = total = 0
    for name, size in sizes:
        total += size
        experts += size if any(part in name for part in _EXPERTS) else 0
    return experts / total if total else 0.0
