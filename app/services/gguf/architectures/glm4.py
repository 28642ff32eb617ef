"""Z.ai's GLM 4, dense (norms on both sides of each sublayer), and GLM 4.5 to 4.7 with experts."""

from typing import Any

from app.services.gguf.architectures import experts
from app.services.gguf.architectures.common import (
    embeddings,
    feed_forward,
    head_dim,
    head_rows,
    key_value_heads,
    linear_rope,
    multi_token_prediction,
    query_key_value,
    sizes,
)
from app.services.gguf.architectures.hyperparameters import Hyperparameters
from app.services.gguf.architectures.layout import Layout, norms, weights
from app.services.gguf.architectures.rope import rotated_share
from app.services.gguf.file import GGUFFile

_NORMS = {
    "attn_norm": "input_layernorm",
    "post_attention_norm": "post_self_attn_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "post_ffw_norm": "post_mlp_layernorm",
}
_NORMS_MOE = {"attn_norm": "input_layernorm", "post_attention_norm": "post_attention_layernorm"}
_HEAD_NORMS = {"attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm"}
_OUTPUT = {"attn_output": "self_attn.o_proj"}


def glm4(file: GGUFFile) -> tuple[dict[str, Any], Layout]:
    """Read GLM 4, whose gate and up are one matrix in mlx-lm as in the file. Raises LoadFailed."""
    values = Hyperparameters(file)
    config = _config(file, values) | {"model_type": "glm4"}
    values.finish()
    layout = embeddings(file, ties=False)
    for layer in range(config["num_hidden_layers"]):
        block, target = f"blk.{layer}.", f"model.layers.{layer}."
        layout |= _attention(file, config, block, target) | norms(block, target, _NORMS)
        layout |= weights(block, target, {"ffn_up": "mlp.gate_up_proj", "ffn_down": "mlp.down_proj"})
    return config, layout | multi_token_prediction(file, config)


def glm4moe(file: GGUFFile) -> tuple[dict[str, Any], Layout]:
    """Read GLM 4.5 to 4.7. Raises LoadFailed."""
    values = Hyperparameters(file)
    config = _config(file, values) | {
        "model_type": "glm4_moe",
        "rope_scaling": None,
        "use_qk_norm": "blk.0.attn_q_norm.weight" in file.tensors,
        "n_shared_experts": values.integer("expert_shared_count", 0) or None,
        "first_k_dense_replace": values.integer("leading_dense_block_count", 0),
    }
    config |= experts.sigmoid_choice(values, config["num_hidden_layers"])
    values.finish()
    layout = embeddings(file, ties=False)
    for layer in range(config["num_hidden_layers"]):
        block, target = f"blk.{layer}.", f"model.layers.{layer}."
        layout |= _attention(file, config, block, target)
        layout |= norms(block, target, _NORMS_MOE | (_HEAD_NORMS if config["use_qk_norm"] else {}))
        layout |= experts.dense_or_chosen(file, config, layer)
    return config, layout | multi_token_prediction(file, config)


def _config(file: GGUFFile, values: Hyperparameters) -> dict[str, Any]:
    config = sizes(file, values)
    size = head_dim(values, config)
    if linear_rope(values) is not None:
        raise values.refused("scales positions, which mlx-lm's model has not")
    return config | {
        "head_dim": size,
        "num_key_value_heads": key_value_heads(values, config),
        "intermediate_size": feed_forward(values, config["num_hidden_layers"]),
        "partial_rotary_factor": rotated_share(values, size),
        "attention_bias": any(f"blk.0.{name}.bias" in file.tensors for name in ("attn_q", "attn_qkv")),
    }


def _attention(file: GGUFFile, config: dict[str, Any], block: str, target: str) -> Layout:
    layout = query_key_value(file, block, f"{target}self_attn.", head_rows(config), biases=config["attention_bias"])
    return {name: one.required() for name, one in layout.items()} | weights(block, target, _OUTPUT)
