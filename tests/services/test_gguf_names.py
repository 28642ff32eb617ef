"""GGUF files by their names: which are models, which shards belong together, and what is meant by `repo:quant`."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.services.errors import LoadFailed
from app.services.gguf.names import choose, in_folder, is_quant, models, of_file, vision_parts

QUANTS = {
    "gemma-3-270m-it-Q4_K_M.gguf": "Q4_K_M",
    "gemma-3-270m-it.Q8_0.gguf": "Q8_0",
    "Qwen3-0.6B-UD-Q4_K_XL.gguf": "UD-Q4_K_XL",
    "gemma-4-E2B-it-IQ4_XS.GGUF": "IQ4_XS",
    "phi-4-bf16.gguf": "bf16",
    "mistral_F16.gguf": "F16",
    "gpt-oss-20b-mxfp4.gguf": "mxfp4",
    "gpt-oss-20b-MXFP4_MOE.gguf": "MXFP4_MOE",
    "model-NVFP4.gguf": "NVFP4",
    "bitnet-TQ1_0.gguf": "TQ1_0",
    "gemma-3-4b-it-q4_0.gguf": "q4_0",
    "llama-7b.gguf": "llama-7b",
    "Q4_K_M/qwen3-00001-of-00002.gguf": "Q4_K_M",
    "UD-Q2_K_XL/DeepSeek-R1-UD-Q2_K_XL-00001-of-00005.gguf": "UD-Q2_K_XL",
    "q.gguf": "q",
}


@pytest.mark.parametrize(("path", "quant"), QUANTS.items())
def test_the_quantization_stands_in_the_name(path: str, quant: str) -> None:
    (model,) = models([path])
    assert model.quant == quant
    assert choose([model], quant.swapcase(), "org/name") == model
    assert of_file(Path(path)).quant == quant


def test_shards_are_one_model_in_their_order() -> None:
    shards = [f"Q8_0/big-Q8_0-{number:05}-of-00003.gguf" for number in (2, 3, 1)]
    (model,) = models(shards)
    assert (model.name, model.quant, model.paths) == ("big-Q8_0", "Q8_0", tuple(sorted(shards)))


def test_what_only_goes_with_a_model_is_none() -> None:
    files = ["mmproj-F16.gguf", "a-Q4_0.gguf", "mmproj-model-f16.gguf", "a.imatrix.gguf", "README.md", "a.safetensors"]
    assert [model.name for model in models(files)] == ["a-Q4_0"]
    assert vision_parts(files, "a-Q4_0.gguf") == ["mmproj-F16.gguf", "mmproj-model-f16.gguf"]


def test_the_vision_part_of_a_model_is_the_one_that_is_called_like_it_then_the_one_of_16_bits() -> None:
    files = ["mmproj-F32.gguf", "mmproj-BF16.gguf", "mmproj-F16.gguf", "mmproj-a-12b-f16.gguf", "a-4b-mmproj-q8_0.gguf"]
    assert vision_parts(files, "a-4b-Q4_K_M.gguf")[0] == "a-4b-mmproj-q8_0.gguf"
    assert vision_parts(files, "a-12b-Q4_K_M.gguf")[0] == "mmproj-a-12b-f16.gguf"
    assert vision_parts(files[:3], "x.gguf") == ["mmproj-F16.gguf", "mmproj-BF16.gguf", "mmproj-F32.gguf"]


REPO = ["a-Q4_K_M.gguf", "a-UD-Q4_K_XL.gguf", "a-Q8_0.gguf", "BF16/a-BF16-00001-of-00002.gguf", "mmproj-BF16.gguf"]


@pytest.mark.parametrize(
    ("quant", "name"),
    [
        ("q4_k_m", "a-Q4_K_M"),
        ("Q8_0", "a-Q8_0"),
        ("UD-Q4_K_XL", "a-UD-Q4_K_XL"),
        ("Q4_K_XL", "a-UD-Q4_K_XL"),
        ("bf16", "a-BF16"),
        ("a-Q8_0", "a-Q8_0"),
    ],
)
def test_a_quantization_is_chosen(quant: str, name: str) -> None:
    assert choose(models(REPO), quant, "org/a").name == name


@pytest.mark.parametrize(
    ("quant", "words"),
    [
        (None, "org/a has several models: name one as org/a:Q4_K_M. It has BF16, Q4_K_M, Q8_0, UD-Q4_K_XL."),
        ("Q5_K_M", "org/a has no Q5_K_M. It has BF16, Q4_K_M, Q8_0, UD-Q4_K_XL."),
        ("_0", "org/a has no _0"),
        ("", "org/a has no ."),
        ("K_M", "org/a has no K_M"),
    ],
)
def test_without_a_match_those_that_there_are_are_listed(quant: str | None, words: str) -> None:
    with pytest.raises(LoadFailed) as failure:
        choose(models(REPO), quant, "org/a")
    assert failure.value.message.startswith(words)


def test_of_several_with_one_quantization_a_name_is_needed() -> None:
    files = models(["a-Q4_0.gguf", "b-Q4_0.gguf"])
    with pytest.raises(LoadFailed, match="several models Q4_0: name one of a-Q4_0, b-Q4_0"):
        choose(files, "Q4_0", "org/both")
    assert choose(files, "b-Q4_0", "org/both").name == "b-Q4_0"


def test_a_repo_without_files_is_said() -> None:
    with pytest.raises(LoadFailed, match="org/a has no GGUF file with a model"):
        choose(models(["mmproj-F16.gguf"]), None, "org/a")


def test_a_folder_has_those_in_its_folders_too(tmp_path: Path) -> None:
    for name in ("a-Q4_0.gguf", ".hidden.gguf", "Q8_0/a-Q8_0.gguf", "deep/er/b.gguf", "notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert {model.paths for model in in_folder(tmp_path)} == {("a-Q4_0.gguf",), ("Q8_0/a-Q8_0.gguf",)}


@given(st.text(max_size=40))
def test_no_name_is_too_strange(text: str) -> None:
    for model in models([f"{text}.gguf", text]):
        assert model.is_quant(model.quant)
    is_quant(text)
