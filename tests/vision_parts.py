"""Writes the towers of tiny models as llama.cpp's converter writes vision parts (mmproj): its names, changes and keys.

What stands here follows `conversion/` of llama.cpp; the names of tensors are those of the package `gguf`, its own.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from safetensors.numpy import load_file

from tests import gguf_files

KINDS = {  # by family: what the converter calls it, and the architecture of its text model
    "gemma3": ("gemma3", "gemma3"),
    "gemma4": ("gemma4v", "gemma4"),
    "gemma4_mutual": ("gemma4v", "gemma4"),
    "idefics3": ("idefics3", "llama"),
    "lfm2_vl": ("lfm2", "lfm2"),
    "mistral3": ("pixtral", "mistral3"),
    "pixtral": ("pixtral", "llama"),
    "smolvlm": ("idefics3", "llama"),
    "qwen2_vl": ("qwen2vl_merger", "qwen2vl"),
    "qwen2_5_vl": ("qwen2.5vl_merger", "qwen2vl"),
    "qwen3_vl": ("qwen3vl_merger", "qwen3vl"),
    "qwen3_vl_moe": ("qwen3vl_merger", "qwen3vlmoe"),
    "qwen3_5": ("qwen3vl_merger", "qwen35"),
    "qwen3_5_moe": ("qwen3vl_merger", "qwen35moe"),
}
_SUFFIXES = (".weight", ".bias", ".input_max", ".input_min", ".output_max", ".output_min")
_NAMES = gguf.get_tensor_name_map(gguf.MODEL_ARCH.MMPROJ, 128)
Named = Iterator[tuple[str, np.ndarray]]


def write(
    path: Path,
    family: str,
    config: Mapping[str, Any],
    weights: Mapping[str, np.ndarray],
    *,
    means: tuple[float, float, float] = (0.25, 0.5, 0.75),
    epsilon: float | None = None,
    **keys: Any,
) -> Path:
    """Write the tower among weights, which have the names that transformers gives them; further keys of the file."""
    writer = gguf.GGUFWriter(path, "clip")
    vision, text = config["vision_config"], config["text_config"]
    kind, _ = KINDS[family]
    more, change = _converter(family)
    writer.add_type("mmproj")
    writer.add_clip_has_vision_encoder(True)
    if kind == "gemma4v":
        writer.add_clip_vision_projector_type(kind)
    else:
        writer.add_clip_projector_type(kind)
    writer.add_vision_projection_dim(text["hidden_size"])
    writer.add_vision_patch_size(vision["patch_size"])
    width = vision.get("embed_dim") or vision["hidden_size"]
    writer.add_vision_embedding_length(width)
    writer.add_vision_feed_forward_length(vision.get("intermediate_size") or vision["hidden_size"])
    writer.add_vision_block_count(vision.get("depth") or vision["num_hidden_layers"])
    writer.add_vision_head_count(vision.get("num_heads") or vision["num_attention_heads"])
    writer.add_vision_image_mean(means)
    writer.add_vision_image_std([0.5, 0.25, 0.125])
    writer.add_vision_attention_layernorm_eps(epsilon or (1e-5 if kind == "pixtral" else 1e-6))
    more(writer, config)
    for key, value in keys.items():
        writer.add_uint32(f"clip.vision.{key}", value)
    for name, array in weights.items():
        for tensor, data in change(name, array):
            kind_of = gguf.GGMLQuantizationType.F32
            writer.add_tensor(tensor, np.ascontiguousarray(data, dtype=np.float32), raw_dtype=kind_of)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _converter(family: str) -> tuple[Callable[[Any, Any], None], Callable[[str, np.ndarray], Named]]:
    if family == "gemma3":
        return _gemma3_keys, _gemma3
    if family in ("idefics3", "smolvlm"):
        return _idefics3_keys, _idefics3
    if family == "lfm2_vl":
        return _lfm2_keys, _lfm2
    if family in ("mistral3", "pixtral"):
        return _pixtral_keys, _pixtral
    if family.startswith("gemma4"):
        return lambda writer, config: writer.add_vision_image_size(224), _gemma4
    if family.startswith("qwen2"):
        return _qwen2_keys, _qwen2
    return _qwen3_keys, _qwen3


def _mapped(name: str, array: np.ndarray) -> Named:
    tensor = _NAMES.get_name(name, try_suffixes=_SUFFIXES)
    assert tensor is not None, name
    yield tensor, array


def _gemma3_keys(writer: Any, config: Mapping[str, Any]) -> None:
    vision = config["vision_config"]
    writer.add_vision_image_size(vision["image_size"])
    writer.add_vision_use_gelu(True)
    side = int(config["mm_tokens_per_image"] ** 0.5)
    if (factor := vision["image_size"] // vision["patch_size"] // side) != 4:
        writer.add_vision_projector_scale_factor(factor)


def _gemma3(name: str, array: np.ndarray) -> Named:
    if not name.startswith(("multi_modal_projector.", "vision_tower.")):
        return
    name = re.sub(r"^vision_tower\.(?!vision_model\.)", "vision_tower.vision_model.", name)
    name = name.replace("_weight", ".weight")
    yield from _mapped(name, array + 1 if "soft_emb_norm.weight" in name else array)


def _idefics3_keys(writer: Any, config: Mapping[str, Any]) -> None:
    size = config["vision_config"]["image_size"]
    writer.add_vision_image_size(size)
    writer.add_vision_projector_scale_factor(config["scale_factor"])
    writer.add_vision_use_gelu(True)
    writer.add_vision_preproc_image_size(2 * size)


def _idefics3(name: str, array: np.ndarray) -> Named:
    if "vision_model" in name or "model.connector" in name:
        yield from _mapped(name, array)


def _lfm2_keys(writer: Any, config: Mapping[str, Any]) -> None:
    writer.add_vision_image_size(256)
    writer.add_vision_projector_scale_factor(config["downsample_factor"])
    writer.add_vision_use_gelu(True)


def _lfm2(name: str, array: np.ndarray) -> Named:
    name = name.removeprefix("model.")
    if not name.startswith(("vision_tower.", "multi_modal_projector.")):
        return
    if "patch_embedding.weight" in name:  # the converter has 16 for the side of all patches
        side = int((array.shape[1] // 3) ** 0.5)
        array = array.reshape(len(array), side, side, 3).transpose(0, 3, 1, 2)
    yield from _mapped(re.sub(r"^vision_tower\.(?!vision_model\.)", "vision_tower.vision_model.", name), array)


def _gemma4(name: str, array: np.ndarray) -> Named:
    if not name.startswith(("model.vision_tower.", "model.embed_vision.")):
        return
    name = name.replace("model.vision_tower.encoder.", "vision_model.model.").replace(".linear.weight", ".weight")
    if name.endswith("position_embedding_table"):
        name += ".weight"
    if name.endswith("patch_embedder.input_proj.weight"):
        side = int((array.shape[1] // 3) ** 0.5)
        array = array.reshape(len(array), side, side, 3).transpose(0, 3, 1, 2)
    yield from _mapped(name, array if array.ndim else array[None])


def _pixtral_keys(writer: Any, config: Mapping[str, Any]) -> None:
    vision = config["vision_config"]
    writer.add_vision_image_size(vision["image_size"])
    writer.add_vision_use_silu(vision["hidden_act"] == "silu")
    writer.add_vision_use_gelu(vision["hidden_act"] == "gelu")
    if "spatial_merge_size" in config:
        writer.add_vision_spatial_merge_size(config["spatial_merge_size"])
    _written[:] = vision["num_attention_heads"], config["image_token_index"] + 2  # as in Mistral's vocabularies


_written: list[int] = []  # heads of the tower that is written, and the token [IMG_BREAK]


def _pixtral(name: str, array: np.ndarray) -> Named:
    name = name.removeprefix("model.")
    if name == "language_model.model.embed_tokens.weight":
        yield "v.token_embd.img_break", array[_written[1]]
    if not name.startswith(("vision_tower.", "multi_modal_projector.")):
        return
    if name.endswith(("q_proj.weight", "k_proj.weight")):  # the pairs that rope turns become neighbours
        array = array.reshape(_written[0], 2, -1, array.shape[1]).swapaxes(1, 2).reshape(array.shape)
    yield from _mapped(name, array)


def _qwen2_keys(writer: Any, config: Mapping[str, Any]) -> None:
    writer.add_vision_image_size(560)
    if whole := config["vision_config"].get("fullatt_block_indexes"):
        writer.add_vision_use_silu(True)
        writer.add_vision_n_wa_pattern(whole[0] + 1)


def _patches(name: str, array: np.ndarray) -> Named:
    assert array.shape[2] == 2
    yield "v.patch_embd.weight", array[:, :, 0]
    yield "v.patch_embd.weight.1", array[:, :, 1]


def _qwen2(name: str, array: np.ndarray) -> Named:
    if not name.startswith("visual."):
        return
    if ".qkv." in name:
        for letter, part in zip("qkv", np.split(array, 3), strict=True):
            yield from _mapped(name.replace("qkv", letter), part)
    elif "patch_embed.proj.weight" in name:
        yield from _patches(name, array)
    else:
        yield from _mapped(name, array)


def _qwen3_keys(writer: Any, config: Mapping[str, Any]) -> None:
    vision = config["vision_config"]
    writer.add_vision_image_size(int(vision["num_position_embeddings"] ** 0.5 * vision["patch_size"]))
    writer.add_vision_use_gelu(True)
    writer.add_vision_spatial_merge_size(vision["spatial_merge_size"])
    deep = vision.get("deepstack_visual_indexes") or ()
    writer.add_vision_is_deepstack_layers([layer in deep for layer in range(vision["depth"])])
    _deep_layers[:] = deep


_deep_layers: list[int] = []  # of the tower that is written


def _qwen3(name: str, array: np.ndarray) -> Named:
    name = name.removeprefix("model.")
    if not name.startswith("visual."):
        return
    if name.startswith("visual.deepstack_merger_list."):
        number, part, end = name.split(".")[2:]
        yield f"v.deepstack.{_deep_layers[int(number)]}.{part.replace('linear_', '')}.{end}", array
    elif name.startswith("visual.merger."):
        part, end = name.split(".")[2:]
        yield {"linear_fc1": "mm.0", "linear_fc2": "mm.2", "norm": "v.post_ln"}[part] + f".{end}", array
    elif name == "visual.patch_embed.proj.weight":
        yield from _patches(name, array)
    elif name == "visual.patch_embed.proj.bias":
        yield "v.patch_embd.bias", array
    else:
        yield from _mapped(name, array)


def write_text_model(folder: Path, path: Path) -> Path:
    """Write the text model of a folder with Qwen2.5-VL as a GGUF file of its own."""
    config = json.loads((folder / "config.json").read_bytes())["text_config"]
    writer = gguf.GGUFWriter(path, "qwen2vl")
    gguf_files.add_sizes(writer, {**config, "head_dim": config["hidden_size"] // config["num_attention_heads"]})
    gguf_files.add_tokenizer(writer, folder, template=True)
    writer.add_rope_dimension_sections([*config["rope_scaling"]["mrope_section"], 0])
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.QWEN2VL, config["num_hidden_layers"])
    for name, array in load_file(folder / "model.safetensors").items():
        if not name.startswith("visual."):
            tensor = names.get_name(name, try_suffixes=(".weight", ".bias"))
            assert tensor is not None, name
            writer.add_tensor(tensor, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
