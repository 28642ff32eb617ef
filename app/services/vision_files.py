"""Which model folders hold what a model sees with, as far as configuration and headers tell."""

from collections.abc import Iterable, Mapping
from typing import Any

# By model_type: how the names of the tower's weights begin, with or without `model.` before them.
_IDEFICS = ("vision_model.", "connector.")
_LFM2 = ("vision_tower.", "multi_modal_projector.")
_PIXTRAL = ("vision_tower.", "multi_modal_projector.")
_QWEN = ("visual.", "vision_tower.")
TOWERS: Mapping[str, tuple[str, ...]] = {
    "gemma3": ("vision_tower.", "multi_modal_projector."),
    "gemma4": ("vision_tower.", "embed_vision."),
    "idefics3": _IDEFICS,
    "lfm2-vl": _LFM2,
    "lfm2_vl": _LFM2,
    "llava": _PIXTRAL,
    "mistral3": _PIXTRAL,
    "pixtral": _PIXTRAL,
    "qwen2_vl": _QWEN,
    "qwen2_5_vl": _QWEN,
    "qwen3_vl": _QWEN,
    "qwen3_vl_moe": _QWEN,
    "qwen3_5": _QWEN,
    "qwen3_5_moe": _QWEN,
    "smolvlm": _IDEFICS,
}


def has_tower(config: Mapping[str, Any], tensors: Iterable[str]) -> bool:
    """Whether a model of these tensors can see here; one of a family without a tower reads text only."""
    prefixes, vision = TOWERS.get(config["model_type"]), config.get("vision_config")
    if prefixes is None or not isinstance(vision, dict):
        return False
    if config["model_type"] == "llava" and vision.get("model_type") != "pixtral":
        return False  # Pixtral calls itself so too; older models have CLIP
    return any(name.removeprefix("model.").startswith(prefixes) for name in tensors)
