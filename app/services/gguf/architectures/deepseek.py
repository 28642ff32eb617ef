"""DeepSeek 2 and 3, and what is built like them (Kimi K2, Moonlight, GLM 4.7 Flash): attention from a small latent."""

import math
from typing import Any

import numpy as np

from app.services.gguf.architectures import experts
from app.services.gguf.architectures.common import embeddings, feed_forward, multi_token_prediction, sizes
from app.services.gguf.architectures.hyperparameters import Hyperparameters, uniform
from app.services.gguf.architectures.layout import Entry, Layout, Target, entry, norms, weights
from app.services.gguf.architectures.rope import scaled_rope
from app.services.gguf.file import GGUFFile

_NORMS = {
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_kv_a_norm": "self_attn.kv_a_layernorm",
}
_PROJECTIONS = {"attn_kv_a_mqa": "self_attn.kv_a_proj_with_mqa", "attn_output": "self_attn.o_proj"}
# What mlx-lm's deepseek_v2 and deepseek_v3 have for the norms of latents, whatever the config says.
_EPSILON = 1e-6
_LAYERS = 61  # of DeepSeek 3
# llama.cpp knows GLM 4.7 Flash by these numbers where the file does not say how experts are chosen.
_GLM_FLASH_LAYERS, _GLM_FLASH_VOCABULARY = (47, 48), 154880


def deepseek2(file: GGUFFile) -> tuple[dict[str, Any], Layout]:
    """Read a model whose experts are chosen by a sigmoid (3), or by a softmax (2). Raises LoadFailed."""
    values = Hyperparameters(file)
    config = _config(file, values)
    config |= _third(values, config) if _has_sigmoid(values, config) else _second(values, config)
    values.finish()
    layout = embeddings(file, ties=False)
    for layer in range(config["num_hidden_layers"]):
        block, target = f"blk.{layer}.", f"model.layers.{layer}."
        layout |= _attention(file, config, block, target)
        layout |= experts.dense_or_chosen(file, config, layer)
    return config, layout | multi_token_prediction(file, config)


def _config(file: GGUFFile, values: Hyperparameters) -> dict[str, Any]:
    config = sizes(file, values)
    layers = config["num_hidden_layers"]
    rank, rotated = values.integer("attention.kv_lora_rank"), values.integer("rope.dimension_count")
    is_split = "blk.0.attn_kv_b.weight" not in file.tensors
    # Files with one tensor for keys and values of all heads have no other sizes than those of the heads.
    kind = "_mla" if is_split else ""
    key = values.integer(f"attention.key_length{kind}")
    heads = 1 if is_split else config["num_attention_heads"]
    if is_split:
        values.expect("attention.key_length", rank + rotated)
        values.expect("attention.value_length", rank)
    cached = uniform(values.per_layer("attention.head_count_kv", layers, heads), values, "KV heads")
    if cached != heads or key <= rotated:
        raise values.refused("has heads of sizes that do not fit")
    return config | {
        "num_key_value_heads": config["num_attention_heads"],
        "intermediate_size": feed_forward(values, layers),
        "kv_lora_rank": rank,
        "q_lora_rank": values.integer("attention.q_lora_rank", 0) or None,
        "qk_rope_head_dim": rotated,
        "qk_nope_head_dim": key - rotated,
        "v_head_dim": values.integer(f"attention.value_length{kind}"),
        "n_shared_experts": values.integer("expert_shared_count", 0) or None,
        "first_k_dense_replace": values.integer("leading_dense_block_count", 0),
        "rope_scaling": _rope(values),
    }


def _rope(values: Hyperparameters) -> dict[str, Any] | None:
    """Give `rope_scaling`. The file has a tenth of the multiplier, which scales the attention instead of its inputs."""
    scaling = scaled_rope(values)
    if scaling is None:
        return None
    if scaling["rope_type"] != "yarn" or "mscale_all_dim" not in scaling:
        raise values.refused("scales positions in a way that mlx-lm's model has not")
    multiplier = round(scaling["mscale_all_dim"] * 10, 5)
    return scaling | {"type": "yarn", "mscale": multiplier, "mscale_all_dim": multiplier}


def _has_sigmoid(values: Hyperparameters, config: dict[str, Any]) -> bool:
    choice = values.integer("expert_gating_func", 0)
    if choice == 0:
        return config["num_hidden_layers"] in _GLM_FLASH_LAYERS and config["vocab_size"] == _GLM_FLASH_VOCABULARY
    return choice == experts.SIGMOID


def _third(values: Hyperparameters, config: dict[str, Any]) -> dict[str, Any]:
    # The other class is the same model, with the file's epsilon in all norms; and the first one drops further layers.
    is_third = math.isclose(config["rms_norm_eps"], _EPSILON) and config["num_hidden_layers"] <= _LAYERS
    model_type = "deepseek_v3" if is_third else "glm4_moe_lite"
    return {"model_type": model_type} | experts.sigmoid_choice(values, config["num_hidden_layers"])


def _second(values: Hyperparameters, config: dict[str, Any]) -> dict[str, Any]:
    layers = config["num_hidden_layers"]
    values.expect("expert_gating_func", experts.SOFTMAX)
    for key, expected in (("expert_weights_norm", False), ("expert_group_count", 1), ("expert_group_used_count", 1)):
        values.expect(key, expected)
    if not math.isclose(config["rms_norm_eps"], _EPSILON):
        raise values.refused(f"has norms with epsilon {config['rms_norm_eps']}, which mlx-lm's deepseek_v2 has not")
    unscaled = {"type": "yarn", "factor": 1.0}
    size = uniform(values.per_layer("expert_feed_forward_length", layers), values, "expert_feed_forward_length")
    return {
        "model_type": "deepseek_v2",
        "topk_method": "greedy",
        "moe_intermediate_size": size,
        "n_routed_experts": values.integer("expert_count"),
        "num_experts_per_tok": uniform(values.per_layer("expert_used_count", layers), values, "experts"),
        "routed_scaling_factor": values.number("expert_weights_scale", 0.0) or 1.0,
        "rope_scaling": config["rope_scaling"] or unscaled,
    }


def _attention(file: GGUFFile, config: dict[str, Any], block: str, target: str) -> Layout:
    has_latent = config["q_lora_rank"] is not None
    names = {"attn_q_a": "self_attn.q_a_proj", "attn_q_b": "self_attn.q_b_proj"}
    layout = weights(block, target, _PROJECTIONS | (names if has_latent else {"attn_q": "self_attn.q_proj"}))
    layout |= norms(block, target, _NORMS | ({"attn_q_a_norm": "self_attn.q_a_layernorm"} if has_latent else {}))
    keys, values, both = (f"{block}attn_{name}_b.weight" for name in ("k", "v", "kv"))
    of_keys, of_values = f"{target}self_attn.embed_q.weight", f"{target}self_attn.unembed_out.weight"
    heads, size = config["num_attention_heads"], config["qk_nope_head_dim"]
    if config["model_type"] == "deepseek_v2":
        joined = f"{target}self_attn.kv_b_proj.weight"
        if both in file.tensors:
            return layout | {both: entry(joined)}
        return layout | {values: Entry(()), keys: Entry((Target(joined, _joined, True, (values,)),))}
    if both not in file.tensors:
        return layout | {keys: entry(of_keys), values: entry(of_values)}

    def key_part(matrix: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(matrix.reshape(heads, -1, matrix.shape[-1])[:, :size].swapaxes(1, 2))

    def value_part(matrix: np.ndarray) -> np.ndarray:
        return matrix.reshape(heads, -1, matrix.shape[-1])[:, size:]

    return layout | {both: Entry((Target(of_keys, key_part, True), Target(of_values, value_part, True)))}


def _joined(keys: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Give one matrix of the parts of all heads: keys (heads, rank, size) and values (heads, size, rank)."""
    return np.concatenate([keys.swapaxes(1, 2), values], axis=1).reshape(-1, values.shape[-1])
