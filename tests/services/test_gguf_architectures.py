"""Models from GGUF files compute what the models compute that the files were made of, and nothing is left out."""

import dataclasses
import json
import re
from collections.abc import Callable
from functools import cache
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.services.errors import LoadFailed
from app.services.gguf.architectures import Architecture, for_file
from app.services.gguf.blocks import pack, widen
from app.services.gguf.file import GGUFFile, read
from tests.services.gguf_further_models import FURTHER
from tests.services.gguf_models import (
    MODELS,
    TinyModel,
    load,
    log_probabilities,
    make_model,
    random_weights,
    write,
)

NAMES = {model.name: model for model in (*MODELS, *FURTHER)}
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.integers(0, 64),
    st.floats(),
    st.text(max_size=20),
    st.lists(st.integers(-(2**31), 2**31), max_size=8).map(np.array),
    st.lists(st.booleans(), max_size=8).map(np.array),
    st.lists(st.text(max_size=4), max_size=8),
)
SLOW = ("F32", "Q4_0")  # the quantizations that not every run looks at
OTHER_KEYS = (
    "pooling_type",
    "rope.scaling.type",
    "rope.scaling.factor",
    "rope.dimension_count",
    "nextn_predict_layers",
)
SENTENCE = r"model\.gguf [a-z]+ [^\n]*[^.]\.$"


@pytest.fixture(params=NAMES)
def model(request: pytest.FixtureRequest) -> TinyModel:
    return NAMES[request.param]


@pytest.fixture(scope="module")
def file_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], GGUFFile]:
    """A function that gives the file of a model, by its name and quantization."""

    def write_file(name: str, quantization: str) -> GGUFFile:
        path = tmp_path_factory.mktemp(name) / "model.gguf"
        return read(write(NAMES[name], random_weights(NAMES[name], quantization), path, quantization))

    return cache(write_file)


@pytest.fixture(scope="module")
def outcome_of(file_of: Callable[[str, str], GGUFFile]) -> Callable[[str, str], mx.array]:
    """A function that gives the log-probabilities of a file's model, whose weights are widened."""

    def compute(name: str, quantization: str) -> mx.array:
        architecture = for_file(file_of(name, quantization))
        return log_probabilities(load(architecture.config, widened(architecture)))

    return cache(compute)


# What a file in Q8_0 leaves wide is as in one in F32.
@pytest.mark.parametrize("quantization", ["Q8_0", *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)])
def test_a_file_computes_what_its_model_does(
    model: TinyModel, quantization: str, outcome_of: Callable[[str, str], mx.array]
) -> None:
    expected = log_probabilities(load(model.config, random_weights(model, quantization)))
    assert mx.abs(outcome_of(model.name, quantization) - expected).max().item() < 0.002


def test_the_configuration_is_that_of_the_model(model: TinyModel, file_of: Callable[[str, str], GGUFFile]) -> None:
    architecture = for_file(file_of(model.name, "F32"))
    assert arguments(architecture.config) == arguments(model.config)


def test_packed_weights_are_changed_as_wide_ones_are(model: TinyModel, file_of: Callable[[str, str], GGUFFile]) -> None:
    parameters = [
        one
        for one in for_file(file_of(model.name, "Q8_0")).parameters
        if not one.is_dense and all(tensor.type.is_quantized for tensor in one.tensors)
    ]
    assert parameters
    for one in parameters:
        packed = one.change(*map(pack, one.tensors))
        expanded = mx.dequantize(
            mx.array(packed.weight),
            mx.array(packed.scales),
            None if packed.biases is None else mx.array(packed.biases),
            group_size=packed.group_size,
            bits=packed.bits,
            mode=packed.mode,
        )
        np.testing.assert_array_equal(np.array(expanded), one.change(*map(widen, one.tensors)), one.name)


def test_a_file_that_lacks_a_tensor_is_refused(model: TinyModel, file_of: Callable[[str, str], GGUFFile]) -> None:
    file = file_of(model.name, "F32")
    for name in file.tensors.keys() - {"output.weight", *model.optional}:
        rest = {key: tensor for key, tensor in file.tensors.items() if key != name}
        with pytest.raises(LoadFailed, match=SENTENCE):
            for_file(file._replace(tensors=rest))


def test_a_file_with_a_tensor_by_another_name_is_refused(
    model: TinyModel, file_of: Callable[[str, str], GGUFFile]
) -> None:
    file = file_of(model.name, "F32")
    for name in file.tensors:
        renamed = {key if key != name else key + "_2": tensor for key, tensor in file.tensors.items()}
        with pytest.raises(LoadFailed, match=SENTENCE):
            for_file(file._replace(tensors=renamed))
        with pytest.raises(LoadFailed, match=rf"model\.gguf has the tensor '{name}_2', which [^\n]*\.$"):
            for_file(file._replace(tensors={**file.tensors, name + "_2": file.tensors[name]}))


def test_what_mlx_lm_does_not_narrow_stays_float32(model: TinyModel, file_of: Callable[[str, str], GGUFFile]) -> None:
    parameters = for_file(file_of(model.name, "F32")).parameters
    narrows = getattr(make_model(model.config), "cast_predicate", lambda name: not name.endswith(".A_log"))
    assert {one.name for one in parameters if one.is_float32} == {
        one.name for one in parameters if not narrows(one.name)
    }


def test_a_narrow_model_computes_in_bfloat16(model: TinyModel, file_of: Callable[[str, str], GGUFFile]) -> None:
    architecture = for_file(file_of(model.name, "F32"))
    weights = {name: mx.array(array) for name, array in widened(architecture).items()}
    wide = {one.name for one in architecture.parameters if one.is_float32}
    narrow = {name: array if name in wide else array.astype(mx.bfloat16) for name, array in weights.items()}
    assert load(architecture.config, narrow)(mx.array([[1, 2, 3]])).dtype == mx.bfloat16


def test_packed_weights_fit_into_the_layers_of_the_model(
    model: TinyModel, file_of: Callable[[str, str], GGUFFile], outcome_of: Callable[[str, str], mx.array]
) -> None:
    packed = log_probabilities(packed_model(for_file(file_of(model.name, "Q8_0"))))
    assert mx.abs(packed - outcome_of(model.name, "Q8_0")).max().item() < 0.002


def test_experts_in_mxfp4_stay_as_they_are(
    file_of: Callable[[str, str], GGUFFile], outcome_of: Callable[[str, str], mx.array]
) -> None:
    model = packed_model(for_file(file_of("gpt-oss", "MXFP4")))
    experts = model.layers[0].mlp.experts.down_proj
    assert (experts.mode, experts.bits, experts.group_size) == ("mxfp4", 4, 32)
    assert mx.abs(log_probabilities(model) - outcome_of("gpt-oss", "MXFP4")).max().item() < 0.002


@pytest.mark.parametrize("name", ["qwen3.5", "qwen3.5-experts", "qwen3-next", "glm4", "glm4-experts", "deepseek3"])
def test_layers_that_predict_further_tokens_are_left_out(name: str, file_of: Callable[[str, str], GGUFFile]) -> None:
    file = file_of(name, "F32")
    count = f"{file.architecture}.block_count"
    layers = file.metadata[count]
    further = {
        f"blk.{layers}.{name}": file.tensors["output_norm.weight"] for name in ("attn_norm.weight", "nextn.enorm")
    }
    metadata = {**file.metadata, count: layers + 1, f"{file.architecture}.nextn_predict_layers": 1}
    longer = for_file(file._replace(metadata=metadata, tensors={**file.tensors, **further}))
    assert longer.config == for_file(file).config
    assert [one.name for one in longer.parameters] == [one.name for one in for_file(file).parameters]


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("gpt-oss", "attention.sliding_window_pattern", 1),
        ("gpt-oss", "rope.scaling.factor", 0.0),
        ("gpt-oss", "rope.scaling.type", "dynamic"),
        ("phi3", "rope.dimension_count", 5),
        ("phi3-long", "rope.scaling.attn_factor", 1.0),
        ("ministral3", "expert_count", 4),
        ("granite", "rope.scaling.finetuned", False),
        ("qwen3.5", "full_attention_interval", 3),
        ("qwen3.5", "ssm.time_step_rank", 5),
        ("lfm2", "rope.scaling.factor", 2.0),
        ("lfm2-experts", "expert_gating_func", 1),
        ("glm4", "rope.dimension_sections", [2, 1, 1, 0]),
        ("glm4-experts", "expert_gating_func", 1),
        ("deepseek3", "rope.scaling.yarn_log_multiplier", 0.0),
        ("deepseek2", "expert_weights_norm", True),
        ("deepseek2", "expert_group_count", 8),
        ("deepseek2", "attention.layer_norm_rms_epsilon", 1e-05),
    ],
)
def test_what_mlx_lm_does_not_compute_is_refused(
    name: str, key: str, value: Any, file_of: Callable[[str, str], GGUFFile]
) -> None:
    file = file_of(name, "F32")
    with pytest.raises(LoadFailed, match=SENTENCE):
        for_file(file._replace(metadata={**file.metadata, f"{file.architecture}.{key}": value}))


@pytest.mark.slow
def test_a_tensor_of_another_shape_is_refused(model: TinyModel, file_of: Callable[[str, str], GGUFFile]) -> None:
    file = file_of(model.name, "F32")
    for name in (one for one in file.tensors if not re.match(r"blk\.[^0]", one)):
        tensor = file.tensors[name]
        # An embedding may be padded; all else has the rows that the metadata say.
        for axis in range(1 if name.endswith("token_embd.weight") else 0, len(tensor.shape)):
            shape = tuple(size + (number == axis) for number, size in enumerate(tensor.shape))
            other = tensor._replace(shape=shape, data=np.full((*shape[:-1], 4 * shape[-1]), 0xBF, np.uint8))
            with pytest.raises((LoadFailed, ValueError)):  # ValueError: by mlx-lm, which loads strictly
                architecture = for_file(file._replace(tensors={**file.tensors, name: other}))
                load(architecture.config, widened(architecture))


@given(data=st.data())
def test_whatever_the_metadata_say_is_understood_or_refused(
    data: st.DataObject, file_of: Callable[[str, str], GGUFFile]
) -> None:
    file = file_of(data.draw(st.sampled_from(sorted(NAMES))), "F32")
    keys = [key for key in file.metadata if key.startswith(f"{file.architecture}.")]
    keys += [f"{file.architecture}.{key}" for key in OTHER_KEYS]
    metadata = {**file.metadata, data.draw(st.sampled_from(keys)): data.draw(VALUES)}
    try:
        architecture = for_file(file._replace(metadata=metadata))
    except LoadFailed as error:
        assert re.search(SENTENCE, str(error))
    else:
        json.dumps(architecture.config, allow_nan=False)


@pytest.mark.parametrize(
    "name, metadata, sentence",
    [
        ("llama", {"general.architecture": "bloom"}, "has the architecture 'bloom', which .* \\(it can: .*gemma4"),
        ("llama", {"llama.attention.clamp_kqv": 8.0}, "says 'llama.attention.clamp_kqv', which is not understood"),
        ("llama", {"llama.block_count": 1 << 31}, "has 2147483648 layers by its metadata, but 30 tensors"),
        ("llama", {"llama.attention.causal": False}, "has llama.attention.causal = False, which .* cannot compute"),
        ("llama-3", {"llama.rope.freq_base": -1.0}, "has other factors of rope \\(rope_freqs.weight\\) than Llama 3's"),
        ("qwen3moe", {"qwen3moe.expert_used_count": 0}, "has 4 experts, of which 0 are used"),
        ("phi3-long", {"phi3.rope.scaling.original_context_length": 1}, "a whole number, 2 or more"),
        ("llama", {"llama.rope.scaling.type": "longrope"}, "has rope.scaling.type 'longrope', which"),
        ("llama-3", {"llama.rope.freq_base": 1e6}, "has other factors of rope \\(rope_freqs.weight\\) than Llama 3's"),
        (
            "llama",
            {"llama.embedding_length": 32},
            "has the tensor 'token_embd.weight' of 128 by 64, which does not fit",
        ),
        ("qwen3", {"qwen3.pooling_type": 4}, "pools embeddings in a way \\(pooling_type 4\\) that is neither"),
        (
            "gemma4",
            {"gemma4.final_logit_softcapping": "30"},
            "has '30' as gemma4.final_logit_softcapping, which has to be",
        ),
    ],
)
def test_what_is_not_understood_is_named(
    name: str, metadata: dict[str, Any], sentence: str, file_of: Callable[[str, str], GGUFFile]
) -> None:
    file = file_of(name, "F32")
    with pytest.raises(LoadFailed, match=sentence):
        for_file(file._replace(metadata={**file.metadata, **metadata}))


def test_experts_in_tensors_of_their_own_are_refused(file_of: Callable[[str, str], GGUFFile]) -> None:
    file = file_of("mixtral", "F32")
    tensors = {name.replace("_exps", ".0"): tensor for name, tensor in file.tensors.items()}
    with pytest.raises(LoadFailed, match="has a tensor for each expert, as before April 2024; take a newer file"):
        for_file(file._replace(tensors=tensors))


@pytest.mark.parametrize("number, pooling", [(0, None), (1, "mean"), (3, "last")])
def test_the_pooling_is_that_of_the_file(
    number: int, pooling: str | None, file_of: Callable[[str, str], GGUFFile]
) -> None:
    file = file_of("qwen3", "F32")
    assert for_file(file).pooling is None
    assert for_file(file._replace(metadata={**file.metadata, "qwen3.pooling_type": number})).pooling == pooling


def test_queries_keys_and_values_may_lie_in_one_tensor(
    model: TinyModel, file_of: Callable[[str, str], GGUFFile]
) -> None:
    file = file_of(model.name, "F32")
    fused, plain = for_file(joined(file)), for_file(file)
    assert fused.config == plain.config
    assert {one.name for one in fused.parameters} == {one.name for one in plain.parameters}
    values = widened(fused)
    for name, value in widened(plain).items():
        np.testing.assert_array_equal(values[name], value, name)


def joined(file: GGUFFile) -> GGUFFile:
    """Join queries, keys and values of the layers that have them all, as some files have them."""
    tensors = dict(file.tensors)
    for name in file.tensors:
        parts = [name.replace("attn_q.", f"attn_{part}.") for part in "qkv"]
        if "attn_q." in name and all(part in tensors for part in parts):
            sources = [tensors.pop(part) for part in parts]
            data = np.concatenate(
                [one.data.reshape(-1, one.data.shape[-1]) if one.data.ndim > 1 else one.data for one in sources]
            )
            shape = (sum(one.shape[0] for one in sources), *sources[0].shape[1:])
            key = name.replace("attn_q.", "attn_qkv.")
            tensors[key] = sources[0]._replace(name=key, shape=shape, data=data)
    return file._replace(tensors=tensors)


def widened(architecture: Architecture) -> dict[str, np.ndarray]:
    return {one.name: one.change(*map(widen, one.tensors)) for one in architecture.parameters}


def packed_model(architecture: Architecture) -> Any:
    """Make a model with quantized layers wherever a file has quantized tensors that may stay so."""
    weights, layers = {}, {}
    for one in architecture.parameters:
        if one.is_dense or not all(tensor.type.is_quantized for tensor in one.tensors):
            weights[one.name] = one.change(*map(widen, one.tensors))
            continue
        packed, path = one.change(*map(pack, one.tensors)), one.name.removesuffix(".weight")
        layers[path] = {"bits": packed.bits, "group_size": packed.group_size, "mode": packed.mode}
        parts = {"weight": packed.weight, "scales": packed.scales, "biases": packed.biases}
        weights |= {f"{path}.{name}": array for name, array in parts.items() if array is not None}
    model = make_model(architecture.config)
    arrays = {name: mx.array(array) for name, array in weights.items()}
    arrays = model.sanitize(arrays) if hasattr(model, "sanitize") else arrays
    nn.quantize(model, class_predicate=lambda path, layer: layers.get(path, False))
    model.load_weights(list(arrays.items()))
    return model


def arguments(config: dict[str, Any]) -> dict[str, Any]:
    """Give what mlx-lm makes of a configuration."""
    model = make_model(config)
    return dataclasses.asdict(getattr(model, "language_model", model).args)
