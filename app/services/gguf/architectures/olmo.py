"""AllenAI's OLMo 2 and 3: norms after the sublayers; queries and keys are normalized over all heads."""

from typing import Any

from app.services.gguf.architectures.common import (
    GATED,
    embeddings,
    feed_forward,
    head_dim,
    head_rows,
    key_value_heads,
    query_key_value,
    sizes,
)
from app.services.gguf.architectures.hyperparameters import Hyperparameters
from app.services.gguf.architectures.layout import Layout, norms, weights
from app.services.gguf.architectures.rope import scaled_rope
from app.services.gguf.architectures.windows import layer_types
from app.services.gguf.file import GGUFFile

_NORMS = {
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "post_attention_norm": "post_attention_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}


def olmo2(file: GGUFFile) -> tuple[dict[str, Any], Layout]:
    """Read OLMo 2, or OLMo 3 where there are windows. Raises LoadFailed."""
    values = Hyperparameters(file)
    config = sizes(file, values)
    layers = config["num_hidden_layers"]
    config |= {
        "model_type": "olmo2",
        "head_dim": head_dim(values, config),
        "num_key_value_heads": key_value_heads(values, config),
        "intermediate_size": feed_forward(values, layers),
        "rope_scaling": scaled_rope(values),
    }
    values.expect("rope.dimension_count", config["head_dim"])
    values.expect("rope.freq_base_swa", config["rope_theta"])
    if window := values.integer("attention.sliding_window", 0):
        types = layer_types(values, layers, 4)
        config |= {"model_type": "olmo3", "sliding_window": window, "layer_types": types}
    values.finish()
    return config, _layout(file, config)


def _layout(file: GGUFFile, config: dict[str, Any]) -> Layout:
    layout = embeddings(file)
    for layer in range(config["num_hidden_layers"]):
        block, target = f"blk.{layer}.", f"model.layers.{layer}."
        layout |= query_key_value(file, block, f"{target}self_attn.", head_rows(config))
        layout |= weights(block, target, GATED | {"attn_output": "self_attn.o_proj"}) | norms(block, target, _NORMS)
    return layout
