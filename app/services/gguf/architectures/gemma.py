"""Google's Gemma, 1 to 4."""

from typing import Any

import numpy as np

from app.services.gguf.architectures.common import (
    GATED,
    embeddings,
    feed_forward,
    head_dim,
    head_rows,
    key_value_heads,
    linear_rope,
    query_key_value,
    sizes,
    vocabulary,
)
from app.services.gguf.architectures.hyperparameters import Hyperparameters, uniform
from app.services.gguf.architectures.layout import (
    IGNORED,
    Entry,
    Layout,
    as_is,
    entry,
    joined,
    minus_one,
    norms,
    weights,
)
from app.services.gguf.file import GGUFFile, Tensor

_NORMS_1 = {"attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm"}
_NORMS = {
    "attn_norm": "input_layernorm",
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}
_HEAD_NORMS = {"attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm"}
_OUTPUT = {"attn_output": "self_attn.o_proj"}
_PER_LAYER = {"inp_gate": "per_layer_input_gate", "proj": "per_layer_projection"}
_PER_LAYER_NORMS = {"post_norm": "post_per_layer_input_norm"}
_EXPERT_NORMS = {
    "pre_ffw_norm_2": "pre_feedforward_layernorm_2",
    "post_ffw_norm_1": "post_feedforward_layernorm_1",
    "post_ffw_norm_2": "post_feedforward_layernorm_2",
}
_EXPERTS = {f"ffn_{name}_exps": f"experts.switch_glu.{name}_proj" for name in ("gate", "up", "down")}
_LAYERS_OF_GEMMA_2_27B, _LAYERS_OF_GEMMA_3_27B = 46, 62
_NOT_ROTATED = 1e30


def gemma(file: GGUFFile) -> tuple[dict[str, Any], Layout]:
    """Gemma 1: no norms after the sublayers."""
    values = Hyperparameters(file)
    config = _dense(file, values, "gemma")
    values.expect("rope.dimension_count", config["head_dim"])
    if linear_rope(values) is not None:
        raise values.refused("scales positions, which mlx-lm's gemma has not")
    values.finish()
    return config, _shifted(file, config, _NORMS_1, {})


def gemma2(file: GGUFFile) -> tuple[dict[str, Any], Layout]:
    """Gemma 2. mlx-lm lets all layers see everything; every second one should have a window of 4,096 tokens."""
    values = Hyperparameters(file)
    config = _dense(file, values, "gemma2")
    for key in ("attention.sliding_window", "attention.sliding_window_pattern"):
        values.get(key)
    values.expect("rope.dimension_count", config["head_dim"])
    values.expect("rope.freq_base_swa", config["rope_theta"])
    if linear_rope(values) is not None:
        raise values.refused("scales positions, which mlx-lm's gemma2 has not")
    config |= {
        "attn_logit_softcapping": values.number("attn_logit_softcapping", 50.0),
        "final_logit_softcapping": values.number("final_logit_softcapping", 30.0),
        "query_pre_attn_scalar": _query_scale(config, _LAYERS_OF_GEMMA_2_27B),
    }
    values.finish()
    return config, _shifted(file, config, _NORMS, {})


def gemma3(file: GGUFFile) -> tuple[dict[str, Any], Layout]:
    """Gemma 3: which layers have a window, and their rope, llama.cpp has in its code unless the file says otherwise."""
    values = Hyperparameters(file)
    config = _dense(file, values, "gemma3_text")
    values.expect("rope.dimension_count", config["head_dim"])
    values.expect("final_logit_softcapping", 0.0)
    window = values.integer("attention.sliding_window", 0)
    config |= {
        "sliding_window": window or config["max_position_embeddings"],
        "sliding_window_pattern": _pattern(values, config["num_hidden_layers"], 6) if window else 1,
        "rope_local_base_freq": values.number("rope.freq_base_swa", 10000.0),
        "rope_scaling": linear_rope(values),
        "query_pre_attn_scalar": _query_scale(config, _LAYERS_OF_GEMMA_3_27B),
    }
    values.finish()
    return config, _shifted(file, config, _NORMS, _HEAD_NORMS)


def _dense(file: GGUFFile, values: Hyperparameters, model_type: str) -> dict[str, Any]:
    config = sizes(file, values)
    return config | {
        "model_type": model_type,
        "head_dim": head_dim(values, config),
        "num_key_value_heads": key_value_heads(values, config),
        "intermediate_size": feed_forward(values, config["num_hidden_layers"]),
    }


def _query_scale(config: dict[str, Any], largest: int) -> int:
    """Give what the queries are scaled by the root of: not in the file, and different in the largest models."""
    if config["num_hidden_layers"] == largest:
        return int(config["hidden_size"] // config["num_attention_heads"])
    return int(config["head_dim"])


def _pattern(values: Hyperparameters, layers: int, default: int) -> int:
    """Give n where every n-th layer sees everything and the others have a window."""
    if (flags := values.flags("attention.sliding_window_pattern", layers)) is None:
        pattern = values.integer("attention.sliding_window_pattern", default)
    else:
        pattern = flags.index(False) + 1 if False in flags else layers + 1
        if flags != [(layer + 1) % pattern != 0 for layer in range(layers)]:
            raise values.refused("has windows in layers that follow no pattern, which mlx-lm's model has not")
    if not 1 <= pattern <= layers:
        raise values.refused("has no layer without a window, which mlx-lm's model has not")
    return pattern


def _shifted(file: GGUFFile, config: dict[str, Any], around: dict[str, str], of_heads: dict[str, str]) -> Layout:
    """Give the entries of the models in whose files the weights of norms have one added, as mlx-lm does, too."""
    layout = embeddings(file)
    layout["output_norm.weight"] = entry("model.norm.weight", minus_one, is_dense=True)
    for layer in range(config["num_hidden_layers"]):
        block, target = f"blk.{layer}.", f"model.layers.{layer}."
        layout |= _attention(file, config, block, target)
        layout |= weights(block, target, GATED)
        layout |= norms(block, target, around | of_heads, minus_one)
    return layout


def _attention(file: GGUFFile, config: dict[str, Any], block: str, target: str) -> Layout:
    layout = query_key_value(file, block, f"{target}self_attn.", head_rows(config))
    return layout | weights(block, target, _OUTPUT)


def _layer_types(flags: list[bool]) -> list[str]:
    return ["sliding_attention" if has_window else "full_attention" for has_window in flags]


def _per_layer_embeddings(target: str) -> Layout:
    names = {
        "per_layer_token_embd": "embed_tokens_per_layer",
        "per_layer_model_proj": "per_layer_model_projection",
    }
    return weights("", target, names) | norms("", target, {"per_layer_proj_norm": "per_layer_projection_norm"})


def gemma4(file: GGUFFile) -> tuple[dict[str, Any], Layout]:
    """Gemma 4: dense with embeddings for each layer and layers that share KV, dense without, or mixture of experts."""
    values = Hyperparameters(file)
    config = sizes(file, values)
    layers = config["num_hidden_layers"]
    flags = values.flags("attention.sliding_window_pattern", layers)
    if flags is None:
        raise values.refused("does not say which layers have a window (attention.sliding_window_pattern)")
    shared = values.integer("attention.shared_kv_layers", 0)
    full_size = values.integer("attention.key_length")
    size = values.integer("attention.key_length_swa", full_size)
    for key, expected in (
        ("attention.value_length", full_size),
        ("attention.value_length_swa", size),
        ("rope.dimension_count", full_size),
        ("rope.dimension_count_swa", size),
    ):
        values.expect(key, expected)
    experts = values.integer("expert_count", 0)
    per_layer = values.integer("embedding_length_per_layer_input")
    config |= {
        "model_type": "gemma4_text",
        "head_dim": size,
        "global_head_dim": full_size,
        "layer_types": _layer_types(flags),
        "num_kv_shared_layers": shared,
        "sliding_window": values.integer("attention.sliding_window"),
        "final_logit_softcapping": values.number("final_logit_softcapping", 30.0) or None,
        "hidden_size_per_layer_input": per_layer,
        "vocab_size_per_layer_input": vocabulary(
            file, values, "per_layer_token_embd.weight" if per_layer else "token_embd.weight"
        ),
        "rope_parameters": {
            "full_attention": {
                "rope_type": "proportional",
                "rope_theta": config.pop("rope_theta"),
                "partial_rotary_factor": _rotated(file, values, full_size),
            },
            "sliding_attention": {
                "rope_type": "default",
                "rope_theta": values.number("rope.freq_base_swa", 10000.0),
            },
        },
        "enable_moe_block": experts > 0,
        **_key_values(file, values, flags, shared),
        **_widths(values, layers, shared),
    }
    if linear_rope(values) is not None:
        raise values.refused("scales positions, which mlx-lm's gemma4 has not")
    if experts:
        config |= {
            "num_experts": experts,
            "top_k_experts": uniform(values.per_layer("expert_used_count", layers), values, "experts"),
            "moe_intermediate_size": uniform(
                values.per_layer("expert_feed_forward_length", layers), values, "expert_feed_forward_length"
            ),
        }
    values.finish()
    return config, _layout_4(file, config)


def _rotated(file: GGUFFile, values: Hyperparameters, size: int) -> float:
    """Give the share of each head that rope turns: the file slows the other pairs down until they stand still."""
    tensor = file.tensors.get("rope_freqs.weight")
    factors = np.array([]) if tensor is None else _floats(tensor)
    turned = int(np.count_nonzero(factors == 1))
    expected = np.array([1.0] * turned + [_NOT_ROTATED] * (size // 2 - turned), np.float32)
    if not turned or not np.array_equal(factors, expected) or int(size * (share := 2 * turned / size)) != 2 * turned:
        raise values.refused("has other factors of rope (rope_freqs.weight) than Gemma 4's, or none")
    return share


def _floats(tensor: Tensor) -> np.ndarray:
    return tensor.data.reshape(-1).view("<f4") if tensor.type.name == "F32" else np.array([])


def _key_values(file: GGUFFile, values: Hyperparameters, flags: list[bool], shared: int) -> dict[str, Any]:
    """Give the KV heads of both kinds of layers, and whether the full ones use their keys as values."""
    heads = values.per_layer("attention.head_count_kv", len(flags))
    window = {count for count, has_window in zip(heads, flags, strict=True) if has_window}
    full = {count for count, has_window in zip(heads, flags, strict=True) if not has_window}
    own = [layer for layer in range(len(flags) - shared) if not flags[layer]]
    without = [layer for layer in own if not _has_values(file, layer)]
    if len(window) > 1 or len(full) > 1 or without not in ([], own):
        raise values.refused("has KV heads that differ between layers of one kind, which mlx-lm's model has not")
    counts = {"num_key_value_heads": min(window or full), "attention_k_eq_v": bool(without)}
    if without:
        counts["num_global_key_value_heads"] = min(full)
    elif full and window and full != window:
        raise values.refused("has another number of KV heads in full layers that have values, which mlx-lm has not")
    return counts


def _has_values(file: GGUFFile, layer: int) -> bool:
    return any(f"blk.{layer}.{name}.weight" in file.tensors for name in ("attn_v", "attn_qkv"))


def _widths(values: Hyperparameters, layers: int, shared: int) -> dict[str, Any]:
    """Give the size of the feed-forward layers, which may be twice as large where KV is shared."""
    sizes_of_layers = values.per_layer("feed_forward_length", layers)
    size, last = sizes_of_layers[0], sizes_of_layers[-1]
    doubles = bool(shared) and last == 2 * size
    first_shared = layers - shared
    expected = [size * 2 if doubles and layer >= first_shared else size for layer in range(layers)]
    if sizes_of_layers != expected or (shared and first_shared < 1):
        raise values.refused("has feed-forward layers of other sizes than mlx-lm's model")
    return {"intermediate_size": size, "use_double_wide_mlp": doubles}


def _layout_4(file: GGUFFile, config: dict[str, Any]) -> Layout:
    layout = embeddings(file)
    layout["rope_freqs.weight"] = Entry(())  # recomputed from the share that is turned
    if config["hidden_size_per_layer_input"]:
        layout |= _per_layer_embeddings("model.")
    for layer, kind in enumerate(config["layer_types"]):
        block, target = f"blk.{layer}.", f"model.layers.{layer}."
        layout |= _attention_4(file, config, layer, kind == "full_attention")
        layout |= weights(block, target, GATED | _OUTPUT)
        layout |= norms(block, target, _NORMS)
        layout[f"{block}layer_output_scale.weight"] = entry(f"{target}layer_scalar", is_dense=True)
        if config["hidden_size_per_layer_input"]:
            layout |= weights(block, target, _PER_LAYER) | norms(block, target, _PER_LAYER_NORMS)
        if config["enable_moe_block"]:
            layout |= _experts_4(file, config, block, target)
    return layout


def _attention_4(file: GGUFFile, config: dict[str, Any], layer: int, is_full: bool) -> Layout:
    block, target = f"blk.{layer}.", f"model.layers.{layer}.self_attn."
    size = config["global_head_dim"] if is_full else config["head_dim"]
    keys_are_values = is_full and config["attention_k_eq_v"]
    heads = config["num_global_key_value_heads"] if keys_are_values else config["num_key_value_heads"]
    cached = heads * size
    layout = query_key_value(file, block, target, (config["num_attention_heads"] * size, cached, cached))
    layout |= norms(block, f"model.layers.{layer}.", _HEAD_NORMS)
    if keys_are_values:
        layout.pop(f"{block}attn_v.weight", None)
    if layer >= config["num_hidden_layers"] - config["num_kv_shared_layers"]:
        # Such a layer uses the keys and values of an earlier one; llama.cpp does not look at its own, either.
        if (fused := f"{block}attn_qkv.weight") in layout:
            layout[fused] = Entry(layout[fused].targets[:1])
        layout |= {f"{block}{name}.weight": IGNORED for name in ("attn_k", "attn_v", "attn_k_norm")}
    return layout


def _experts_4(file: GGUFFile, config: dict[str, Any], block: str, target: str) -> Layout:
    layout = weights(block, target, _EXPERTS | {"ffn_gate_inp": "router.proj"}) | norms(block, target, _EXPERT_NORMS)
    layout[f"{block}ffn_gate_inp.scale"] = entry(f"{target}router.scale", is_dense=True)
    layout[f"{block}ffn_down_exps.scale"] = entry(f"{target}router.per_expert_scale", as_is, is_dense=True)
    if (fused := f"{block}ffn_gate_up_exps.weight") in file.tensors:
        size = config["moe_intermediate_size"]
        names = [layout.pop(f"{block}ffn_{name}_exps.weight").targets[0].name for name in ("gate", "up")]
        layout[fused] = joined(file, fused, dict.fromkeys(names, size))
    return layout
