"""Vectors and scores of encoders are those of a forward pass in NumPy, in any company and in slices of any size."""

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.services import catalog
from app.services.engine.encoders.group import EncoderGroup, EncoderParts
from app.services.engine.encoders.loading import load
from app.services.engine.encoders.model import EncoderModel
from app.services.engine.encoders.tokenizer import EncoderInput, EncoderTokenizer
from app.services.engine.model.chunk_sizer import ChunkSizer
from app.services.engine.model.loading import at_once
from app.services.engine.scheduler.embedding import Embedding
from app.services.errors import InvalidRequest, LoadFailed, PromptTooLong
from tests import encoders

TEXTS = [
    "Every tile came from a small workshop near the river.",
    "one",
    "It reads what was written, piece by piece, and puts the next piece beside the last one until a pattern appears.",
    "Zoë went to the café with numbers 10 and 11, and wrote the date, the wind and the number of birds.",
]
KINDS = sorted(encoders.CONFIGS)


def loaded(folder: Path) -> tuple[EncoderModel, EncoderTokenizer]:
    found = catalog.inspect(folder)
    model = at_once(load(found))
    return model, EncoderTokenizer(folder, found.context.tokens, model.vocabulary)


def compute(model: EncoderModel, inputs: Sequence[EncoderInput], budget: int = 2048, pooling: Any = None) -> Any:
    embedding = Embedding(None, "m", [len(one) for one in inputs], partial(EncoderGroup, inputs, pooling))
    parts = EncoderParts(model, ChunkSizer())
    while not embedding.is_finished:
        embedding.compute(parts, budget)
    vectors = embedding.result().vectors
    return vectors if vectors.shape[1] == 1 else vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("budget", [1, 2048])
def test_a_vector_is_that_of_the_plain_forward_pass(tmp_path: Path, kind: str, budget: int) -> None:
    folder = encoders.build(tmp_path / kind, kind)
    model, tokenizer = loaded(folder)
    vectors = compute(model, [tokenizer.encode([text]) for text in TEXTS], budget)
    reference = encoders.Reference(folder)
    np.testing.assert_allclose(vectors, [reference.vector(text) for text in TEXTS], atol=2e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_score_is_that_of_the_plain_forward_pass(tmp_path: Path, kind: str) -> None:
    folder = encoders.build(tmp_path / kind, kind, ranks=True)
    model, tokenizer = loaded(folder)
    pairs = [tokenizer.pair("a small house", text, truncate=False, param="documents") for text in TEXTS]
    reference = encoders.Reference(folder)
    expected = [reference.score("a small house", text) for text in TEXTS]
    np.testing.assert_allclose(compute(model, pairs)[:, 0], expected, atol=5e-5)


@pytest.mark.parametrize("pooling", ["mean", "cls", "max", "last"])
def test_pooling_is_read_from_the_folder_or_chosen(tmp_path: Path, pooling: str) -> None:
    folder = encoders.build(tmp_path / "own", pooling=pooling)
    model, tokenizer = loaded(folder)
    inputs = [tokenizer.encode([text]) for text in TEXTS]
    expected = [encoders.Reference(folder).vector(text, pooling) for text in TEXTS]
    np.testing.assert_allclose(compute(model, inputs), expected, atol=2e-5)
    np.testing.assert_allclose(
        compute(loaded(encoders.build(tmp_path / "x"))[0], inputs, pooling=pooling), expected, atol=2e-5
    )


def test_a_text_alone_has_the_vector_that_it_has_beside_others(tmp_path: Path) -> None:
    model, tokenizer = loaded(encoders.build(tmp_path / "m", "modernbert"))
    inputs = [tokenizer.encode([text]) for text in TEXTS * 12]
    together = compute(model, inputs, 50)
    alone = np.concatenate([compute(model, [one]) for one in inputs[: len(TEXTS)]])
    np.testing.assert_allclose(together, np.tile(alone, (12, 1)), atol=1e-5)


def test_a_dense_layer_comes_after_the_pooling(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    parts = [{"type": f"sentence_transformers.models.{name}", "path": path} for name, path in DENSE]
    config = {"activation_function": "torch.nn.modules.activation.Tanh", "in_features": 32, "out_features": 8}
    folder = encoders.build(tmp_path / "m", files={"modules.json": parts, "2_Dense/config.json": config})
    matrix = np.random.default_rng(1).normal(size=(8, 32)).astype(np.float32)
    save_file(
        {"linear.weight": matrix, "linear.bias": np.ones(8, np.float32)}, folder / "2_Dense" / "model.safetensors"
    )
    model, tokenizer = loaded(folder)
    assert model.size == 8
    reference = encoders.Reference(folder)
    hidden = reference.hidden(reference.tokenizer.encode(TEXTS[0]))
    expected = np.tanh(matrix @ hidden.mean(0) + 1)
    assert encoders.cosines(compute(model, [tokenizer.encode([TEXTS[0]])]), [expected]) == pytest.approx(1, abs=1e-6)


DENSE = [("Transformer", ""), ("Pooling", "1_Pooling"), ("Dense", "2_Dense"), ("Normalize", "3_Normalize")]


def test_tokens_are_taken_with_and_without_those_that_begin_and_end_a_text(tmp_path: Path) -> None:
    _, tokenizer = loaded(encoders.build(tmp_path / "m"))
    whole = tokenizer.encode([TEXTS[0]]).tokens
    assert tokenizer.encode(whole).tokens == tokenizer.encode(whole[1:-1]).tokens == whole


def test_a_prompt_stands_before_a_text(tmp_path: Path) -> None:
    _, tokenizer = loaded(encoders.build(tmp_path / "m"))
    with_prompt, plain = tokenizer.encode(["the river"], prompt="a house: "), tokenizer.encode(["a house: the river"])
    assert with_prompt.tokens == plain.tokens
    assert with_prompt.prompt == len(tokenizer.encode(["a house: "])) - 1
    by_ids = tokenizer.encode(tokenizer.encode(["the river"]).tokens[1:-1], prompt="a house: ")
    assert by_ids.tokens == plain.tokens


def test_a_prompt_may_be_left_out_of_the_mean(tmp_path: Path) -> None:
    pooling = {"pooling_mode_mean_tokens": True, "include_prompt": False}
    folder = encoders.build(tmp_path / "m", files={"1_Pooling/config.json": pooling})
    model, tokenizer = loaded(folder)
    reference = encoders.Reference(folder)
    one = tokenizer.encode(["the river"], prompt="a house: ")
    expected = reference.hidden(reference.tokenizer.encode("a house: the river"))[one.prompt :].mean(0)
    assert encoders.cosines(compute(model, [one]), [expected]) == pytest.approx(1, abs=1e-6)


def test_what_is_too_long_is_refused_or_cut(tmp_path: Path) -> None:
    _, tokenizer = loaded(encoders.build(tmp_path / "m", most_tokens=12))
    long = "the river and the hill " * 1000
    with pytest.raises(PromptTooLong) as refusal:
        tokenizer.encode([long], param="input[3]")
    assert (refusal.value.param, "12" in refusal.value.message) == ("input[3]", True)
    cut = tokenizer.encode([long], truncate=True).tokens
    assert (len(cut), cut[0], cut[-1]) == (12, tokenizer.encode(["x"]).tokens[0], tokenizer.encode(["x"]).tokens[-1])
    pair = tokenizer.pair("the river", long, truncate=True, param="documents[0]")
    assert len(pair) == 12
    for query, param in (("the river", "documents[0]"), (long, "query")):
        with pytest.raises(PromptTooLong) as refusal:
            tokenizer.pair(query, long, truncate=False, param="documents[0]")
        assert refusal.value.param == param


@pytest.mark.parametrize("parts", [[""], ["   "], []])
def test_an_empty_text_has_no_vector(tmp_path: Path, parts: list[str]) -> None:
    _, tokenizer = loaded(encoders.build(tmp_path / "m"))
    with pytest.raises(InvalidRequest, match="empty"):
        tokenizer.encode(parts)


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({"modules.json": [{"type": "sentence_transformers.models.LSTM", "path": "1_LSTM"}]}, "LSTM"),
        ({"modules.json": {}}, "no JSON list"),
        ({"1_Pooling/config.json": []}, "no JSON object"),
    ],
)
def test_a_folder_with_parts_that_are_not_known_is_refused(tmp_path: Path, files: dict[str, Any], reason: str) -> None:
    folder = encoders.build(tmp_path / "m", files=files)
    with pytest.raises(LoadFailed, match=reason):
        catalog.inspect(folder)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"architectures": ["BertForTokenClassification"]}, "BertForTokenClassification"),
        ({"architectures": ["BertForSequenceClassification"], "id2label": {"0": "a", "1": "b"}}, "2 classes"),
        ({"hidden_act": "mish"}, "mish"),
        ({"position_embedding_type": "relative_key"}, "relative_key"),
        ({"num_hidden_layers": 4}, "tensors are missing"),
        ({"intermediate_size": 32}, "shape"),
    ],
)
def test_an_encoder_that_cannot_be_served_says_why(tmp_path: Path, change: dict[str, Any], reason: str) -> None:
    folder = encoders.build(tmp_path / "m", pooling=None)
    config = encoders.Reference(folder).config | change
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(LoadFailed, match=reason):
        loaded(folder)


def test_a_quantized_encoder_is_read(tmp_path: Path) -> None:
    import mlx.core as mx

    folder = encoders.build(tmp_path / "m")
    plain = encoders.Reference(folder).vector(TEXTS[0])
    arrays: dict[str, Any] = {}
    for name, array in dict(mx.load(str(folder / "model.safetensors"))).items():  # type: ignore[arg-type]
        if array.ndim == 2 and ".dense.weight" in name:
            arrays[name], arrays[name[:-6] + "scales"], arrays[name[:-6] + "biases"] = mx.quantize(array, 32, 8)
        else:
            arrays[name] = array
    mx.save_safetensors(str(folder / "model.safetensors"), arrays, {"format": "mlx"})
    config = encoders.Reference(encoders.build(tmp_path / "other")).config | {
        "quantization": {"group_size": 32, "bits": 8}
    }
    (folder / "config.json").write_text(json.dumps(config))
    model, tokenizer = loaded(folder)
    assert encoders.cosines(compute(model, [tokenizer.encode([TEXTS[0]])]), [plain])[0] > 0.999
