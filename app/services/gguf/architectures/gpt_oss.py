"""OpenAI's gpt-oss: experts with biases, windows in every other layer, and attention that may look at nothing."""

from typing import Any

from app.services.gguf.architectures.common import (
    embeddings,
    feed_forward,
    head_dim,
    head_rows,
    key_value_heads,
    query_key_value,
    sizes,
)
from app.services.gguf.architectures.hyperparameters import Hyperparameters, uniform
from app.services.gguf.architectures.layout import Layout, entry, norms, weights
from app.services.gguf.architectures.rope import scaled_rope
from app.services.gguf.architectures.windows import layer_types
from app.services.gguf.file import GGUFFile

_EXPERTS = {f"ffn_{name}_exps": f"mlp.experts.{name}_proj" for name in ("gate", "up", "down")}
_NORMS = {"attn_norm": "input_layernorm", "post_attention_norm": "post_attention_layernorm"}


def gpt_oss(file: GGUFFile) -> tuple[dict[str, Any], Layout]:
    """Read gpt-oss. Raises LoadFailed."""
    values = Hyperparameters(file)
    config = sizes(file, values)
    layers = config["num_hidden_layers"]
    config |= {
        "model_type": "gpt_oss",
        "head_dim": head_dim(values, config),
        "num_key_value_heads": key_value_heads(values, config),
        "intermediate_size": _expert_size(values, layers),
        "num_local_experts": values.integer("expert_count"),
        "num_experts_per_tok": uniform(values.per_layer("expert_used_count", layers), values, "experts"),
        "sliding_window": values.integer("attention.sliding_window"),
        "layer_types": layer_types(values, layers, 2),
        "rope_scaling": scaled_rope(values),
    }
    values.expect("rope.dimension_count", config["head_dim"])
    values.expect("rope.freq_base_swa", config["rope_theta"])
    values.finish()
    return config, _layout(file, config)


def _expert_size(values: Hyperparameters, layers: int) -> int:
    width = feed_forward(values, layers)
    return uniform(values.per_layer("expert_feed_forward_length", layers, width), values, "expert_feed_forward_length")


def _layout(file: GGUFFile, config: dict[str, Any]) -> Layout:
    layout = embeddings(file, ties=False)
    for layer in range(config["num_hidden_layers"]):
        block, target = f"blk.{layer}.", f"model.layers.{layer}."
        layout |= query_key_value(file, block, f"{target}self_attn.", head_rows(config), biases=True)
        names = {"attn_output": "self_attn.o_proj", "ffn_gate_inp": "mlp.router", **_EXPERTS}
        layout |= weights(block, target, names, biases=True)
        layout |= norms(block, target, _NORMS)
        layout[f"{block}attn_sinks.weight"] = entry(f"{target}self_attn.sinks", is_dense=True)
    # All biases are there in mlx-lm's model, so none may lack.
    return {name: one.required() for name, one in layout.items()}
