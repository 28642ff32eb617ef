"""Tiny models that see, of random weights by seed, as their families' checkpoints name and shape them. NumPy alone."""

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy
from safetensors.numpy import save_file

Shapes = dict[str, tuple[int, ...]]

_SIGLIP = {
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 7,
    "num_channels": 3,
    "layer_norm_eps": 1e-6,
    "model_type": "siglip_vision_model",
}
_GEMMA3_TEXT = {
    "model_type": "gemma3_text",
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "query_pre_attn_scalar": 16,
    "sliding_window": 12,
    "sliding_window_pattern": 2,
    "rms_norm_eps": 1e-6,
    "max_position_embeddings": 2048,
    "rope_theta": 1000000.0,
    "rope_local_base_freq": 10000.0,
    "hidden_activation": "gelu_pytorch_tanh",
}


def gemma3(vocabulary: int, image_token: int) -> dict[str, Any]:
    """Give the configuration of a Gemma 3 whose images are 4 tokens each."""
    return {
        "model_type": "gemma3",
        "architectures": ["Gemma3ForConditionalGeneration"],
        "vocab_size": vocabulary,
        "text_config": _GEMMA3_TEXT | {"vocab_size": vocabulary},
        "vision_config": _SIGLIP,
        "mm_tokens_per_image": 4,
        "image_token_index": image_token,
        "torch_dtype": "float32",
    }


def gemma3_shapes(config: dict[str, Any]) -> Shapes:
    text, vision = config["text_config"], config["vision_config"]
    hidden, size = text["hidden_size"], text["head_dim"]
    queries, keys = text["num_attention_heads"] * size, text["num_key_value_heads"] * size
    layer: Shapes = {
        "self_attn.q_proj": (queries, hidden),
        "self_attn.k_proj": (keys, hidden),
        "self_attn.v_proj": (keys, hidden),
        "self_attn.o_proj": (hidden, queries),
        **{f"self_attn.{name}_norm": (size,) for name in "qk"},
        **{f"mlp.{name}_proj": (text["intermediate_size"], hidden) for name in ("gate", "up")},
        "mlp.down_proj": (hidden, text["intermediate_size"]),
        **{f"{where}_layernorm": (hidden,) for where in ("input", "post_attention")},
        **{f"{where}_feedforward_layernorm": (hidden,) for where in ("pre", "post")},
    }
    shapes: Shapes = {
        f"language_model.model.layers.{number}.{name}.weight": shape
        for number in range(text["num_hidden_layers"])
        for name, shape in layer.items()
    }
    shapes["language_model.model.embed_tokens.weight"] = (config["vocab_size"], hidden)
    shapes["language_model.model.norm.weight"] = (hidden,)
    shapes["multi_modal_projector.mm_input_projection_weight"] = (vision["hidden_size"], hidden)
    shapes["multi_modal_projector.mm_soft_emb_norm.weight"] = (vision["hidden_size"],)
    return shapes | {f"vision_tower.vision_model.{name}": shape for name, shape in _siglip_shapes(vision).items()}


def _siglip_shapes(vision: dict[str, Any]) -> Shapes:
    width, inner, patch = vision["hidden_size"], vision["intermediate_size"], vision["patch_size"]
    shapes: Shapes = {
        "embeddings.patch_embedding.weight": (width, 3, patch, patch),
        "embeddings.patch_embedding.bias": (width,),
        "embeddings.position_embedding.weight": ((vision["image_size"] // patch) ** 2, width),
        "post_layernorm.weight": (width,),
        "post_layernorm.bias": (width,),
    }
    matrices = {f"self_attn.{name}": (width, width) for name in ("q_proj", "k_proj", "v_proj", "out_proj")}
    matrices |= {"mlp.fc1": (inner, width), "mlp.fc2": (width, inner)}
    for number in range(vision["num_hidden_layers"]):
        layer = f"encoder.layers.{number}"
        for name, shape in matrices.items():
            shapes |= {f"{layer}.{name}.weight": shape, f"{layer}.{name}.bias": shape[:1]}
        for name in ("layer_norm1", "layer_norm2"):
            shapes |= {f"{layer}.{name}.weight": (width,), f"{layer}.{name}.bias": (width,)}
    return shapes


_QWEN_VISION = {
    "model_type": "qwen2_5_vl",
    "depth": 3,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_heads": 2,
    "in_channels": 3,
    "in_chans": 3,
    "hidden_act": "silu",
    "patch_size": 4,
    "spatial_patch_size": 4,
    "temporal_patch_size": 2,
    "spatial_merge_size": 2,
    "window_size": 16,  # pixels: two by two tokens
    "fullatt_block_indexes": [1],
    "tokens_per_second": 2,
    "out_hidden_size": 64,
}
_QWEN_TEXT = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-6,
    "max_position_embeddings": 2048,
    "rope_theta": 10000.0,
    "rope_scaling": {"type": "mrope", "rope_type": "default", "mrope_section": [2, 3, 3]},
    "tie_word_embeddings": False,
    "hidden_act": "silu",
    "use_sliding_window": False,
}


def qwen2_5_vl(vocabulary: int, image_token: int) -> dict[str, Any]:
    """Give the configuration of a Qwen2.5-VL whose images have a token for each 8 by 8 pixels."""
    return {
        "model_type": "qwen2_5_vl",
        "architectures": ["Qwen2_5_VLForConditionalGeneration"],
        "text_config": _QWEN_TEXT | {"model_type": "qwen2_5_vl_text", "vocab_size": vocabulary},
        "vision_config": _QWEN_VISION,
        "vocab_size": vocabulary,
        "image_token_id": image_token,
        "video_token_id": image_token + 1,
        "vision_start_token_id": image_token - 1,
        "tie_word_embeddings": False,
        "torch_dtype": "float32",
    }


def qwen2_5_vl_shapes(config: dict[str, Any]) -> Shapes:
    text, vision = config["text_config"], config["vision_config"]
    width, inner, out = vision["hidden_size"], vision["intermediate_size"], vision["out_hidden_size"]
    patch, merged = vision["patch_size"], width * vision["spatial_merge_size"] ** 2
    shapes = _qwen_text_shapes(text) | {
        "visual.patch_embed.proj.weight": (width, 3, vision["temporal_patch_size"], patch, patch),
        "visual.merger.ln_q.weight": (width,),
        "visual.merger.mlp.0.weight": (merged, merged),
        "visual.merger.mlp.0.bias": (merged,),
        "visual.merger.mlp.2.weight": (out, merged),
        "visual.merger.mlp.2.bias": (out,),
    }
    matrices = {"attn.qkv": (3 * width, width), "attn.proj": (width, width), "mlp.down_proj": (width, inner)}
    matrices |= {f"mlp.{name}_proj": (inner, width) for name in ("gate", "up")}
    for number in range(vision["depth"]):
        for name, shape in matrices.items():
            shapes |= {f"visual.blocks.{number}.{name}.weight": shape, f"visual.blocks.{number}.{name}.bias": shape[:1]}
        shapes |= {f"visual.blocks.{number}.norm{one}.weight": (width,) for one in (1, 2)}
    return shapes


def _qwen_text_shapes(text: dict[str, Any]) -> Shapes:
    hidden, inner = text["hidden_size"], text["intermediate_size"]
    keys = hidden // text["num_attention_heads"] * text["num_key_value_heads"]
    layer: Shapes = {
        "self_attn.q_proj.weight": (hidden, hidden),
        "self_attn.k_proj.weight": (keys, hidden),
        "self_attn.v_proj.weight": (keys, hidden),
        "self_attn.o_proj.weight": (hidden, hidden),
        **{f"self_attn.{name}_proj.bias": (size,) for name, size in (("q", hidden), ("k", keys), ("v", keys))},
        **{f"mlp.{name}_proj.weight": (inner, hidden) for name in ("gate", "up")},
        "mlp.down_proj.weight": (hidden, inner),
        **{f"{where}_layernorm.weight": (hidden,) for where in ("input", "post_attention")},
    }
    shapes = {
        f"model.layers.{number}.{name}": shape
        for number in range(text["num_hidden_layers"])
        for name, shape in layer.items()
    }
    outer = {"model.embed_tokens.weight": (text["vocab_size"], hidden), "lm_head.weight": (text["vocab_size"], hidden)}
    return shapes | outer | {"model.norm.weight": (hidden,)}


QWEN2_5_VL_PROCESSOR = {
    "image_processor_type": "Qwen2VLImageProcessor",
    "patch_size": 4,
    "temporal_patch_size": 2,
    "merge_size": 2,
    "min_pixels": 16 * 16,
    "max_pixels": 40 * 40,
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "resample": 3,
}


def weights(shapes: Shapes, seed: int = 1) -> dict[str, Any]:
    """Draw every weight by itself, so that no other one changes it."""
    return {name: _draw(name, shape, seed) for name, shape in sorted(shapes.items())}


def _draw(name: str, shape: tuple[int, ...], seed: int) -> Any:
    rng = numpy.random.default_rng([seed, *name.encode()])
    if len(shape) == 1:
        base = 0.0 if name.endswith("bias") or name.startswith("language_model") or "soft_emb" in name else 1.0
        return (base + rng.normal(0, 0.1, shape)).astype(numpy.float32)
    spread = 1.0 if "embed" in name else 1.5
    return rng.normal(0, spread / max(1, numpy.prod(shape[1:])) ** 0.5, shape).astype(numpy.float32)


def write(folder: Path, config: dict[str, Any], shapes: Shapes, processor: dict[str, Any], seed: int = 1) -> None:
    """Write what of a model folder is no tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file(weights(shapes, seed), folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))


GEMMA3_PROCESSOR = {
    "image_processor_type": "Gemma3ImageProcessor",
    "size": {"height": 28, "width": 28},
    "resample": 2,
    "image_mean": [0.5] * 3,
    "image_std": [0.5] * 3,
    "rescale_factor": 1 / 255,
    "do_resize": True,
    "do_rescale": True,
    "do_normalize": True,
}


def picture(seed: int, width: int = 40, height: int = 30) -> Any:
    """Give pixels (height, width, 3) of coloured noise in large squares, uint8."""
    rng = numpy.random.default_rng(seed)
    squares = rng.integers(0, 256, (-(-height // 5), -(-width // 5), 3), dtype=numpy.uint8)
    return squares.repeat(5, 0).repeat(5, 1)[:height, :width]


# By family: its configuration for a vocabulary and an image token, the shapes of its weights, how it prepares images.
FAMILIES = {
    "gemma3": (gemma3, gemma3_shapes, GEMMA3_PROCESSOR),
    "qwen2_5_vl": (qwen2_5_vl, qwen2_5_vl_shapes, QWEN2_5_VL_PROCESSOR),
}


def png(seed: int, **size: int) -> str:
    """Give a picture as base64 of a PNG."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(picture(seed, **size)).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


_IMAGE_TOKENS = (
    *("<start_of_image>", "<image_soft_token>", "<end_of_image>"),
    *("<|vision_start|>", "<|image_pad|>", "<|vision_end|>"),
)
_TEMPLATE = """\
{%- for message in messages -%}
{{- "<|im_start|>" + message.role + "\\n" -}}
{%- if message.content is string -%}{{- message.content -}}
{%- else -%}
{%- for part in message.content -%}
{%- if part.type == "image" -%}{{- "<start_of_image>" -}}{%- else -%}{{- part.text | trim -}}{%- endif -%}
{%- endfor -%}
{%- endif -%}
{{- "<|im_end|>\\n" -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- "<|im_start|>assistant\\n" -}}{%- endif -%}
"""


def build(folder: Path, family: str = "gemma3") -> Path:
    """Build the folder of a model that sees, with a tokenizer and a chat template."""
    from tokenizers import AddedToken

    from tests import tiny_model

    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = tiny_model._write_tokenizer(folder, 768, 2048)
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in _IMAGE_TOKENS])
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "chat_template.jinja").write_text(_TEMPLATE)
    config, shapes, processor = FAMILIES[family]
    placeholder = "<image_soft_token>" if family == "gemma3" else "<|image_pad|>"
    settings = config(tokenizer.get_vocab_size(), tokenizer.token_to_id(placeholder))
    settings["eos_token_id"] = [tokenizer.token_to_id(token) for token in ("<|im_end|>", "<|endoftext|>")]
    write(folder, settings, shapes(settings), processor)
    return folder
