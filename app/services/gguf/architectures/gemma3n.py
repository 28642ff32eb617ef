"""Google's Gemma 3n: several hidden states that take turns, embeddings for each layer, and layers that share KV."""

import math
from typing import Any

import numpy as np

from app.services.gguf.architectures.common import (
    GATED,
    embeddings,
    head_dim,
    head_rows,
    key_value_heads,
    linear_rope,
    query_key_value,
    sizes,
    vocabulary,
)
from app.services.gguf.architectures.hyperparameters import Hyperparameters, shortest
from app.services.gguf.architectures.layout import Change, Entry, Layout, Target, each_array, entry, norms, weights
from app.services.gguf.architectures.windows import layer_types
from app.services.gguf.file import GGUFFile

_MODEL = "model.language_model."
_WEIGHTS = {
    **GATED,
    "attn_output": "self_attn.o_proj",
    "inp_gate": "per_layer_input_gate",
    "proj": "per_layer_projection",
    "altup_router": "altup.modality_router",
    "laurel_l": "laurel.linear_left",
    "laurel_r": "laurel.linear_right",
}
_NORMS = {
    "attn_norm": "input_layernorm",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
    "post_norm": "post_per_layer_input_norm",
    "altup_router_norm": "altup.router_norm",
    "laurel_post_norm": "laurel.post_laurel_norm",
}
# mlx-lm computes with these as plain numbers.
_COEFFICIENTS = {"altup_correct_coef": "altup.correction_coefs", "altup_predict_coef": "altup.prediction_coefs"}
# What llama.cpp has in its code for files that do not say it.
_SPARSE_LAYERS, _SPARSITY = 10, 0.95
_LAYERS_WITH_KV = 20


def gemma3n(file: GGUFFile) -> tuple[dict[str, Any], Layout]:
    """Read Gemma 3n. Raises LoadFailed."""
    values = Hyperparameters(file)
    config = sizes(file, values)
    layers = config["num_hidden_layers"]
    config |= {
        "model_type": "gemma3n_text",
        "head_dim": head_dim(values, config),
        "num_key_value_heads": key_value_heads(values, config),
        "intermediate_size": values.per_layer("feed_forward_length", layers),
        "num_kv_shared_layers": values.integer("attention.shared_kv_layers", layers - _LAYERS_WITH_KV),
        "vocab_size_per_layer_input": vocabulary(file, values, "per_layer_token_embd.weight"),
        "hidden_size_per_layer_input": values.integer("embedding_length_per_layer_input"),
        "sliding_window": values.integer("attention.sliding_window"),
        "rope_local_base_freq": values.number("rope.freq_base_swa", 10000.0),
        "final_logit_softcapping": values.number("final_logit_softcapping", 30.0),
        "layer_types": layer_types(values, layers, 5),
        "activation_sparsity_pattern": _sparsity(values, layers),
        "altup_num_inputs": values.integer("altup.num_inputs"),
        "altup_active_idx": values.integer("altup.active_idx"),
        "altup_coef_clip": None,  # of training
        "altup_correct_scale": True,
        "laurel_rank": _rank(file, values),
    }
    _check(values, config)
    values.finish()
    text = {"model_type": "gemma3n", "vocab_size": config["vocab_size"], "text_config": config}
    return text, _layout(file, config)


def _check(values: Hyperparameters, config: dict[str, Any]) -> None:
    values.expect("rope.dimension_count", config["head_dim"])
    if linear_rope(values) is not None:
        raise values.refused("scales positions, which mlx-lm's gemma3n has not")
    own = config["layer_types"][: config["num_hidden_layers"] - config["num_kv_shared_layers"]]
    if len(set(own)) != 2:
        raise values.refused("has no layers of both kinds whose KV the others could share")


def _rank(file: GGUFFile, values: Hyperparameters) -> int:
    if (tensor := file.tensors.get("blk.0.laurel_l.weight")) is None:
        raise values.refused("lacks the tensor 'blk.0.laurel_l.weight'")
    return tensor.shape[0]


def _sparsity(values: Hyperparameters, layers: int) -> list[float]:
    """Give the share of activations that each layer drops; the file has the cut in standard deviations instead."""
    if values.get("activation_sparsity_scale") is None:
        return [_SPARSITY if layer < _SPARSE_LAYERS else 0.0 for layer in range(layers)]
    cuts = values.numbers("activation_sparsity_scale", layers)
    return [shortest(0.5 + 0.5 * math.erf(cut / math.sqrt(2))) for cut in cuts]


def _layout(file: GGUFFile, config: dict[str, Any]) -> Layout:
    layout = embeddings(file, _MODEL) | norms("", _MODEL, {"per_layer_proj_norm": "per_layer_projection_norm"})
    layout |= weights("", _MODEL, {"per_layer_token_embd": "embed_tokens_per_layer"})
    layout |= weights("", _MODEL, {"per_layer_model_proj": "per_layer_model_projection"})
    count = config["altup_num_inputs"] - 1
    for name, to in (("altup_proj", "altup_projections"), ("altup_unembd_proj", "altup_unembed_projections")):
        targets = (Target(f"{_MODEL}{to}.{number}.weight", _matrix(number, count)) for number in range(count))
        layout[f"{name}.weight"] = Entry(tuple(targets))
    for layer in range(config["num_hidden_layers"]):
        block, target = f"blk.{layer}.", f"{_MODEL}layers.{layer}."
        layout |= query_key_value(file, block, f"{target}self_attn.", head_rows(config))
        layout |= weights(block, target, _WEIGHTS) | norms(block, target, _NORMS | _COEFFICIENTS)
        layout[f"{block}altup_correct_scale.weight"] = entry(f"{target}altup.correct_output_scale", is_dense=True)
    return layout


def _matrix(number: int, count: int) -> Change:
    """Take one of several matrices. Raises ValueError if there are not as many."""

    def take(array: np.ndarray) -> np.ndarray:
        if len(array) != count:
            raise ValueError(f"{len(array)} matrices instead of {count}")
        return array[number]

    return lambda stack: each_array(stack, take)
