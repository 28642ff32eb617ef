"""The architectures that can be had from GGUF files: what mlx-lm's config and parameters are made of."""

from typing import Any, NamedTuple

from app.services.files import bad
from app.services.generation import Pooling
from app.services.gguf.architectures import (
    deepseek,
    gemma,
    gemma3n,
    glm4,
    gpt_oss,
    lfm2,
    linear_attention,
    llama,
    olmo,
    phi3,
    turned,
)
from app.services.gguf.architectures.hyperparameters import Hyperparameters
from app.services.gguf.architectures.layout import Parameter, parameters
from app.services.gguf.file import GGUFFile

ARCHITECTURES = llama.ARCHITECTURES | {
    "gemma": gemma.gemma,
    "gemma2": gemma.gemma2,
    "gemma3": gemma.gemma3,
    "gemma3n": gemma3n.gemma3n,
    "gemma4": gemma.gemma4,
    "gpt-oss": gpt_oss.gpt_oss,
    "deepseek2": deepseek.deepseek2,
    "glm4": glm4.glm4,
    "glm4moe": glm4.glm4moe,
    "granite": turned.granite,
    "lfm2": lfm2.lfm2,
    "lfm2moe": lfm2.lfm2moe,
    "mistral3": turned.mistral3,
    "olmo2": olmo.olmo2,
    "phi3": phi3.phi3,
    "smollm3": turned.smollm3,
    "qwen35": linear_attention.qwen35,
    "qwen35moe": linear_attention.qwen35,
    "qwen3next": linear_attention.qwen3next,
}

_POOLINGS: dict[int, Pooling | None] = {0: None, 1: "mean", 3: "last"}  # llama.cpp's numbers


class Architecture(NamedTuple):
    """What becomes of a file."""

    config: dict[str, Any]  # of config.json
    parameters: list[Parameter]  # all that mlx-lm's model has
    pooling: Pooling | None = None  # of embeddings, where the file says it


def for_file(file: GGUFFile) -> Architecture:
    """Say what becomes of a file, from its header alone. Raises LoadFailed for all that is not understood."""
    if (read := ARCHITECTURES.get(file.architecture)) is None:
        reason = f"has the architecture {file.architecture!r}, which this server cannot read from GGUF"
        raise bad(file.path, f"{reason} (it can: {', '.join(ARCHITECTURES)}); take the model in MLX's own format.")
    config, layout = read(file)
    return Architecture(config, list(parameters(file, layout)), _pooling(file))


def _pooling(file: GGUFFile) -> Pooling | None:
    values = Hyperparameters(file)
    if (number := values.integer("pooling_type", 0)) not in _POOLINGS:
        reason = f"pools embeddings in a way (pooling_type {number}) that is neither the mean nor the last token"
        raise values.refused(reason)
    return _POOLINGS[number]
