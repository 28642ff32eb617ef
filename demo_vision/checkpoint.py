"""The model folder in 16 bits, with the names and settings of Qwen3-VL."""

import json
import shutil
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import Tensor

from demo_model import checkpoint, tokenization
from demo_model.template import FOLDER
from demo_vision.batches import TOKENS
from demo_vision.network import SECTIONS, SeeingNetwork
from demo_vision.scenes import SIZES

KEPT = ("chat_template.jinja", "generation_config.json")  # of the text model's folder


def export(network: SeeingNetwork, tokenizer: Tokenizer, folder: Path) -> None:
    """Write weights, tokenizer and configuration as the server loads them."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in KEPT:
        shutil.copy(FOLDER / name, folder / name)
    tokenization.save(tokenizer, folder, network.shape.max_position_embeddings)
    weights = dict(_weights(network))
    save_file(weights, folder / "model.safetensors.new", metadata={"format": "pt"})
    (folder / "model.safetensors.new").chmod(0o644)
    (folder / "model.safetensors.new").replace(folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(configuration(network, tokenizer), indent=2) + "\n")
    (folder / "preprocessor_config.json").write_text(json.dumps(preparation(network), indent=2) + "\n")


def _weights(network: SeeingNetwork) -> list[tuple[str, Tensor]]:
    named = []
    for name, parameter in network.named_parameters():
        if name.startswith("contents."):
            continue
        weight = parameter.detach().half().contiguous()
        if name == "visual.patch_embed.proj.weight":
            s = network.visual.shape
            weight = weight.reshape(-1, s.in_channels, s.temporal_patch_size, s.patch_size, s.patch_size)
        named.append((f"model.{name}" if name.startswith("visual.") else f"model.language_model.{name}", weight))
    return named


def configuration(network: SeeingNetwork, tokenizer: Tokenizer) -> dict[str, Any]:
    """The contents of `config.json`."""
    end, pad = (tokenization.token_id(tokenizer, token) for token in ("<|im_end|>", "<|endoftext|>"))
    text = checkpoint.configuration(network.shape, end, pad)
    start, image, last = (tokenization.token_id(tokenizer, token) for token in TOKENS)
    text |= {
        "model_type": "qwen3_vl_text",
        "rope_scaling": {"rope_type": "default", "mrope_section": list(SECTIONS), "mrope_interleaved": True},
    }
    return {
        "architectures": ["Qwen3VLForConditionalGeneration"],
        "model_type": "qwen3_vl",
        "text_config": text,
        "vision_config": network.visual.shape.as_config(),
        "image_token_id": image,
        "vision_start_token_id": start,
        "vision_end_token_id": last,
        "tie_word_embeddings": True,
        "torch_dtype": "float16",
        "eos_token_id": end,
        "pad_token_id": pad,
    }


def preparation(network: SeeingNetwork) -> dict[str, Any]:
    """The contents of `preprocessor_config.json`: images are shown no larger than the scenes of the training."""
    shape = network.visual.shape
    return {
        "image_processor_type": "Qwen2VLImageProcessor",
        "patch_size": shape.patch_size,
        "temporal_patch_size": shape.temporal_patch_size,
        "merge_size": shape.spatial_merge_size,
        "size": {"shortest_edge": 48 * shape.side**2, "longest_edge": max(width * height for width, height in SIZES)},
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        "resample": 3,
        "do_resize": True,
        "do_rescale": True,
        "do_normalize": True,
        "rescale_factor": 1 / 255,
    }
