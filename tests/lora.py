"""LoRA adapters for the tests, written by mlx-lm's own code."""

import json
from pathlib import Path
from typing import Any

PARAMETERS = {"rank": 4, "scale": 12.0, "dropout": 0.0}


def write(model_folder: Path, folder: Path, *, seed: int, keys: list[str] | None = None, layers: int = 2) -> Path:
    """Write an adapter with random weights that change what the model says. mlx-lm has to be importable."""
    import mlx.core as mx
    from mlx.utils import tree_flatten, tree_map
    from mlx_lm import load
    from mlx_lm.tuner.utils import linear_to_lora_layers

    model = load(str(model_folder))[0]
    model.freeze()
    parameters = PARAMETERS | ({"keys": keys} if keys else {})
    linear_to_lora_layers(model, layers, parameters)
    mx.random.seed(seed)
    drawn = tree_map(lambda array: mx.random.normal(array.shape) * 0.05, model.trainable_parameters())
    folder.mkdir(parents=True)
    mx.save_safetensors(str(folder / "adapters.safetensors"), dict(tree_flatten(drawn)))
    config = {"fine_tune_type": "lora", "num_layers": layers, "lora_parameters": parameters}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def generate(model_folder: Path, adapter: Path | None, tokens: list[int], length: int) -> list[int]:
    """The tokens that mlx-lm itself says next, the likeliest each time."""
    import mlx.core as mx
    from mlx_lm import load
    from mlx_lm.generate import generate_step

    model: Any = load(str(model_folder), adapter_path=str(adapter) if adapter else None)[0]
    steps = generate_step(mx.array(tokens), model, max_tokens=length)
    return [int(token) for token, _ in steps]
