"""Towers in vision parts (mmproj), as llama.cpp's converter writes them, compute what those of folders do."""

import copy
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from app.services.engine.model.loading import at_once
from app.services.engine.vision import loading
from app.services.engine.vision.pixtral import PIXTRAL
from app.services.errors import LoadFailed
from app.services.generation import Image
from app.services.gguf import mmproj
from app.services.gguf.file import GGUFFile
from tests import vision_models, vision_parts


class Part:
    """A vision part of a family, and what it is for."""

    def __init__(self, folder: Path, family: str) -> None:
        self.golden = copy.deepcopy(vision_models.golden(family))
        self.folder = folder
        vision_models.write(folder, self.golden)
        self.weights: dict[str, np.ndarray] = load_file(folder / "model.safetensors")
        self.config = self.golden["config"]
        self.family = family
        text = self.config.get("text_config", self.config)
        self.text = {**text, "rope_scaling": None}
        self.path = folder / "mmproj-model-f32.gguf"

    def write(self, **keys: Any) -> Path:
        return vision_parts.write(
            self.path, self.family, {**self.config, "text_config": self.text}, self.weights, **self.keys | keys
        )

    @property
    def keys(self) -> dict[str, Any]:
        """What llama.cpp has in its code, which tiny models have otherwise."""
        return {"window_size": self.config["vision_config"]["window_size"]} if self.family == "qwen2_5_vl" else {}

    @property
    def model(self) -> GGUFFile:
        """The file of the text model, as far as a vision part needs it."""
        architecture = vision_parts.KINDS[self.family][1]
        tokens = [*self.golden.get("tokens", ())]
        metadata: dict[str, Any] = {"general.architecture": architecture, "tokenizer.ggml.tokens": tokens}
        scaling = (self.config.get("text_config") or self.config).get("rope_scaling") or {}
        scaling = scaling or (self.config.get("text_config") or self.config).get("rope_parameters") or {}
        if "mrope_section" in scaling:
            metadata[f"{architecture}.rope.dimension_sections"] = [*scaling["mrope_section"], 0]
        return GGUFFile(self.folder / "model.gguf", metadata, {}, ())

    def read(self) -> mmproj.VisionPart:
        return mmproj.read(self.path, self.model, self.text)


Make = Callable[[str], Part]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    return lambda family: Part(tmp_path / family, family)


def computed(vision: Any, inputs: Any) -> np.ndarray:
    """Give what a tower makes of an image."""
    steps = vision._tower(inputs)
    try:
        while True:
            next(steps)
    except StopIteration as end:
        return np.array(end.value)


@pytest.mark.parametrize("family", vision_parts.KINDS)
def test_a_tower_of_a_vision_part_computes_what_that_of_a_folder_does(make: Make, family: str) -> None:
    part = make(family)
    part.write()
    model = vision_models.load_text_model(part.folder)
    expected = vision_models.load_vision(part.folder, model)
    vision = at_once(
        loading._load(family, lambda: loading._of_part(part.read(), lambda text: [len(text)]), model, lambda _: [])
    )
    assert expected is not None
    assert vision is not None
    inputs = expected._prepare(expected.read(Image(vision_models.png(1, width=40, height=30))))
    assert np.array_equal(computed(vision, inputs), computed(expected, inputs))
    assert vision.mutual == expected.mutual
    assert vision.family == expected.family
    if expected.positions is not None:
        assert vision.positions is not None
        assert vision.positions.rope == expected.positions.rope
        assert np.array_equal(vision.positions._axes, expected.positions._axes)
    assert tuple(vision._processor.image_mean) == (0.25, 0.5, 0.75)
    assert tuple(vision._processor.image_std) == (0.5, 0.25, 0.125)
    for name in ("patch_size", "merge_size", "pooling_kernel_size"):
        assert getattr(vision._processor, name, None) == getattr(expected._processor, name, None)


@pytest.mark.parametrize("family", ["mistral3", "pixtral"])
def test_the_rows_of_an_image_are_those_of_the_folder(make: Make, family: str) -> None:
    part = make(family)
    part.config["vision_config"]["hidden_act"] = "gelu"
    part.write()
    read = part.read()
    assert read.config["vision_config"]["hidden_act"] == "gelu"
    processor = loading._processor(PIXTRAL, read.config, read.settings)
    expected = loading._processor(PIXTRAL, part.config, part.golden["processor"])
    for width, height in ((1, 1), (40, 40), (41, 7), (300, 200)):
        sizes = width, height
        assert PIXTRAL.layout(read.config, processor, *sizes) == PIXTRAL.layout(part.config, expected, *sizes)


def test_a_pixtral_that_says_too_little_or_something_else_is_refused(make: Make) -> None:
    part = make("mistral3")
    part.config["vision_config"]["hidden_act"] = "quick_gelu"
    part.write()
    with pytest.raises(LoadFailed, match="does not say which activation"):
        part.read()
    part.config["vision_config"]["hidden_act"] = "silu"
    part.write(epsilon=1e-6)
    with pytest.raises(LoadFailed, match="norms with an epsilon of 1e-06, not of 1e-05"):
        part.read()
    part.golden["tokens"].pop("[IMG_BREAK]")
    part.write()
    with pytest.raises(LoadFailed, match=r"with the token \[IMG_BREAK\], which model.gguf has not"):
        part.read()


@pytest.mark.parametrize("family", ["gemma3", "qwen2_vl", "qwen2_5_vl"])
def test_matrices_whose_names_the_first_converters_exchanged_are_told_by_their_shapes(make: Make, family: str) -> None:
    part = make(family)
    part.write()
    right = {one.name: one.tensors[0].shape for one in part.read().parameters}
    up, down = ("mlp.fc1", "mlp.fc2") if family != "qwen2_5_vl" else ("mlp.up_proj", "mlp.down_proj")
    exchanged = {up: down, down: up}
    pattern = f"({up}|{down})".replace(".", r"\.")

    named = part.weights.items()
    part.weights = {re.sub(pattern, lambda match: exchanged[match[0]], name): array for name, array in named}
    part.write()
    assert {one.name: one.tensors[0].shape for one in part.read().parameters} == right


def test_what_does_not_fit_is_refused_in_words(make: Make, tmp_path: Path) -> None:
    part, other = make("gemma3"), make("qwen2_5_vl")
    part.write()
    other.write()
    with pytest.raises(LoadFailed, match="kind 'gemma3', which cannot be read for a model of architecture 'qwen2vl'"):
        mmproj.read(part.path, other.model, other.text)
    with pytest.raises(LoadFailed, match=r"for a model of the width 32, but model\.gguf has 48"):
        mmproj.read(part.path, part.model, {**part.text, "hidden_size": 48})
    del part.weights["vision_tower.post_layernorm.weight"]
    part.write()
    with pytest.raises(LoadFailed, match=r"lacks the tensor 'v.post_ln.weight'"):
        part.read()
    part.weights = {}
    part.write()
    with pytest.raises(LoadFailed, match="lacks the tensor"):
        part.read()
    with pytest.raises(LoadFailed, match="no such file"):
        mmproj.read(tmp_path / "nothing.gguf", part.model, part.text)


def test_the_part_beside_a_model_is_the_one_that_fits_and_is_called_like_it(make: Make, tmp_path: Path) -> None:
    part, other = make("gemma3"), make("qwen2_5_vl")
    content, strange = part.write().read_bytes(), other.write().read_bytes()
    folder = tmp_path / "models"
    folder.mkdir()
    model = part.model._replace(path=folder / "gemma-3-4b-it-Q4_K_M.gguf")
    assert mmproj.choose(model, part.text) == (None, None)
    (folder / "mmproj-Qwen2.5-VL-f16.gguf").write_bytes(strange)
    found, problem = mmproj.choose(model, part.text)
    assert found is None
    assert problem is not None
    assert "mmproj-Qwen2.5-VL-f16.gguf" in problem
    names = ["mmproj-F32.gguf", "mmproj-F16.gguf", "mmproj-gemma-3-12b-it-f16.gguf", "mmproj-gemma-3-4b-it-f32.gguf"]
    for name in names:
        (folder / name).write_bytes(content)
    assert mmproj.choose(model, part.text) == (folder / names[-1], None)
    (folder / names[-1]).unlink()
    assert mmproj.choose(model, part.text) == (folder / names[-2], None)
    (folder / names[-2]).unlink()
    assert mmproj.choose(model, part.text) == (folder / "mmproj-F16.gguf", None)
    (folder / "mmproj-broken-f16.gguf").write_bytes(content[:100])
    assert mmproj.choose(model, part.text) == (folder / "mmproj-F16.gguf", None)


def test_another_token_stands_for_images_where_the_vocabulary_has_none_for_them(make: Make) -> None:
    part = make("gemma3")
    part.write()

    def placeholder(tokens: list[int]) -> int:
        source = loading._of_part(part.read(), lambda text: tokens if text == "<image_soft_token>" else [7, 8])
        return source.family.placeholder(source.config)

    assert (placeholder([5]), placeholder([5, 6])) == (5, 8)
