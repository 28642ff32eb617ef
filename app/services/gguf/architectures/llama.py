"""Llama and Mixtral, Qwen 2 and 3 (dense and with experts): one layer of attention, one gated feed-forward layer."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from app.services.gguf.architectures.common import (
    EXPERTS,
    GATED,
    embeddings,
    feed_forward,
    head_dim,
    head_rows,
    key_value_heads,
    query_key_value,
    sizes,
)
from app.services.gguf.architectures.hyperparameters import Hyperparameters, uniform
from app.services.gguf.architectures.layout import Entry, Layout, Target, norms, weights
from app.services.gguf.architectures.rope import halves_apart, scaled_rope
from app.services.gguf.file import GGUFFile

_NORMS = {"attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm"}
_HEAD_NORMS = {"attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm"}
_OUTPUT = {"attn_output": "self_attn.o_proj"}
_ROUTER = {"ffn_gate_inp": "mlp.gate"}
# In a text, all sections of a position count alike, and there is nothing to add to the first layers.
_OF_PICTURES = ("rope.dimension_sections", "n_deepstack_layers")
# What Llama 3.1 to 3.3 have; the file has only the factors that follow from it.
_LOW, _HIGH, _ORIGINAL = 1.0, 4.0, 8192


def llama(file: GGUFFile) -> tuple[dict[str, Any], Layout]:
    """Llama and what is built like it; Mixtral where there are experts."""
    values = Hyperparameters(file)
    config = decoder(file, values, "llama")
    config["rope_scaling"] = _llama3_rope(file, values, config) or scaled_rope(values)
    if values.integer("expert_count", 0):
        config |= {"model_type": "mixtral", **_experts(values, config, "num_local_experts")}
        if config["head_dim"] * config["num_attention_heads"] != config["hidden_size"] or config["rope_scaling"]:
            raise values.refused("has heads or a rope that mlx-lm's mixtral has not")
        moe = {name: "block_sparse_moe." + to.removeprefix("mlp.") for name, to in (EXPERTS | _ROUTER).items()}
        return finish(values, config, layout_of_layers(file, config, moe, turns=True))
    biases = {"attention_bias": "blk.0.attn_output.bias", "mlp_bias": "blk.0.ffn_gate.bias"}
    config |= {key: name in file.tensors for key, name in biases.items()}
    return finish(values, config, layout_of_layers(file, config, GATED, turns=True))


def qwen2(file: GGUFFile) -> tuple[dict[str, Any], Layout]:
    """Qwen 2 and 2.5: queries, keys and values have biases."""
    values = Hyperparameters(file)
    config = decoder(file, values, "qwen2")
    if config.pop("head_dim") * config["num_attention_heads"] != config["hidden_size"]:
        raise values.refused("has heads of another size than mlx-lm's qwen2")
    config["rope_scaling"] = scaled_rope(values)
    return finish(values, config, layout_of_layers(file, config, GATED, biases=True))


def qwen3(file: GGUFFile) -> tuple[dict[str, Any], Layout]:
    """Qwen 3: queries and keys are normalized."""
    values = Hyperparameters(file)
    config = decoder(file, values, "qwen3")
    config["rope_scaling"] = scaled_rope(values)
    return finish(values, config, layout_of_layers(file, config, GATED, head_norms=_HEAD_NORMS))


def qwen3moe(file: GGUFFile) -> tuple[dict[str, Any], Layout]:
    """Qwen 3 with experts. That their shares are normalized stands in llama.cpp's code, not in the file."""
    values = Hyperparameters(file)
    config = decoder(file, values, "qwen3_moe")
    config["rope_scaling"] = scaled_rope(values)
    size = values.integer("expert_feed_forward_length", 0) or config["intermediate_size"]
    config |= _experts(values, config, "num_experts") | {
        "moe_intermediate_size": size,
        "norm_topk_prob": True,
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
    }
    return finish(values, config, layout_of_layers(file, config, EXPERTS | _ROUTER, head_norms=_HEAD_NORMS))


def decoder(file: GGUFFile, values: Hyperparameters, model_type: str) -> dict[str, Any]:
    """Give the config of what is built like Llama, without its rope's scaling. Raises LoadFailed."""
    config = sizes(file, values)
    config |= {
        "model_type": model_type,
        "head_dim": head_dim(values, config),
        "num_key_value_heads": key_value_heads(values, config),
        "intermediate_size": feed_forward(values, config["num_hidden_layers"]),
    }
    values.expect("rope.dimension_count", config["head_dim"])
    values.expect("nextn_predict_layers", 0)
    for key in _OF_PICTURES:
        values.get(key)
    return config


def _experts(values: Hyperparameters, config: dict[str, Any], count: str) -> dict[str, int]:
    active = uniform(values.per_layer("expert_used_count", config["num_hidden_layers"]), values, "experts")
    experts = values.integer("expert_count")
    if not 0 < active <= experts:
        raise values.refused(f"has {experts} experts, of which {active} are used")
    return {count: experts, "num_experts_per_tok": active}


def finish(values: Hyperparameters, config: dict[str, Any], layout: Layout) -> tuple[dict[str, Any], Layout]:
    """Give both without what says nothing. Raises LoadFailed for keys that were not read."""
    values.finish()
    return {key: value for key, value in config.items() if value is not None}, layout


def layout_of_layers(
    file: GGUFFile,
    config: dict[str, Any],
    feed_forward_names: dict[str, str],
    *,
    head_norms: dict[str, str] | None = None,
    biases: bool = False,
    turns: bool = False,
) -> Layout:
    """Give the entries of a model, with the biases that its config has.

    `biases`: queries, keys and values have some in any case. `turns`: the file has the rows of queries and keys in
    llama.cpp's order.
    """
    layout = embeddings(file)
    heads, cached = config["num_attention_heads"], config["num_key_value_heads"]
    has_biases = config.get("attention_bias", False)
    for layer in range(config["num_hidden_layers"]):
        block, target = f"blk.{layer}.", f"model.layers.{layer}."
        attention = query_key_value(
            file,
            block,
            f"{target}self_attn.",
            head_rows(config),
            biases=biases or has_biases,
        )
        layout |= _unturned(attention, {"q_proj": heads, "k_proj": cached}) if turns else attention
        layout |= weights(block, target, _OUTPUT, biases=has_biases)
        layout |= weights(block, target, feed_forward_names, biases=config.get("mlp_bias", False))
        layout |= norms(block, target, _NORMS | (head_norms or {}))
    if "rope_freqs.weight" in file.tensors and turns:
        layout["rope_freqs.weight"] = Entry(())  # compared with what mlx-lm computes
    return {name: one.required() for name, one in layout.items()}


def _unturned(layout: Layout, heads: dict[str, int]) -> Layout:
    """Put the rows of queries and keys into mlx-lm's order."""

    def changed(target: Target) -> Target:
        count = heads.get(target.name.split(".")[-2])
        return target if count is None else Target(target.name, halves_apart(count, target.change), target.is_dense)

    return {name: Entry(tuple(map(changed, one.targets)), one.is_optional) for name, one in layout.items()}


def _llama3_rope(file: GGUFFile, values: Hyperparameters, config: dict[str, Any]) -> dict[str, Any] | None:
    """Give the scaling that the factors of Llama 3 follow from. Raises LoadFailed for other factors."""
    if (tensor := file.tensors.get("rope_freqs.weight")) is None:
        return None
    values.expect("rope.scaling.type", "none")
    factors = tensor.data.reshape(-1).view("<f4") if tensor.type.name == "F32" else np.array([])
    factor = float(factors.max(initial=1.0))
    expected = _llama3_factors(config["head_dim"], config["rope_theta"], factor)
    if factors.shape != expected.shape or not np.allclose(factors, expected, rtol=1e-3):
        raise values.refused("has other factors of rope (rope_freqs.weight) than Llama 3's")
    return {
        "rope_type": "llama3",
        "factor": factor,
        "low_freq_factor": _LOW,
        "high_freq_factor": _HIGH,
        "original_max_position_embeddings": _ORIGINAL,
    }


def _llama3_factors(size: int, base: float, factor: float) -> np.ndarray:
    with np.errstate(all="ignore"):  # of a base that cannot be, no factors follow
        waves = 2 * math.pi * base ** (np.arange(0, size, 2) / size)
        smooth = np.clip((_ORIGINAL / waves - _LOW) / (_HIGH - _LOW), 0, 1)
        return 1 / ((1 - smooth) / factor + smooth)


ARCHITECTURES: dict[str, Callable[[GGUFFile], tuple[dict[str, Any], Layout]]] = {
    "llama": llama,
    "qwen2": qwen2,
    "qwen2vl": qwen2,
    "qwen3": qwen3,
    "qwen3vl": qwen3,
    "qwen3moe": qwen3moe,
    "qwen3vlmoe": qwen3moe,
}
