"""A model with room for the prompts of coding agents, small enough to compute them on two cores."""

import json
import shutil
from pathlib import Path

import mlx.core as mx
from mlx.utils import tree_flatten
from tokenizers import AddedToken, Tokenizer

from tests import vision_models
from tests.engine.architectures import CONFIGS, random_model

CONTEXT = 131_072  # tokens
DEMO = Path(__file__).parents[2] / "app" / "tiles_nano"
FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json")


def build(folder: Path, *, layers: int = 1) -> Path:
    """Write random weights, float32, beside the demo model's tokenizer and chat template.

    With one layer the keys and values of a prompt are computed and cached as ever, but the attention between its
    tokens, which takes minutes for 20,000 of them on a CPU, is not needed for that.
    """
    size = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": layers}
    size["max_position_embeddings"] = CONTEXT
    folder.mkdir(parents=True)
    for name in FILES:
        shutil.copy(DEMO / name, folder)
    weights = dict(tree_flatten(random_model("qwen3", **size).parameters()))
    mx.save_safetensors(str(folder / "model.safetensors"), weights, {"format": "mlx"})
    (folder / "config.json").write_text(json.dumps(CONFIGS["qwen3"] | size))
    return folder


def build_seeing(folder: Path) -> Path:
    """Write the same for a model that sees: a Qwen2.5-VL of one layer."""
    folder.mkdir(parents=True)
    for name in FILES:
        shutil.copy(DEMO / name, folder)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in vision_models.IMAGE_TOKENS])
    tokenizer.save(str(folder / "tokenizer.json"))
    golden, token = vision_models.golden("qwen2_5_vl"), tokenizer.token_to_id("<|image_pad|>")
    model = vision_models.with_vocabulary(golden, tokenizer.get_vocab_size(), token)
    model["config"]["text_config"] |= {"num_hidden_layers": 1, "max_position_embeddings": CONTEXT}
    later = tuple(
        f"model.layers.{number}." for number in range(1, golden["config"]["text_config"]["num_hidden_layers"])
    )
    model["shapes"] = {name: shape for name, shape in model["shapes"].items() if not name.startswith(later)}
    vision_models.write(folder, model)
    return folder
