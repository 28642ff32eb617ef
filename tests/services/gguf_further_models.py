"""Further tiny models as GGUF files: those whose tensors have other shapes, or an order of their own, in the file."""

from typing import Any

import numpy as np

from tests.services.gguf_models import SIZES, Change, TinyModel, pairs_together

_TIED: dict[str, Any] = {"tie_word_embeddings": True}
_UNTIED: dict[str, Any] = {"tie_word_embeddings": False}
_LLAMA = {
    r"attn_q\.": pairs_together("num_attention_heads"),
    r"attn_k\.": pairs_together("num_key_value_heads"),
}
_ROPE = {
    "rope_type": "yarn",
    "factor": 4.0,
    "original_max_position_embeddings": 16,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
}
_ROPE_KEYS = {
    "rope.scaling.type": "yarn",
    "rope.scaling.factor": 4.0,
    "rope.scaling.original_context_length": 16,
    "rope.scaling.yarn_beta_fast": 32.0,
    "rope.scaling.yarn_beta_slow": 1.0,
}
_WINDOWS = ["sliding_attention", "sliding_attention", "full_attention"]
_LONG = [1.0 + 0.5 * pair for pair in range(12)]
_SHORT = [1.0 + pair / 8 for pair in range(12)]


def without_last_axis(array: np.ndarray, config: dict[str, Any]) -> np.ndarray:
    """What the file has of the kernels of a convolution: (channels, width)."""
    return array[..., 0]


def matrices(array: np.ndarray, config: dict[str, Any]) -> np.ndarray:
    """What the file has of several square matrices: (matrices, rows, columns)."""
    return array.reshape(-1, array.shape[-1], array.shape[-1])


def decay(array: np.ndarray, config: dict[str, Any]) -> np.ndarray:
    """What the file has of `A_log`."""
    return -np.exp(array)


def tiled(axis: int = 0, *, after_keys: bool = False, then: Change | None = None) -> Change:
    """Let the first value heads of all key heads come first, then the second ones, as in files of Qwen 3.5."""

    def change(array: np.ndarray, config: dict[str, Any]) -> np.ndarray:
        keys, heads = config["linear_num_key_heads"], config["linear_num_value_heads"]
        first = 2 * keys * config["linear_key_head_dim"] if after_keys else 0
        rest = np.moveaxis(array, axis, 0)
        order = np.arange(len(rest) - first).reshape(keys, heads // keys, -1).swapaxes(0, 1).reshape(-1) + first
        moved = np.moveaxis(rest[np.concatenate([np.arange(first), order])], 0, axis)
        return moved if then is None else then(moved, config)

    return change


def by_kind(array: np.ndarray, config: dict[str, Any]) -> dict[str, np.ndarray]:
    """Split what mlx-lm has of queries, keys, values and gates of each key head into what the file has of all."""
    keys, size = config["linear_num_key_heads"], config["linear_key_head_dim"]
    values = config["linear_num_value_heads"] // keys * config["linear_value_head_dim"]
    parts = np.split(array.reshape(keys, -1, array.shape[-1]), [size, 2 * size, 2 * size + values], axis=1)
    flat = [part.reshape(-1, array.shape[-1]) for part in parts]
    return {"attn_qkv": np.concatenate(flat[:3]), "attn_gate": flat[3]}


def keys_and_values(array: np.ndarray, config: dict[str, Any]) -> dict[str, np.ndarray]:
    """Split what mlx-lm has of the keys and values of all heads into what the file has: the keys turned."""
    heads = array.reshape(config["num_attention_heads"], -1, array.shape[-1])
    keys, values = np.split(heads, [config["qk_nope_head_dim"]], axis=1)
    return {"attn_k_b": keys.swapaxes(1, 2), "attn_v_b": values}


_LINEAR = SIZES | {
    "num_hidden_layers": 4,
    "rms_norm_eps": 1e-06,
    "head_dim": 32,
    "full_attention_interval": 4,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 6,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 32,
    "linear_conv_kernel_dim": 4,
}
_LINEAR_KEYS = {
    "rope.dimension_count": 8,
    "full_attention_interval": 4,
    "ssm.conv_kernel": 4,
    "ssm.state_size": 16,
    "ssm.group_count": 2,
    "ssm.time_step_rank": 6,
    "ssm.inner_size": 192,
}
_LINEAR_NAMES = {r"dt_bias$": "dt_proj.bias"}
_LINEAR_ROPE = {
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.25},
}
_TILED = {
    r"attn_qkv": tiled(after_keys=True),
    r"attn_gate|ssm_(dt|alpha|beta)": tiled(),
    r"ssm_a$": tiled(then=decay),
    r"ssm_conv1d": tiled(after_keys=True, then=without_last_axis),
    r"ssm_out": tiled(1),
}
_NEXT = _LINEAR | {
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
    "shared_expert_intermediate_size": 64,
    "norm_topk_prob": True,
}
_EXPERT_KEYS = {"expert_feed_forward_length": 32, "expert_shared_feed_forward_length": 64}
_QWEN_3_NEXT = _NEXT | {
    "model_type": "qwen3_next",
    "partial_rotary_factor": 0.25,
    "decoder_sparse_step": 1,
    "mlp_only_layers": [],
    **_UNTIED,
}
_LAYERS_LFM = ["conv", "full_attention", "conv", "full_attention"]
_LFM = {key: value for key, value in SIZES.items() if key != "rms_norm_eps"} | {
    "num_hidden_layers": 4,
    "norm_eps": 1e-05,
    "conv_L_cache": 3,
    "conv_bias": False,
    "layer_types": _LAYERS_LFM,
    "full_attn_idxs": [1, 3],
    **_TIED,
}
_LFM_KEYS = {
    "attention.head_count_kv": [0, 2, 0, 2],
    "attention.layer_norm_rms_epsilon": 1e-05,
    "shortconv.l_cache": 3,
}
_CONVOLUTIONS = {r"shortconv\.conv": without_last_axis}
_CHOICE = {r"e_score_correction_bias": "e_score_correction.bias"}
_SIGMOID = {
    "moe_intermediate_size": 32,
    "n_routed_experts": 8,
    "num_experts_per_tok": 2,
    "norm_topk_prob": True,
    "routed_scaling_factor": 1.5,
    "n_group": 4,
    "topk_group": 2,
    "n_shared_experts": 2,
    "first_k_dense_replace": 1,
    "scoring_func": "sigmoid",
    "topk_method": "noaux_tc",
}
_SIGMOID_KEYS = {
    "expert_count": 8,
    "expert_feed_forward_length": 32,
    "expert_shared_count": 2,
    "expert_gating_func": 2,
    "expert_group_count": 4,
    "expert_group_used_count": 2,
    "expert_weights_norm": True,
    "expert_weights_scale": 1.5,
    "leading_dense_block_count": 1,
}
_LATENT = SIZES | {
    "rms_norm_eps": 1e-06,
    "num_key_value_heads": 4,
    "kv_lora_rank": 32,
    "q_lora_rank": 32,
    "qk_rope_head_dim": 16,
    "qk_nope_head_dim": 32,
    "v_head_dim": 64,
}
_LATENT_KEYS = {
    "attention.head_count_kv": 1,
    "attention.kv_lora_rank": 32,
    "attention.q_lora_rank": 32,
    "attention.key_length": 48,
    "attention.value_length": 32,
    "attention.key_length_mla": 48,
    "attention.value_length_mla": 64,
    "rope.dimension_count": 16,
}
_LATENT_NAMES = {r"embed_q": "k_b_proj", r"unembed_out": "v_b_proj", **_CHOICE}
_SECOND = _LATENT | {
    "model_type": "deepseek_v2",
    "q_lora_rank": None,
    "topk_method": "greedy",
    "moe_intermediate_size": 32,
    "n_routed_experts": 8,
    "num_experts_per_tok": 2,
    "routed_scaling_factor": 1.0,
    "n_shared_experts": 1,
    "first_k_dense_replace": 1,
}
_SECOND_KEYS = {
    "attention.q_lora_rank": None,
    "expert_count": 8,
    "expert_feed_forward_length": 32,
    "expert_shared_count": 1,
    "leading_dense_block_count": 1,
}

_GEMMA_3N = {
    "model_type": "gemma3n",
    "text_config": SIZES
    | _TIED
    | {
        "model_type": "gemma3n_text",
        "num_hidden_layers": 5,
        "head_dim": 16,
        "rms_norm_eps": 1e-06,
        "intermediate_size": [96] * 5,
        "num_kv_shared_layers": 2,
        "vocab_size_per_layer_input": 128,
        "hidden_size_per_layer_input": 32,
        "sliding_window": 8,
        "rope_theta": 1000000.0,
        "rope_local_base_freq": 10000.0,
        "final_logit_softcapping": 30.0,
        "layer_types": [*_WINDOWS, "sliding_attention", "full_attention"],
        "activation_sparsity_pattern": [0.95, 0.95, 0.0, 0.0, 0.0],
        "altup_num_inputs": 4,
        "altup_active_idx": 1,
        "altup_coef_clip": None,
        "altup_correct_scale": True,
        "laurel_rank": 32,
    },
}
FURTHER = (
    TinyModel(
        "gpt-oss",
        "gpt-oss",
        SIZES
        | _UNTIED
        | {
            "model_type": "gpt_oss",
            "num_hidden_layers": 4,
            "intermediate_size": 64,
            "head_dim": 16,
            "num_local_experts": 4,
            "num_experts_per_tok": 2,
            "sliding_window": 8,
            "layer_types": ["sliding_attention", "full_attention"] * 2,
            "rope_scaling": _ROPE,
        },
        {"attention.sliding_window": 8, "expert_feed_forward_length": 64, **_ROPE_KEYS},
        {r"sinks$": "sinks.weight"},
    ),
    TinyModel("phi3", "phi3", SIZES | _UNTIED | {"model_type": "phi3", "partial_rotary_factor": 1.0}),
    TinyModel(
        "phi3-long",
        "phi3",
        SIZES
        | _TIED
        | {
            "model_type": "phi3",
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "partial_rotary_factor": 0.75,
            "original_max_position_embeddings": 64,
            "rope_scaling": {"type": "longrope", "rope_type": "longrope", "long_factor": _LONG, "short_factor": _SHORT},
        },
        {
            "rope.dimension_count": 24,
            "rope.scaling.original_context_length": 64,
            "rope.scaling.attn_factor": float((1 + np.log(8) / np.log(64)) ** 0.5),
            "attention.sliding_window": 0,
        },
        tensors={
            "rope_factors_long.weight": np.array(_LONG, np.float32),
            "rope_factors_short.weight": np.array(_SHORT, np.float32),
        },
    ),
    TinyModel("mistral3", "mistral3", SIZES | _UNTIED | {"model_type": "llama", "head_dim": 16}, changes=_LLAMA),
    TinyModel(
        "ministral3",
        "mistral3",
        {key: value for key, value in SIZES.items() if key != "rope_theta"}
        | _TIED
        | {
            "model_type": "ministral3",
            "head_dim": 16,
            "rope_parameters": {
                **_ROPE,
                "rope_theta": 1000000.0,
                "mscale": 1.0,
                "mscale_all_dim": 1.0,
                "llama_4_scaling_beta": 0.1,
            },
        },
        _ROPE_KEYS
        | {
            "rope.freq_base": 1000000.0,
            "rope.scaling.yarn_log_multiplier": 1.0,
            "attention.temperature_scale": 0.1,
        },
        changes=_LLAMA,
    ),
    TinyModel(
        "granite",
        "granite",
        SIZES
        | _TIED
        | {
            "model_type": "granite",
            "attention_multiplier": 0.125,
            "embedding_multiplier": 3.0,
            "residual_multiplier": 0.5,
            "logits_scaling": 2.0,
            "attention_bias": False,
            "mlp_bias": False,
        },
        {"attention.scale": 0.125, "embedding_scale": 3.0, "residual_scale": 0.5, "logit_scale": 2.0},
        changes=_LLAMA,
    ),
    TinyModel(
        "smollm3",
        "smollm3",
        SIZES | _TIED | {"model_type": "smollm3", "num_hidden_layers": 5, "head_dim": 16, "no_rope_layer_interval": 4},
        changes=_LLAMA,
    ),
    TinyModel("olmo2", "olmo2", SIZES | _UNTIED | {"model_type": "olmo2", "head_dim": 16}),
    TinyModel(
        "olmo3",
        "olmo2",
        SIZES
        | _UNTIED
        | {
            "model_type": "olmo3",
            "head_dim": 16,
            "rope_scaling": _ROPE,
            "sliding_window": 8,
            "layer_types": _WINDOWS,
        },
        _ROPE_KEYS
        | {
            "attention.sliding_window": 8,
            "attention.sliding_window_pattern": [True, True, False],
            "rope.scaling.yarn_attn_factor": 1.2079,
        },
    ),
    TinyModel(
        "qwen3.5",
        "qwen35",
        {
            "model_type": "qwen3_5",
            "text_config": _LINEAR
            | _TIED
            | _LINEAR_ROPE
            | {"model_type": "qwen3_5_text", "linear_num_value_heads": 4, "linear_value_head_dim": 128},
        },
        _LINEAR_KEYS
        | {
            "ssm.time_step_rank": 4,
            "ssm.inner_size": 512,
            "rope.dimension_sections": [2, 1, 1, 0],
            "attention.recurrent_layers": [True, True, True, False],
        },
        _LINEAR_NAMES,
        changes=_TILED,
    ),
    TinyModel(
        "qwen3.5-experts",
        "qwen35moe",
        {
            "model_type": "qwen3_5_moe",
            "text_config": _NEXT | _UNTIED | _LINEAR_ROPE | {"model_type": "qwen3_5_moe_text"},
        },
        _LINEAR_KEYS | _EXPERT_KEYS | {"rope.dimension_sections": [2, 1, 1, 0]},
        _LINEAR_NAMES,
        changes=_TILED,
    ),
    TinyModel(
        "qwen3-next",
        "qwen3next",
        _QWEN_3_NEXT,
        _LINEAR_KEYS | _EXPERT_KEYS,
        _LINEAR_NAMES,
        changes={r"ssm_a$": decay, r"ssm_conv1d": without_last_axis},
        parts={r"ssm_in": by_kind},
    ),
    TinyModel(
        "qwen3-next-first-files",
        "qwen3next",
        _QWEN_3_NEXT,
        _LINEAR_KEYS | _EXPERT_KEYS,
        _LINEAR_NAMES,
        changes={r"ssm_a$": decay, r"ssm_conv1d": without_last_axis},
    ),
    TinyModel(
        "lfm2",
        "lfm2",
        _LFM
        | {
            "model_type": "lfm2",
            "block_dim": 64,
            "block_ff_dim": 96,
            "block_auto_adjust_ff_dim": False,
            "block_multiple_of": 1,
            "block_ffn_dim_multiplier": 1.0,
        },
        _LFM_KEYS,
        changes=_CONVOLUTIONS,
    ),
    TinyModel(
        "lfm2-experts",
        "lfm2moe",
        _LFM
        | {
            "model_type": "lfm2_moe",
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 32,
            "num_dense_layers": 1,
            "norm_topk_prob": True,
            "use_expert_bias": True,
        },
        _LFM_KEYS | {"expert_feed_forward_length": 32, "expert_gating_func": 2, "leading_dense_block_count": 1},
        {r"expert_bias$": "expert_bias.bias"},
        changes=_CONVOLUTIONS,
    ),
    TinyModel(
        "glm4",
        "glm4",
        SIZES | _UNTIED | {"model_type": "glm4", "head_dim": 16, "partial_rotary_factor": 0.5, "attention_bias": True},
        {"rope.dimension_count": 8},
    ),
    TinyModel(
        "glm4-experts",
        "glm4moe",
        SIZES
        | _UNTIED
        | _SIGMOID
        | {
            "model_type": "glm4_moe",
            "head_dim": 16,
            "partial_rotary_factor": 0.5,
            "attention_bias": True,
            "use_qk_norm": True,
            "rope_scaling": None,
        },
        _SIGMOID_KEYS | {"rope.dimension_count": 8},
        _CHOICE,
    ),
    TinyModel(
        "deepseek3",
        "deepseek2",
        _LATENT
        | _SIGMOID
        | {
            "model_type": "deepseek_v3",
            "rope_scaling": {**_ROPE, "type": "yarn", "mscale": 1.0, "mscale_all_dim": 1.0},
        },
        _LATENT_KEYS | _SIGMOID_KEYS | _ROPE_KEYS | {"rope.scaling.yarn_log_multiplier": 0.1},
        _LATENT_NAMES,
    ),
    TinyModel(
        "glm4-flash",
        "deepseek2",
        _LATENT | _SIGMOID | _UNTIED | {"model_type": "glm4_moe_lite", "rms_norm_eps": 1e-05, "q_lora_rank": None},
        _LATENT_KEYS | _SIGMOID_KEYS | {"attention.q_lora_rank": None},
        _LATENT_NAMES,
    ),
    TinyModel(
        "deepseek2",
        "deepseek2",
        _SECOND | {"rope_scaling": {**_ROPE, "type": "yarn", "mscale": 0.707, "mscale_all_dim": 0.707}},
        _LATENT_KEYS | _SECOND_KEYS | _ROPE_KEYS | {"rope.scaling.yarn_log_multiplier": 0.0707},
        parts={r"attn_kv_b": keys_and_values},
    ),
    TinyModel(
        "deepseek2-first-files",
        "deepseek2",
        _SECOND | {"rope_scaling": {"type": "yarn", "factor": 1.0}},
        _LATENT_KEYS
        | _SECOND_KEYS
        | {
            "attention.head_count_kv": 4,
            "attention.value_length": 64,
            "attention.key_length_mla": None,
            "attention.value_length_mla": None,
        },
    ),
    TinyModel(
        "gemma3n",
        "gemma3n",
        _GEMMA_3N,
        {
            "activation_sparsity_scale": [1.6448536, 1.6448536, *[-float("inf")] * 3],
            "altup.active_idx": 1,
            "altup.num_inputs": 4,
            "attention.shared_kv_layers": 2,
            "attention.sliding_window": 8,
            "attention.sliding_window_pattern": [True, True, False, True, False],
            "embedding_length_per_layer_input": 32,
        },
        {
            r"(altup_(unembed_)?projections)\.\d": r"\1",
            r"correct_output_scale$": "correct_output_scale.weight",
        },
        changes={r"altup_(unembd_)?proj\.": matrices},
    ),
)
