"""GGUF files in the engine: packed as a GPU has them, and widened as the CPU has them, the same comes of it."""

import json
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten

from app.services import catalog, free_memory
from app.services.engine.model import loading
from app.services.engine.model.model_files import ModelFiles, open_gguf
from app.services.errors import LoadFailed
from app.services.gguf.cache import GGUFCache
from tests import gguf_files

EXACT = {
    "token_embd": "Q8_0",
    "attn_q": "Q4_0",
    "attn_k": "Q5_1",
    "attn_v": "F16",
    "attn_output": "BF16",
    "ffn_gate": "Q4_1",
    "ffn_up": "F32",
    "ffn_down": "Q5_0",
}
PROMPT = [[5, 300, 41, 7, 99, 260, 12, 700]]


@pytest.fixture(scope="module")
def file(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return gguf_files.write(tiny, tmp_path_factory.mktemp("gguf") / "tiny.gguf", EXACT)


@pytest.fixture(scope="module")
def expected(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> mx.array:
    """The logits of the same weights as an MLX folder."""
    folder = gguf_files.rounded(tiny, tmp_path_factory.mktemp("mlx") / "tiny", EXACT)
    return logits(loading.load_at_once(catalog.inspect(folder), GGUFCache(None))[0])


def logits(model: Any) -> mx.array:
    return model(mx.array(PROMPT)).astype(mx.float32)


def packed(file: Path, cache: GGUFCache, *, half: bool) -> ModelFiles:
    files: ModelFiles = loading.at_once(open_gguf(catalog.inspect(file), cache, packed=True, half=half))
    return files


def dtypes(model: Any) -> dict[str, set[mx.Dtype]]:
    kinds: dict[str, set[mx.Dtype]] = {}
    for name, array in tree_flatten(model.parameters()):
        kinds.setdefault(name.rpartition(".")[2], set()).add(array.dtype)
    return kinds


def test_on_the_cpu_weights_are_what_the_file_says(file: Path, tmp_path: Path, expected: mx.array) -> None:
    cache = GGUFCache(tmp_path / "cache", 2**30)
    model, tokenizer = loading.load_at_once(catalog.inspect(file), cache)
    assert mx.array_equal(logits(model), expected)
    assert {array.dtype for _, array in tree_flatten(model.parameters())} == {mx.float32}
    assert tokenizer.decode(tokenizer.encode("Zoë says 你好 🙂")) == "Zoë says 你好 🙂"
    (entry,) = (tmp_path / "cache").iterdir()
    assert not list(entry.glob("*.safetensors"))


def test_packed_weights_give_the_same_logits(
    file: Path, tmp_path: Path, expected: mx.array, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a CPU with too little memory for float32."""
    monkeypatch.setattr(free_memory, "available", lambda: 0)
    model, _ = loading.load_at_once(catalog.inspect(file), GGUFCache(tmp_path, 2**30))
    assert mx.abs(logits(model) - expected).max() < 1e-4
    assert type(model.model.layers[0].self_attn.q_proj).__name__ == "QuantizedLinear"
    assert type(model.model.embed_tokens).__name__ == "QuantizedEmbedding"
    bits = {name: getattr(model.model.layers[0].mlp, f"{name}_proj") for name in ("gate", "down")}
    assert {name: layer.bits for name, layer in bits.items()} == {"gate": 4, "down": 5}
    assert dtypes(model)["scales"] == {mx.float32}


def test_for_a_gpu_scales_and_what_is_not_packed_become_bfloat16(
    file: Path, tmp_path: Path, expected: mx.array, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "_is_cpu", lambda: False)
    model, _ = loading.load_at_once(catalog.inspect(file), GGUFCache(tmp_path, 2**30))
    assert dtypes(model) == {
        "weight": {mx.uint32, mx.bfloat16},
        "scales": {mx.bfloat16},
        "biases": {mx.bfloat16},
    }
    change = mx.softmax(logits(model)) - mx.softmax(expected)
    assert mx.abs(change).max() < 0.02


def test_the_converted_folder_is_an_mlx_folder(file: Path, tmp_path: Path) -> None:
    with packed(file, GGUFCache(tmp_path, 2**30), half=True) as files:
        folder = catalog.inspect(files.folder)
        assert (folder.model_type, folder.parameters) == ("llama", catalog.inspect(file).parameters)
        config = json.loads((files.folder / "config.json").read_bytes())
        assert config["quantization"]["model.layers.1.self_attn.q_proj"] == {
            "group_size": 32,
            "bits": 4,
            "mode": "affine",
        }
        tensors = mx.load(str(files.folder / "model.safetensors"))
        assert tensors["model.layers.0.mlp.up_proj.weight"].dtype == mx.bfloat16


def test_what_is_not_exact_is_said(tiny: Path, file: Path, tmp_path: Path) -> None:
    cache = GGUFCache(tmp_path / "cache", 2**30)
    with packed(file, cache, half=False) as files:
        assert files.loss is None
    with packed(file, cache, half=True) as files:
        assert "bfloat16" in (files.loss or "")


@pytest.mark.parametrize("values", [[1.0, -2.5, 3.0e38, 1e-40, 0.0, 1.00390625, 1.01171875]])
def test_rounding_to_bfloat16_is_mlx_s(values: list[float]) -> None:
    from app.services.gguf.conversion import narrow

    array = np.array(values, np.float32)
    ours = mx.array(narrow(array)).view(mx.bfloat16).astype(mx.float32)
    assert ours.tolist() == mx.array(array).astype(mx.bfloat16).astype(mx.float32).tolist()
    assert np.isnan(
        np.array(mx.array(narrow(np.array([np.nan], np.float32))).view(mx.bfloat16).astype(mx.float32))
    ).all()


def test_a_file_that_mlx_lm_s_model_does_not_fit_is_refused(tiny: Path, tmp_path: Path) -> None:
    path = gguf_files.write(tiny, tmp_path / "wide.gguf", metadata={"general.architecture": "martian"})
    with pytest.raises(LoadFailed, match="martian"):
        catalog.inspect(path)
