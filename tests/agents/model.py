"""A model with room for the prompts of coding agents, small enough to compute them on two cores."""

import json
import shutil
from pathlib import Path

import mlx.core as mx
from mlx.utils import tree_flatten

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
