"""Llama with a change: Mistral 3, Granite, SmolLM 3. Their files have rope's pairs side by side, too."""

from typing import Any

from app.services.gguf.architectures.common import GATED
from app.services.gguf.architectures.hyperparameters import Hyperparameters
from app.services.gguf.architectures.layout import Layout
from app.services.gguf.architectures.llama import decoder, finish, layout_of_layers
from app.services.gguf.architectures.rope import scaled_rope
from app.services.gguf.file import GGUFFile


def mistral3(file: GGUFFile) -> tuple[dict[str, Any], Layout]:
    """Mistral 3 and Ministral 3, whose queries grow with the position; the older ones of that name are Llama."""
    values = Hyperparameters(file)
    config = decoder(file, values, "llama")
    values.expect("expert_count", 0)
    scaling, growth = scaled_rope(values), values.number("attention.temperature_scale", 0.0)
    if growth or (scaling or {}).get("rope_type") == "yarn":
        original = values.integer("rope.scaling.original_context_length", config["max_position_embeddings"])
        config |= {
            "model_type": "ministral3",
            "rope_parameters": {
                "original_max_position_embeddings": original,
                **(scaling or {"rope_type": "default"}),
                "rope_theta": config.pop("rope_theta"),
                "llama_4_scaling_beta": growth,
            },
        }
    else:
        config["rope_scaling"] = scaling
    return finish(values, config, layout_of_layers(file, config, GATED, turns=True))


def granite(file: GGUFFile) -> tuple[dict[str, Any], Layout]:
    """Granite, dense: Llama with four multipliers, of which a missing one changes nothing."""
    values = Hyperparameters(file)
    config = decoder(file, values, "granite")
    if (size := config.pop("head_dim")) * config["num_attention_heads"] != config["hidden_size"]:
        raise values.refused("has heads of another size than mlx-lm's granite")
    values.expect("expert_count", 0)
    # llama.cpp has no rope at all where this is false.
    values.expect("rope.scaling.finetuned", True)
    config |= {
        "rope_scaling": scaled_rope(values),
        "attention_multiplier": values.number("attention.scale", 0.0) or size**-0.5,
        "embedding_multiplier": values.number("embedding_scale", 0.0) or 1.0,
        "residual_multiplier": values.number("residual_scale", 0.0) or 1.0,
        "logits_scaling": values.number("logit_scale"),
        "attention_bias": "blk.0.attn_output.bias" in file.tensors,
        "mlp_bias": "blk.0.ffn_gate.bias" in file.tensors,
    }
    return finish(values, config, layout_of_layers(file, config, GATED, turns=True))


def smollm3(file: GGUFFile) -> tuple[dict[str, Any], Layout]:
    """SmolLM 3: Llama without rope in every fourth layer, which stands in llama.cpp's code, not in the file."""
    values = Hyperparameters(file)
    config = decoder(file, values, "smollm3")
    config |= {"rope_scaling": scaled_rope(values), "no_rope_layer_interval": 4}
    return finish(values, config, layout_of_layers(file, config, GATED, turns=True))
