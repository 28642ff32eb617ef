"""Models from GGUF files compute what the models compute that the files were made of, and nothing is left out."""

import dataclasses
from collections.abc import Callable
from functools import cache
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from app.services.errors import LoadFailed
from app.services.gguf.architectures import Architecture, for_file
from app.services.gguf.blocks import pack, widen
from app.services.gguf.file import GGUFFile, read
from tests.services.gguf_models import (
    MODELS,
    QUANTIZED,
    TinyModel,
    load,
    log_probabilities,
    make_model,
    random_weights,
    write,
)

NAMES = {model.name: model for model in MODELS}
SENTENCE = r"model\.gguf (lacks|has) [^\n]*[^.]\.$"


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


@pytest.mark.parametrize("quantization", ["F32", *QUANTIZED])
def test_a_file_computes_what_its_model_does(
    model: TinyModel, quantization: str, file_of: Callable[[str, str], GGUFFile]
) -> None:
    architecture = for_file(file_of(model.name, quantization))
    expected = log_probabilities(load(model.config, random_weights(model, quantization)))
    difference = mx.abs(log_probabilities(load(architecture.config, widened(architecture))) - expected)
    assert difference.max().item() < 0.002


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


def widened(architecture: Architecture) -> dict[str, np.ndarray]:
    return {one.name: one.change(*map(widen, one.tensors)) for one in architecture.parameters}


def arguments(config: dict[str, Any]) -> dict[str, Any]:
    """Give what mlx-lm makes of a configuration."""
    return dataclasses.asdict(make_model(config).args)
