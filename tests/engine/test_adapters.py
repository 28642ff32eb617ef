"""Adapters over a model's layers compute what mlx-lm computes, row by row; what does not fit is refused."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx_lm import load
from mlx_lm.tuner.utils import load_adapters

from app.services.engine.model.adapters import Adapters
from app.services.engine.model.language_model import LanguageModel
from app.services.errors import InvalidRequest, LoadFailed
from tests import lora

TOKENS = [[1, 50, 300, 7], [9, 8, 7, 6], [1, 2, 3, 4]]


@pytest.fixture(scope="module")
def folders(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("adapters")
    keys = ["self_attn.q_proj", "mlp.down_proj", "model.embed_tokens"]
    return [lora.write(tiny, folder / "a", seed=1), lora.write(tiny, folder / "b", seed=2, keys=keys, layers=1)]


def plain(model: Any) -> None:
    """float32, as the weights are."""


def narrow(model: Any) -> None:
    model.set_dtype(mx.bfloat16)


def quantized(model: Any) -> None:
    nn.quantize(model, group_size=32, bits=4)


def model_of(folder: Path, kind: Callable[[Any], None]) -> Any:
    model = load(str(folder))[0]
    kind(model)
    return model


def logits(model: Any, rows: list[list[int]]) -> Any:
    return np.array(model(mx.array(rows)).astype(mx.float32))


@pytest.mark.parametrize("kind", [plain, narrow, quantized])
def test_rows_have_the_logits_that_mlx_lm_gives_them(
    tiny: Path, folders: list[Path], kind: Callable[..., None]
) -> None:
    adapters = Adapters([(folder, 1.0) for folder in folders])
    model = model_of(tiny, kind)
    adapters.apply_to(LanguageModel(model))
    expected = [logits(model_of(tiny, kind), TOKENS)]
    expected += [logits(load_adapters(model_of(tiny, kind), str(folder)), TOKENS) for folder in folders]
    close = {"rtol": 0, "atol": 1e-4 if kind is plain else 0.1}
    for whole, scales in zip(expected, [(0.0, 0.0), (1.0, 0.0), (0.0, 1.0)], strict=True):
        adapters.use([scales] * len(TOKENS))
        np.testing.assert_allclose(logits(model, TOKENS), whole, **close)
    adapters.use([(0.0, 1.0), (), (1.0, 0.0)])
    mixed = logits(model, TOKENS)
    for row, whole in enumerate((expected[2], expected[0], expected[1])):
        np.testing.assert_allclose(mixed[row], whole[row], **close)
    assert np.abs(expected[1] - expected[0]).max() > 0.5 < np.abs(expected[2] - expected[0]).max()


def test_nothing_is_computed_where_no_adapter_counts(tiny: Path, folders: list[Path]) -> None:
    adapters = Adapters([(folders[0], 0.0)])
    model = model_of(tiny, plain)
    adapters.apply_to(LanguageModel(model))
    for scales in ([(0.0,)], [()], [], [(0.0,), ()]):
        adapters.use(scales)
        np.testing.assert_array_equal(logits(model, TOKENS), logits(model_of(tiny, plain), TOKENS))


def test_tokens_are_known_by_their_scales_too() -> None:
    adapters = Adapters([(Path("a"), 1.0), (Path("b"), 0.0)])
    tokens = [5, 262_143]
    keys_by_scales = [adapters.keys(tokens, scales) for scales in [(), (0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (1.0, 0.0)]]
    assert keys_by_scales[0] == keys_by_scales[1] == tokens
    assert keys_by_scales[2] == keys_by_scales[4]
    assert len({tuple(keys or ()) for keys in keys_by_scales}) == 3
    for step in range(3000):
        keys = adapters.keys(tokens, (1.0, 1.0 + step))
        assert keys is None or max(keys) < 2**31
    assert adapters.keys(tokens, (2.0, 0.5)) is None
    assert adapters.keys(tokens, (1.0, 0.0)) == keys_by_scales[2]


def test_only_adapters_that_are_there_can_be_asked_for() -> None:
    adapters = Adapters([(Path("a"), 0.5), (Path("b"), 0.0)])
    assert adapters.scales(None) == (0.5, 0.0)
    assert adapters.scales({1: 2.0}) == (0.0, 2.0)
    adapters.set_defaults({})
    assert adapters.scales(None) == (0.0, 0.0)
    with pytest.raises(InvalidRequest):
        adapters.scales({2: 1.0})


def config(folder: Path, **changes: Any) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def arrays(folder: Path, change: Callable[[dict[str, mx.array]], Any]) -> None:
    path = str(folder / "adapters.safetensors")
    weights = dict(mx.load(path))
    change(weights)
    mx.save_safetensors(path, weights)


def rename(weights: dict[str, mx.array], name: str) -> None:
    first = min(weights).rpartition(".")[0]
    for end in ("lora_a", "lora_b"):
        weights[f"{name}.{end}"] = weights.pop(f"{first}.{end}")


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda folder: (folder / "adapter_config.json").unlink(), "no adapter_config.json"),
        (lambda folder: (folder / "adapters.safetensors").unlink(), "cannot be read"),
        (lambda folder: (folder / "adapters.safetensors").write_bytes(b"torn"), "cannot be read"),
        (lambda folder: (folder / "adapter_config.json").write_text("{"), "cannot be read"),
        (lambda folder: (folder / "adapter_config.json").write_text('{"r": 8}'), "no lora_parameters"),
        (lambda folder: config(folder, fine_tune_type="dora"), "dora"),
        (lambda folder: config(folder, fine_tune_type="full"), "full"),
        (lambda folder: arrays(folder, lambda weights: weights.pop(min(weights))), "lacks lora_a"),
        (lambda folder: arrays(folder, lambda weights: rename(weights, "model.elsewhere")), "is not there"),
        (lambda folder: arrays(folder, lambda weights: rename(weights, "model.norm")), "RMSNorm"),
        (
            lambda folder: arrays(folder, lambda weights: rename(weights, "model.layers.0.self_attn.q_proj")),
            "does not fit",
        ),
        (lambda folder: arrays(folder, lambda weights: weights.update({"model.norm.m": mx.zeros(1)})), "lacks"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_reason(
    tiny: Path, folders: list[Path], tmp_path: Path, spoil: Callable[[Path], Any], reason: str
) -> None:
    broken = shutil.copytree(folders[0], tmp_path / "broken")
    spoil(broken)
    with pytest.raises(LoadFailed) as refusal:
        Adapters([(broken, 1.0)]).apply_to(LanguageModel(model_of(tiny, plain)))
    assert reason in refusal.value.message
    assert "broken" in refusal.value.message


def test_an_architecture_that_mixes_its_rows_is_refused(tiny: Path, folders: list[Path]) -> None:
    model = model_of(tiny, plain)
    mlp = model.layers[0].mlp

    class Flat(type(mlp)):  # type: ignore[misc]
        """The same layer, but it folds its rows into one."""

        def __call__(self, x: mx.array) -> mx.array:
            y: mx.array = super().__call__(x.reshape(-1, x.shape[-1]))
            return y.reshape(*x.shape[:-1], -1)

    mlp.__class__ = Flat
    assert "model.layers.0.mlp.up_proj.lora_a" in mx.load(str(folders[0] / "adapters.safetensors"))
    with pytest.raises(LoadFailed, match="This architecture cannot take adapters"):
        Adapters([(folders[0], 1.0)]).apply_to(LanguageModel(model))
