"""The models of architectures.json tell mistakes apart: they load as any folder does, and do not repeat themselves."""

from pathlib import Path

import mlx.core as mx
import pytest
from mlx_lm.generate import generate_step

from app.services import catalog
from app.services.engine.model import loading
from app.services.gguf.cache import GGUFCache
from tests.engine.architectures import build


@pytest.mark.parametrize("name", ["llama", "gemma3_x", "nemotron_h", "rwkv7"])
def test_a_model_of_an_architecture_loads_and_says_many_things(name: str, tmp_path: Path) -> None:
    folder = build(name, tmp_path / name)
    model, tokenizer = loading.load_at_once(catalog.inspect(folder), GGUFCache(None))
    answer = [int(token) for token, _ in generate_step(mx.array(tokenizer.encode("Hello")), model, max_tokens=12)]
    assert len(set(answer)) > 6
    assert build(name, folder) == folder
