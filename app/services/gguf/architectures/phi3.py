"""Microsoft's Phi 3 and 4: queries, keys and values are one matrix, and so are gate and up, here as in the file."""

from typing import Any

from app.services.gguf.architectures.common import embeddings, feed_forward, head_dim, key_value_heads, sizes
from app.services.gguf.architectures.hyperparameters import Hyperparameters
from app.services.gguf.architectures.layout import Entry, Layout, norms, weights
from app.services.gguf.architectures.rope import long_rope, rotated_share
from app.services.gguf.file import GGUFFile

_WEIGHTS = {
    "attn_qkv": "self_attn.qkv_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_up": "mlp.gate_up_proj",
    "ffn_down": "mlp.down_proj",
}
_NORMS = {"attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm"}


def phi3(file: GGUFFile) -> tuple[dict[str, Any], Layout]:
    """Read Phi 3 and 4. Raises LoadFailed. Neither llama.cpp nor mlx-lm has the window that some of the files name."""
    values = Hyperparameters(file)
    config = sizes(file, values)
    size = head_dim(values, config)
    if size * config["num_attention_heads"] != config["hidden_size"]:
        raise values.refused("has heads of another size than mlx-lm's phi3")
    share = rotated_share(values, size)
    config |= {
        "model_type": "phi3",
        "num_key_value_heads": key_value_heads(values, config),
        "intermediate_size": feed_forward(values, config["num_hidden_layers"]),
        "partial_rotary_factor": share,
        **long_rope(file, values, int(size * share), config["max_position_embeddings"]),
    }
    values.get("attention.sliding_window")
    values.finish()
    layout = embeddings(file)
    if "rope_scaling" in config:
        layout |= {f"rope_factors_{kind}.weight": Entry(()) for kind in ("long", "short")}  # of the config
    for layer in range(config["num_hidden_layers"]):
        block, target = f"blk.{layer}.", f"model.layers.{layer}."
        layout |= weights(block, target, _WEIGHTS) | norms(block, target, _NORMS)
    return config, layout
