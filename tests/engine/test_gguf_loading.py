"""GGUF files in the engine: packed as a GPU has them, and widened as the CPU has them, the same comes of it."""

import json
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten
from mlx_lm.utils import load_model

from app.services import catalog, free_memory
from app.services.engine.model import gguf_weights, loading
from app.services.engine.model.model_files import ModelFiles, open_gguf
from app.services.engine.speculative import loading as draft_loading
from app.services.engine.speculative.draft_config import DraftConfig
from app.services.errors import LoadFailed
from app.services.gguf import conversion
from app.services.gguf.architectures import for_file
from app.services.gguf.cache import GGUFCache
from app.services.gguf.file import read
from app.services.sentence_files import read_settings
from tests import gguf_files
from tests.services.gguf_further_models import FURTHER
from tests.services.gguf_models import MODELS, TinyModel, load, log_probabilities, random_weights, write

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


@pytest.mark.slow
@pytest.mark.parametrize("model", (*MODELS, *FURTHER), ids=lambda model: model.name)
@pytest.mark.parametrize("quantization", ["Q8_0", "Q4_0"])
def test_every_architecture_computes_the_same_packed_and_widened(
    model: TinyModel, quantization: str, tmp_path: Path
) -> None:
    weights = random_weights(model, quantization)
    architecture = for_file(read(write(model, weights, tmp_path / "model.gguf", quantization)))
    expected = log_probabilities(load(model.config, weights))
    assert mx.abs(log_probabilities(loading.at_once(gguf_weights.build(architecture))) - expected).max() < 0.002
    layers = loading.at_once(conversion.write_weights(architecture, tmp_path, half=False))
    (tmp_path / "config.json").write_text(json.dumps(architecture.config | {"quantization": layers}))
    packed_model, _ = load_model(tmp_path)
    kinds = {type(module).__name__ for module in packed_model.modules()}
    assert "QuantizedLinear" in kinds
    assert mx.abs(log_probabilities(packed_model) - expected).max() < 0.002


def test_the_pooling_of_a_file_is_that_of_embeddings(tiny: Path, tmp_path: Path) -> None:
    path = gguf_files.write(tiny, tmp_path / "tiny.gguf", numbers={"llama.pooling_type": 3})
    with loading.at_once(loading.open_files(catalog.inspect(path), GGUFCache(tmp_path / "cache"))) as files:
        assert read_settings(files.folder).pooling == ("last",)


def test_progress_only_grows(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for available in (2**40, 0):
        monkeypatch.setattr(free_memory, "available", lambda amount=available: amount)
        for _ in range(2):
            steps, progress = draft_loading.load(catalog.inspect(file), None, GGUFCache(tmp_path, 2**30)), []
            with pytest.raises(StopIteration) as end:
                while True:
                    progress.append(next(steps))
            end.value.value.files.close()
            assert progress == sorted(progress)
            assert 0 <= progress[0] < progress[-1] < 1


@pytest.mark.parametrize("available", [2**40, 0])
def test_a_file_that_is_replaced_while_it_is_read_is_refused(
    tiny: Path, tmp_path: Path, available: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(free_memory, "available", lambda: available)
    path = gguf_files.write(tiny, tmp_path / "tiny.gguf", "Q8_0")
    gguf_files.write(tiny, tmp_path / "other.gguf", "Q4_0")
    steps = draft_loading.load(catalog.inspect(path), None, GGUFCache(tmp_path / "cache", 2**30))
    while next(steps) < (0.6 if available else 0.2):
        pass
    (tmp_path / "other.gguf").replace(path)
    with pytest.raises(LoadFailed, match="was replaced while it was read"):
        loading.at_once(steps)


def test_a_file_that_is_removed_while_it_is_read_is_loaded(tiny: Path, tmp_path: Path) -> None:
    path = gguf_files.write(tiny, tmp_path / "tiny.gguf", "Q8_0")
    steps = draft_loading.load(catalog.inspect(path), None, GGUFCache(tmp_path / "cache", 2**30))
    while next(steps) < 0.6:
        pass
    path.unlink()
    with loading.at_once(steps).files:
        pass


def test_a_load_that_is_given_up_leaves_nothing(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(free_memory, "available", lambda: 0)
    steps = draft_loading.load(catalog.inspect(file), None, GGUFCache(tmp_path, 2**30))
    next(steps)
    assert list(tmp_path.iterdir())
    steps.close()
    assert list(tmp_path.iterdir()) == []


def test_a_draft_model_may_be_a_file(file: Path, tmp_path: Path) -> None:
    draft = DraftConfig(str(file), 4, strict=True)
    parts = loading.at_once(draft_loading.load(catalog.inspect(file), draft, GGUFCache(tmp_path, 2**30)))
    with parts.files:
        assert parts.draft is not None
