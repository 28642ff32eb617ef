"""Towers as conversions for MLX have them: other names, kernels with the channels last, and quantized weights."""

import json
import re
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from app.services.engine.vision import loading
from app.services.generation import Image
from app.services.vision_files import TOWERS, has_tower
from tests import vision_models

ROOT = Path(__file__).parents[2]
GROUP = 32  # numbers that have a scale of their own


def test_each_family_that_sees_is_known_everywhere() -> None:
    families = set(loading.FAMILIES)
    table = [line for line in (ROOT / "docs" / "vision.md").read_text().splitlines() if line.startswith("| ")]
    assert families == set(TOWERS)
    assert families <= set(re.findall(r"`([\w-]+)`", "\n".join(table)))
    tested = {vision_models.golden(family)["config"]["model_type"] for family in vision_models.FAMILIES}
    # The names that conversions give to the llava that has Pixtral's tower, and the first checkpoints to LFM2-VL.
    assert families - tested == {"pixtral", "lfm2-vl"}


def converted_name(name: str, model_type: str) -> str:
    """Give the name of a weight of a tower as conversions have it."""
    name = name.removeprefix("model.").replace("visual.", "vision_tower.")
    if model_type in ("gemma3", "mistral3", "llava"):
        return name.replace("vision_tower.", "vision_tower.vision_model.")
    return name


def embeddings(folder: Path, model: Any) -> Any:
    vision = vision_models.load_vision(folder, model)
    assert vision is not None
    image = vision.placed(vision.read(Image(vision_models.png(1, width=40, height=30))), 0)
    while (found := vision.embeddings(image)) is None:
        vision.look(image)
    return np.array(found)


@pytest.mark.parametrize("family", vision_models.FAMILIES)
def test_a_converted_and_quantized_tower_gives_what_its_numbers_give(family: str, tmp_path: Path) -> None:
    golden = vision_models.golden(family)
    plain, converted = tmp_path / "plain", tmp_path / "converted"
    for folder in (plain, converted):
        vision_models.write(folder, golden)
    model = vision_models.load_text_model(plain)
    before = embeddings(plain, model)
    quantization: dict[str, Any] = {"group_size": GROUP, "bits": 8}
    arrays: dict[str, mx.array] = mx.load(str(plain / "model.safetensors"))  # type: ignore[assignment]
    packed: dict[str, mx.array] = {}
    for name, array in list(arrays.items()):
        if not name.removeprefix("model.").startswith(TOWERS[golden["config"]["model_type"]]):
            continue
        short = converted_name(name, golden["config"]["model_type"])
        if array.ndim >= 4:
            packed[short] = mx.moveaxis(array, 1, -1)
        elif array.ndim == 2 and name.endswith(".weight") and array.shape[-1] % GROUP == 0:
            bits = 4 if "layers.1." in name or "blocks.1." in name else 8
            if bits == 4:
                quantization[short.removesuffix(".weight")] = {"group_size": GROUP, "bits": bits}
            parts = mx.quantize(array, GROUP, bits)
            packed |= zip(
                (short, *(short.replace(".weight", end) for end in (".scales", ".biases"))), parts, strict=True
            )
            arrays[name] = mx.dequantize(*parts, GROUP, bits)
        else:
            packed[short] = array
    mx.save_safetensors(str(plain / "model.safetensors"), arrays)
    mx.save_safetensors(str(converted / "model.safetensors"), packed)
    (converted / "config.json").write_text(json.dumps(golden["config"] | {"quantization": quantization}))
    assert has_tower(golden["config"], packed)
    expected = embeddings(plain, model)
    assert not np.allclose(before, expected, atol=1e-4)
    assert np.allclose(embeddings(converted, model), expected, atol=1e-4)


@pytest.mark.parametrize("family", vision_models.FAMILIES)
def test_a_tower_of_16_bits_computes_in_16_bits(family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wide, half = tmp_path / "wide", tmp_path / "half"
    for folder in (wide, half):
        vision_models.write(folder, vision_models.golden(family))
    arrays: dict[str, mx.array] = mx.load(str(half / "model.safetensors"))  # type: ignore[assignment]
    arrays = {name: array.astype(mx.bfloat16) for name, array in arrays.items()}
    mx.save_safetensors(str(half / "model.safetensors"), arrays)
    expected = np.array(steps(wide)[-1])
    monkeypatch.setattr(loading, "back_end", lambda: "metal")  # on the CPU towers are widened
    computed = steps(half)
    assert {array.dtype for array in computed} == {mx.bfloat16}
    assert np.abs(np.array(computed[-1].astype(mx.float32)) - expected).mean() < 0.15 * np.abs(expected).mean()


def steps(folder: Path) -> list[mx.array]:
    """Give what a tower computes of an image, step by step."""
    vision = vision_models.load_vision(folder, vision_models.load_text_model(folder))
    assert vision is not None
    steps = vision._tower(vision._prepare(vision.read(Image(vision_models.png(1, width=40, height=30)))))
    computed = []
    try:
        while True:
            computed.append(next(steps))
    except StopIteration as end:
        return [*computed, end.value]


@pytest.mark.parametrize("is_same", [True, False])
def test_an_output_layer_that_mlx_lm_would_leave_out_is_not_left_out_in_silence(tmp_path: Path, is_same: bool) -> None:
    vision_models.write(tmp_path, vision_models.golden("lfm2_vl"))
    path = str(tmp_path / "model.safetensors")
    arrays: dict[str, mx.array] = mx.load(path)  # type: ignore[assignment]
    embeddings = arrays["model.language_model.embed_tokens.weight"]
    mx.save_safetensors(path, arrays | {"lm_head.weight": embeddings if is_same else embeddings + 1})
    if is_same:
        assert vision_models.load_text_model(tmp_path).args.model_type == "lfm2_vl"
    else:
        with pytest.raises(ValueError, match="an output layer of its own"):
            vision_models.load_text_model(tmp_path)


@pytest.mark.parametrize("family", ["smolvlm", "idefics3", "lfm2_vl"])
def test_the_text_model_of_a_conversion_is_that_of_the_checkpoint(family: str, tmp_path: Path) -> None:
    """Conversions have the text model's names shorter, of Llama without `model.` within."""
    golden = vision_models.golden(family)
    plain, converted = tmp_path / "plain", tmp_path / "converted"
    for folder in (plain, converted):
        vision_models.write(folder, golden)
    arrays: dict[str, mx.array] = mx.load(str(plain / "model.safetensors"))  # type: ignore[assignment]
    text = "language_model.model." if family == "lfm2_vl" else "language_model."
    names = {"model.text_model.": text, "model.language_model.": text, "lm_head.": "language_model.lm_head."}
    for name in list(arrays):
        for prefix, other in names.items():
            if name.startswith(prefix):
                array = arrays.pop(name)
                is_conv = name.endswith("conv.conv.weight")
                arrays[name.replace(prefix, other)] = mx.moveaxis(array, 1, 2) if is_conv else array
    mx.save_safetensors(str(converted / "model.safetensors"), arrays)
    prompt = mx.array([[5, 7, 11, 13, 17]])
    assert mx.array_equal(*(vision_models.load_text_model(folder)(prompt) for folder in (plain, converted)))
