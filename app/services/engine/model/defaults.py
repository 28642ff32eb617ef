"""The defaults in a model's folder: sampling parameters, tokens that are never drawn."""

import json
from pathlib import Path
from typing import Any

from app.services.generation import LLAMA_SAMPLING, Sampling


def read_defaults(folder: Path) -> Sampling:
    """Read generation_config.json; llama.cpp's values stand for those that it lacks."""
    config = _config(folder / "generation_config.json")
    if config.get("do_sample") is False:
        config |= {"temperature": 0.0}
    top_k = _number(config, "top_k", 0, 2**31 - 1)
    return Sampling(
        temperature=_number(config, "temperature", 0.0, 100.0),
        top_k=None if top_k is None else int(top_k),
        top_p=_number(config, "top_p", 0.0, 1.0),
        min_p=_number(config, "min_p", 0.0, 1.0),
        repetition_penalty=_number(config, "repetition_penalty", 0.01, 100.0),
    ).over(LLAMA_SAMPLING)


def read_suppressed_tokens(folder: Path) -> frozenset[int]:
    """Read the tokens of generation_config.json that no answer has, such as those that stand for pictures."""
    tokens = _config(folder / "generation_config.json").get("suppress_tokens")
    return frozenset(token for token in tokens if type(token) is int) if isinstance(tokens, list) else frozenset()


def _config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return dict(config) if isinstance(config, dict) else {}


def _number(config: dict[str, Any], key: str, low: float, high: float) -> float | None:
    value = config.get(key)
    usable = isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high
    return float(value) if usable and value is not None else None
