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
FAMILIES = {"gemma3": (gemma3, gemma3_shapes, GEMMA3_PROCESSOR)}


def png(seed: int, **size: int) -> str:
    """Give a picture as base64 of a PNG."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(picture(seed, **size)).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


_IMAGE_TOKENS = ("<start_of_image>", "<image_soft_token>", "<end_of_image>", "<|vision_start|>", "<|image_pad|>")
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
