"""Checkpoints to resume from, and the model folder in 16 bits."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from demo_model.network import Network, Shape


def write(state: dict[str, Any], path: Path) -> None:
    """Write a checkpoint so that a kill at any moment leaves the old or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(state, path.with_suffix(".new"))
    path.with_suffix(".new").replace(path)


def export(network: Network, folder: Path, end: int, pad: int) -> None:
    """Write weights and configuration as mlx-lm loads them."""
    weights = {f"model.{name}": p.detach().half().contiguous() for name, p in network.named_parameters()}
    save_file(weights, folder / "model.safetensors.new", metadata={"format": "mlx"})
    (folder / "model.safetensors.new").chmod(0o644)
    (folder / "model.safetensors.new").replace(folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(configuration(network.shape, end, pad), indent=2) + "\n")
    sampling = {
        "eos_token_id": [end, pad],
        "pad_token_id": pad,
        "do_sample": True,
        "temperature": 0.3,
        "top_k": 20,
        "top_p": 0.9,
    }
    (folder / "generation_config.json").write_text(json.dumps(sampling, indent=2) + "\n")


def configuration(shape: Shape, end: int, pad: int) -> dict[str, Any]:
    """The contents of `config.json`."""
    fixed = {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "tie_word_embeddings": True,
        "hidden_act": "silu",
        "attention_bias": False,
        "torch_dtype": "float16",
    }
    return fixed | shape.as_config() | {"eos_token_id": end, "pad_token_id": pad}
