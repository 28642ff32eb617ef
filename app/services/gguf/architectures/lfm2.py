"""Liquid's LFM 2: short convolutions in most layers, attention in some; dense, or with experts."""

from typing import Any

import numpy as np

from app.services.gguf.architectures import experts
from app.services.gguf.architectures.common import GATED, feed_forward, linear_rope, query_key_value, sizes
from app.services.gguf.architectures.hyperparameters import Hyperparameters, uniform
from app.services.gguf.architectures.layout import Layout, entry, norms, weights
from app.services.gguf.file import GGUFFile

_NORMS = {"attn_norm": "operator_norm", "ffn_norm": "ffn_norm"}
_HEAD_NORMS = {"attn_q_norm": "self_attn.q_layernorm", "attn_k_norm": "self_attn.k_layernorm"}
_CONVOLUTION = {"shortconv.in_proj": "conv.in_proj", "shortconv.out_proj": "conv.out_proj"}
_DENSE = {"ffn_gate": "feed_forward.w1", "ffn_up": "feed_forward.w3", "ffn_down": "feed_forward.w2"}


def lfm2(file: GGUFFile) -> tuple[dict[str, Any], Layout]:
    """Read LFM 2 and 2.5, dense. Raises LoadFailed."""
    values = Hyperparameters(file)
    config = _config(file, values)
    width = config["intermediate_size"]
    config |= {
        "model_type": "lfm2",
        "block_dim": config["hidden_size"],
        "block_ff_dim": width,
        "block_auto_adjust_ff_dim": False,  # the file has the adjusted size
        "block_multiple_of": 1,
        "block_ffn_dim_multiplier": 1.0,
    }
    values.finish()
    layout = _layout(file, config)
    for layer in range(config["num_hidden_layers"]):
        layout |= weights(f"blk.{layer}.", f"model.layers.{layer}.", _DENSE)
    return config, layout


def lfm2moe(file: GGUFFile) -> tuple[dict[str, Any], Layout]:
    """Read LFM 2 with experts. Raises LoadFailed."""
    values = Hyperparameters(file)
    config = _config(file, values)
    layers = config["num_hidden_layers"]
    size = uniform(values.per_layer("expert_feed_forward_length", layers), values, "expert_feed_forward_length")
    values.expect("expert_gating_func", experts.SIGMOID)
    config |= {
        "model_type": "lfm2_moe",
        "num_experts": values.integer("expert_count"),
        "num_experts_per_tok": uniform(values.per_layer("expert_used_count", layers), values, "experts"),
        "moe_intermediate_size": size,
        "num_dense_layers": values.integer("leading_dense_block_count", 0),
        "norm_topk_prob": True,  # in llama.cpp's code, not in the file
        "use_expert_bias": True,
    }
    values.finish()
    layout = _layout(file, config)
    for layer in range(layers):
        block, target = f"blk.{layer}.", f"model.layers.{layer}."
        if layer < config["num_dense_layers"]:
            layout |= weights(block, target, {name: to.replace("mlp.", "feed_forward.") for name, to in GATED.items()})
            continue
        layout |= experts.routed(file, block, f"{target}feed_forward.switch_mlp.", size)
        layout |= weights(block, target, {"ffn_gate_inp": "feed_forward.gate"})
        layout[f"{block}exp_probs_b.bias"] = entry(f"{target}feed_forward.expert_bias", is_dense=True)
    return config, layout


def _config(file: GGUFFile, values: Hyperparameters) -> dict[str, Any]:
    config = sizes(file, values)
    layers = config["num_hidden_layers"]
    heads = values.per_layer("attention.head_count_kv", layers)
    attention = [layer for layer, count in enumerate(heads) if count]
    if not attention or "output.weight" in file.tensors:
        raise values.refused("has no attention, or an output layer of its own, which mlx-lm's lfm2 has not")
    size = config["hidden_size"] // config["num_attention_heads"]
    for key in ("attention.key_length", "attention.value_length", "rope.dimension_count"):
        values.expect(key, size)
    if linear_rope(values) is not None:
        raise values.refused("scales positions, which mlx-lm's lfm2 has not")
    return config | {
        "norm_eps": config.pop("rms_norm_eps"),
        "num_key_value_heads": uniform([heads[layer] for layer in attention], values, "KV heads"),
        "layer_types": ["full_attention" if count else "conv" for count in heads],
        "full_attn_idxs": attention,
        "intermediate_size": feed_forward(values, layers),
        "conv_L_cache": values.integer("shortconv.l_cache"),
        "conv_bias": False,
    }


def _layout(file: GGUFFile, config: dict[str, Any]) -> Layout:
    layout = {
        "token_embd.weight": entry("model.embed_tokens.weight"),
        # The last norm's name; it has nothing to do with the embedding.
        "token_embd_norm.weight": entry("model.embedding_norm.weight", is_dense=True),
    }
    size = config["hidden_size"] // config["num_attention_heads"]
    cached = config["num_key_value_heads"] * size
    for layer, kind in enumerate(config["layer_types"]):
        block, target = f"blk.{layer}.", f"model.layers.{layer}."
        layout |= norms(block, target, _NORMS)
        if kind == "full_attention":
            layout |= query_key_value(file, block, f"{target}self_attn.", (config["hidden_size"], cached, cached))
            layout |= weights(block, target, {"attn_output": "self_attn.out_proj"}) | norms(block, target, _HEAD_NORMS)
        else:
            layout |= weights(block, target, _CONVOLUTION)
            layout[f"{block}shortconv.conv.weight"] = entry(f"{target}conv.conv.weight", _kernels, is_dense=True)
    return layout


def _kernels(weight: np.ndarray) -> np.ndarray:
    """Give the kernels of a convolution in mlx's shape: (channels, width, 1)."""
    return weight[..., None]
