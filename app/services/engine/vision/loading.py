"""Loads the tower of a model that sees. mlx-lm leaves these weights out of the text model."""

import json
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, cast

import mlx.core as mx
import numpy as np
import structlog
from mlx.nn.layers.base import Module
from mlx.nn.layers.quantized import quantize
from mlx.utils import tree_flatten
from mlx_lm.utils import load_config

from app.services.engine.model.loading import back_end, dtype, read_weights, widen
from app.services.engine.model.loading import weights as all_weights
from app.services.engine.vision.family import Family
from app.services.engine.vision.gemma3 import GEMMA3
from app.services.engine.vision.gemma4 import GEMMA4
from app.services.engine.vision.lfm2 import LFM2_VL
from app.services.engine.vision.pixtral import PIXTRAL
from app.services.engine.vision.positions import steer
from app.services.engine.vision.qwen2 import QWEN2_VL
from app.services.engine.vision.qwen2_5 import QWEN2_5_VL
from app.services.engine.vision.qwen3 import QWEN3_VL
from app.services.engine.vision.smolvlm import SMOLVLM
from app.services.engine.vision.texts import Embed, Encode, Texts
from app.services.engine.vision.vision import Vision
from app.services.errors.base import first_line
from app.services.gguf import mmproj
from app.services.gguf.architectures.layout import Parameter
from app.services.gguf.conversion import widened
from app.services.gguf.file import read
from app.services.gguf.mmproj import VisionPart
from app.services.vision_files import TOWERS

log = structlog.get_logger()

FAMILIES: Mapping[str, Family] = {  # by model_type
    "gemma3": GEMMA3,
    "gemma4": GEMMA4,
    "idefics3": SMOLVLM,
    "lfm2-vl": LFM2_VL,
    "lfm2_vl": LFM2_VL,
    "llava": PIXTRAL,
    "mistral3": PIXTRAL,
    "pixtral": PIXTRAL,
    "qwen2_vl": QWEN2_VL,
    "qwen2_5_vl": QWEN2_5_VL,
    "qwen3_vl": QWEN3_VL,
    "qwen3_vl_moe": QWEN3_VL,
    "qwen3_5": QWEN3_VL,
    "qwen3_5_moe": QWEN3_VL,
    "smolvlm": SMOLVLM,
}


def load(folder: Path, model: Any, encode: Encode) -> Generator[float, None, Vision | None]:
    """Yield progress from 0 to 1 and return what a model sees with; None where it cannot be used: the log says why.

    `encode` tokenizes texts that stand within images.
    """
    return (yield from _load(folder.name, lambda: _of_folder(folder), model, encode))


def load_part(
    path: Path, model_path: Path, config: Mapping[str, Any], model: Any, encode: Encode
) -> Generator[float, None, Vision | None]:
    """Do the same with the vision part of a GGUF file, whose text model has this configuration."""

    def source() -> _Source:
        return _of_part(mmproj.read(path, read(model_path), config), encode)

    return (yield from _load(model_path.name, source, model, encode))


@dataclass(frozen=True, slots=True)
class _Source:
    """What a tower is made of: config.json, preprocessor_config.json, and weights by their names in the tower."""

    config: Mapping[str, Any]
    settings: Mapping[str, Any]
    weights: Mapping[str, mx.array]

    @property
    def family(self) -> Family:
        return FAMILIES[self.config["model_type"]]


def _load(
    name: str, source_of: Callable[[], _Source], model: Any, encode: Encode
) -> Generator[float, None, Vision | None]:
    try:
        source = source_of()
        family, config = source.family, source.config
        tower = family.tower(config)
        _set(tower, source.weights, family, config)
        if back_end() == "cpu":
            widen(tower)
        yield from read_weights(tower)
        make_processor = partial(_processor, family, config, source.settings)
        vision = Vision(family, config, tower, make_processor, Texts(encode, _embed(model)), _precision(model))
        if vision.positions is not None:
            steer(model, vision.positions)
        return vision
    except Exception as error:  # the model answers text all the same
        log.warning("this model reads text only: no tower for images", model=name, reason=first_line(error))
        return None


def _of_folder(folder: Path) -> _Source:
    config = load_config(folder)
    paths = (folder / "preprocessor_config.json", folder / "processor_config.json")
    path = next((path for path in paths if path.exists()), paths[0])
    settings = json.loads(path.read_bytes())
    weights = _read(folder, FAMILIES[config["model_type"]], TOWERS[config["model_type"]])
    return _Source(config, settings.get("image_processor", settings), weights)


def _of_part(part: VisionPart, encode: Encode) -> _Source:
    family = FAMILIES[part.config["model_type"]]
    tokens = encode(part.image_token)
    if len(tokens) != 1:  # a vocabulary without it: any other token can stand in the places of images
        tokens = encode(family.before)[-1:]
    weights = {one.name: _widened(one).astype(dtype()) for one in part.parameters}
    return _Source({**part.config, "image_token_id": tokens[0]}, part.settings, weights)


def _widened(parameter: Parameter) -> mx.array:
    shape, parts = widened(parameter)
    return mx.array(np.concatenate([part.reshape(-1) for part in parts]).reshape(shape))


def _read(folder: Path, family: Family, prefixes: tuple[str, ...]) -> dict[str, mx.array]:
    weights: dict[str, mx.array] = {}
    for path in sorted(folder.glob("model*.safetensors")):
        arrays: dict[str, mx.array] = mx.load(str(path))  # type: ignore[assignment]
        named = {_name(family, name): array for name, array in arrays.items()}
        weights |= {name: array for name, array in named.items() if name.startswith(prefixes)}
    return weights


def _name(family: Family, name: str) -> str:
    """Give the name that something of the files has in the tower."""
    return family.rename(name.removeprefix("model."))


def _set(tower: Module, weights: Mapping[str, mx.array], family: Family, config: Mapping[str, Any]) -> None:
    """Put weights into a tower, which is quantized as they are. Raises ValueError if one is missing."""
    if quantization := config.get("quantization"):
        names = {_name(family, name): settings for name, settings in quantization.items()}

        def settings_of(name: str, _: Module) -> bool | dict[str, Any]:
            own = names.get(name)  # what is set for this one alone
            return f"{name}.scales" in weights and (own if isinstance(own, dict) else True)

        size, bits = quantization.get("group_size", 64), quantization.get("bits", 4)
        quantize(tower, size, bits, mode=quantization.get("mode", "affine"), class_predicate=settings_of)
    arrays = cast("list[tuple[str, mx.array]]", tree_flatten(tower.parameters()))
    shapes = {name: array.shape for name, array in arrays}
    if missing := sorted(shapes.keys() - weights.keys()):
        raise ValueError(f"{missing[0]} and {len(missing) - 1} more of its weights are missing")
    tower.load_weights([(name, family.fit(weights[name], shape)) for name, shape in shapes.items()])


def _processor(family: Family, config: Mapping[str, Any], settings: Mapping[str, Any]) -> Any:
    """Make the processor of images, as files set it. No code of a folder is run."""
    module, name = family.processor
    return getattr(import_module(module), name).from_dict(dict(family.settings(config, settings)))


def _embed(model: Any) -> Embed:
    """Say how texts within images are embedded: as texts around them, in the families that have such."""
    text = getattr(model, "language_model", model)  # a GGUF file has the text model alone
    return lambda tokens: text.model.embed_tokens(tokens)


def _precision(model: Any) -> mx.Dtype:
    """Give the numbers that go from layer to layer of a text model: those of its norms, which are never quantized."""
    norms = [array.dtype for name, array in all_weights(model).items() if name.endswith("norm.weight")]
    return norms[0] if norms else dtype()
