"""Tiny models that see, of random weights by seed, as their families' checkpoints name and shape them."""

import base64
import copy
import io
import json
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy
from safetensors.numpy import save_file

if TYPE_CHECKING:  # it imports MLX, which these models are written without
    from app.services.engine.vision.vision import Vision

GOLDEN = Path(__file__).parent / "engine" / "golden_images"  # by family, made by engine/make_golden_images.py
FAMILIES = sorted(path.stem for path in GOLDEN.glob("*.json"))


@cache
def golden(family: str) -> dict[str, Any]:
    """Give what stands of a family: its configuration, the shapes of its weights, and what PyTorch answers."""
    result: dict[str, Any] = json.loads((GOLDEN / f"{family}.json").read_text())
    return result


def image_token(config: dict[str, Any]) -> int:
    """Give the token that stands in the places of images."""
    return int(config.get("image_token_id") or config["image_token_index"])


def some(values: Any) -> Any:
    """Give a few of the numbers of an array, from all over it."""
    return values[numpy.linspace(0, len(values) - 1, 24).astype(int)]


def _draw(name: str, shape: tuple[int, ...], seed: int, *, norms_add_one: bool) -> Any:
    """Draw a weight by itself, so that no other one changes it."""
    rng = numpy.random.default_rng([seed, *name.encode()])
    if len(shape) < 2:
        is_zero = name.endswith("bias") or (norms_add_one and "norm" in name and not name.startswith("vision"))
        middle = -1 if name.endswith("_min") else 0 if is_zero else 1
        return numpy.asarray(rng.normal(0, 0.1, shape) + middle, dtype=numpy.float32)
    spread = 1.0 if "embed" in name else 1.5
    return rng.normal(0, spread / max(1, numpy.prod(shape[1:])) ** 0.5, shape).astype(numpy.float32)


def write(folder: Path, model: dict[str, Any], seed: int = 1) -> None:
    """Write what of a model folder is no tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    add_one = model.get("norms_add_one", False)
    weights = {name: _draw(name, tuple(shape), seed, norms_add_one=add_one) for name, shape in model["shapes"].items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(model["config"]))
    if "tokens" in model:
        _write_tokenizer(folder, model["tokens"])
    (folder / "preprocessor_config.json").write_text(json.dumps(model["processor"]))


def _write_tokenizer(folder: Path, tokens: dict[str, int]) -> None:
    """Write a tokenizer that knows the texts within images alone."""
    from tokenizers import AddedToken, Tokenizer
    from tokenizers.models import WordLevel

    tokenizer = Tokenizer(WordLevel(tokens, unk_token="<unk>"))
    special = [AddedToken(token, special=True, normalized=False) for token in tokens if token.strip()]
    tokenizer.add_special_tokens(special)
    tokenizer.save(str(folder / "tokenizer.json"))


def load_text_model(folder: Path) -> Any:
    """Load the text model of a folder, as the server does."""
    from mlx_lm.utils import load_model

    from app.services.engine.model.text_models import model_classes

    return load_model(folder, get_model_classes=model_classes)[0]


def load_vision(folder: Path, model: Any) -> "Vision | None":
    """Load what a model of a folder sees with; None where it cannot be used."""
    from tokenizers import Tokenizer

    from app.services.engine.model.loading import at_once
    from app.services.engine.vision import loading

    def encode(text: str) -> list[int]:
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        return list(tokenizer.encode(text, add_special_tokens=False).ids)

    return at_once(loading.load(folder, model, encode))


def picture(seed: int, width: int = 40, height: int = 30) -> Any:
    """Give pixels (height, width, 3) of coloured noise in large squares, uint8."""
    rng = numpy.random.default_rng(seed)
    squares = rng.integers(0, 256, (-(-height // 5), -(-width // 5), 3), dtype=numpy.uint8)
    return squares.repeat(5, 0).repeat(5, 1)[:height, :width]


def png(seed: int, **size: int) -> str:
    """Give a picture as base64 of a PNG."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(picture(seed, **size)).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


IMAGE_TOKENS = (
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
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in IMAGE_TOKENS])
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "chat_template.jinja").write_text(_TEMPLATE)
    placeholder = "<image_soft_token>" if family == "gemma3" else "<|image_pad|>"
    model = with_vocabulary(golden(family), tokenizer.get_vocab_size(), tokenizer.token_to_id(placeholder))
    model["config"]["eos_token_id"] = [tokenizer.token_to_id(token) for token in ("<|im_end|>", "<|endoftext|>")]
    write(folder, {name: value for name, value in model.items() if name != "tokens"})
    return folder


def with_vocabulary(model: dict[str, Any], size: int, token: int) -> dict[str, Any]:
    """Give a model of another vocabulary, in which another token stands for images."""
    config = copy.deepcopy(model["config"])
    shapes = {name: [size, *shape[1:]] if _is_vocabulary(name) else shape for name, shape in model["shapes"].items()}
    config["image_token_id" if "image_token_id" in config else "image_token_index"] = token
    for part in (config, config["text_config"]):
        part |= {name: size for name in ("vocab_size", "vocab_size_per_layer_input") if name in part}
    return model | {"config": config, "shapes": shapes}


def _is_vocabulary(name: str) -> bool:
    return name.endswith(("embed_tokens.weight", "embed_tokens_per_layer.weight", "lm_head.weight"))
