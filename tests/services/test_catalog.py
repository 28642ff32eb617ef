import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from app.services import catalog
from app.services.errors import LoadFailed
from app.services.hub import hugging_face_cache
from tests import tiny_model


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model.build(tmp_path_factory.mktemp("built") / "tiny", hidden=32, layers=1)


@pytest.fixture
def model(built: Path, tmp_path: Path) -> Path:
    """A good model folder that a test may spoil."""
    return Path(shutil.copytree(built, tmp_path / "tiny"))


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    """The environment of a fresh account."""
    return {"HOME": str(tmp_path / "home")}


Entry = Callable[..., Path]


@pytest.fixture
def entry(built: Path, home: dict[str, str]) -> Entry:
    """Puts a repo into the default Hugging Face cache, as its client lays it out."""

    def put(repo_id: str = "org/tiny", commit: str = "c0", hub: Path | None = None, main: str | None = None) -> Path:
        hub = hub or Path(home["HOME"]) / ".cache/huggingface/hub"
        folder = hub / ("models--" + repo_id.replace("/", "--"))
        (folder / "refs").mkdir(parents=True, exist_ok=True)
        shutil.copytree(built, folder / "blobs" / commit)
        (folder / "snapshots" / commit).mkdir(parents=True)
        for file in (folder / "blobs" / commit).iterdir():
            (folder / "snapshots" / commit / file.name).symlink_to(file)
        if main:
            (folder / "refs/main").write_text(main)
        return folder

    return put


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def copied_once(built: Path, folder: Path) -> Path:
    """A copy for all examples of one property, each of which spoils the same file."""
    return folder if folder.exists() else Path(shutil.copytree(built, folder))


def problem(path: Path) -> str:
    with pytest.raises(LoadFailed) as failure:
        catalog.inspect(path)
    return failure.value.message


def test_a_plain_folder_is_described(model: Path) -> None:
    found = catalog.inspect(model)
    assert (found.id, found.path, found.model_type) == ("tiny", model, "llama")
    assert (found.context.tokens, found.precision, found.has_chat_template) == (8192, "float32", True)
    assert found.weight_bytes == 4 * found.parameters
    assert found.parameters == 768 * 32 + 32 + (2 * 32 + 2 * 32 * 32 + 2 * 16 * 32 + 3 * 96 * 32)
    assert found.created == int((model / "config.json").stat().st_mtime)


def test_a_plain_folder_takes_the_id_it_is_given(model: Path) -> None:
    assert catalog.resolve("my-model", str(model)).id == "my-model"
    assert catalog.resolve(str(model)).id == "tiny"


def test_packed_weights_count_as_what_they_unpack_to(model: Path) -> None:
    packed = {
        "layer.weight": numpy.zeros((8, 16), numpy.uint32),  # 8 x 128 weights of 4 bits
        "layer.scales": numpy.zeros((8, 2), numpy.float16),
        "layer.biases": numpy.zeros((8, 2), numpy.float16),
        "norm.weight": numpy.zeros(8, numpy.float16),
    }
    save_file(packed, model / "model.safetensors")
    edit(model / "config.json", quantization={"group_size": 64, "bits": 4})
    found = catalog.inspect(model)
    assert (found.parameters, found.precision, found.weight_bytes) == (8 * 128 + 8, "4-bit", 512 + 32 + 32 + 16)


@pytest.mark.parametrize(
    ("quantization", "precision"),
    [
        ({"quantization": {"group_size": 32, "bits": 4, "mode": "mxfp4"}}, "mxfp4"),
        ({"quantization_config": {"quant_method": "awq", "bits": 4}}, "4-bit"),
        ({"quantization_config": {"quant_method": "fp8"}}, "fp8"),
        ({"quantization": {"mode": []}}, "float32"),
        ({}, "float32"),
    ],
)
def test_precision_is_that_of_the_quantization_else_of_most_weights(
    model: Path, quantization: dict[str, Any], precision: str
) -> None:
    edit(model / "config.json", **quantization)
    assert catalog.inspect(model).precision == precision


def test_the_context_is_read_from_both_files(model: Path) -> None:
    edit(model / "config.json", rope_scaling={"rope_type": "linear", "factor": 4.0})
    edit(model / "tokenizer_config.json", model_max_length=16_384)
    context = catalog.inspect(model).context
    assert (context.tokens, context.source) == (16_384, "model_max_length in tokenizer_config.json")


def test_a_folder_without_a_chat_template_says_so(model: Path) -> None:
    (model / "chat_template.jinja").unlink()
    assert not catalog.inspect(model).has_chat_template
    edit(model / "tokenizer_config.json", chat_template="{{ messages }}")
    assert catalog.inspect(model).has_chat_template


@pytest.mark.parametrize("config", [{"model_type": "mistral"}, {"model_type": "qwen3"}, {"model_type": "solar_open"}])
def test_model_types_that_mlx_lm_knows_or_renames_are_taken(model: Path, config: dict[str, Any]) -> None:
    edit(model / "config.json", **config)
    assert catalog.inspect(model).model_type == config["model_type"]


def test_model_types_chosen_by_architecture_are_taken(model: Path) -> None:
    edit(model / "config.json", model_type="bailing_hybrid", architectures=["BailingMoeV3ForCausalLM"])
    assert catalog.inspect(model).model_type == "bailing_hybrid"


@pytest.mark.parametrize("model_type", ["no_such_type", "cache", "base", "../llama", "", "__init__"])
def test_an_unknown_model_type_is_refused(model: Path, model_type: str) -> None:
    edit(model / "config.json", model_type=model_type)
    assert "config.json says model_type" in problem(model)


@pytest.mark.parametrize("architectures", [None, 5, [[]], {"a": 1}, "LlamaForCausalLM"])
def test_strange_architectures_do_no_harm(model: Path, architectures: object) -> None:
    edit(model / "config.json", architectures=architectures)
    assert catalog.inspect(model)


@pytest.mark.parametrize(
    "config",
    [
        {"use_bidirectional_attention": True},
        {"is_causal": False},
        {"text_config": {"use_bidirectional_attention": True}},
    ],
)
def test_a_decoder_that_reads_in_both_directions_is_refused(model: Path, config: dict[str, Any]) -> None:
    edit(model / "config.json", **config)
    assert "reads text in both directions" in problem(model)


@pytest.mark.parametrize("config", [{"use_bidirectional_attention": "vision"}, {"is_causal": True}])
def test_other_values_of_the_same_keys_are_no_reason(model: Path, config: dict[str, Any]) -> None:
    edit(model / "config.json", **config)
    assert catalog.inspect(model).model_type


def test_a_folder_with_code_of_its_own_is_refused(model: Path) -> None:
    edit(model / "config.json", model_file="evil.py")
    assert "runs no code of a model folder" in problem(model)


def test_an_auto_map_is_ignored(model: Path) -> None:
    edit(model / "config.json", auto_map={"AutoModel": "modeling_x.X"})
    assert catalog.inspect(model)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "config.json is empty"),
        (b"{", "config.json is no JSON"),
        (b"\xff\xfe\xfa", "config.json is no JSON"),
        (b"[" * 100_000, "config.json is no JSON"),
        (b"[]", "config.json is no JSON object"),
        (b"{}", "config.json names no model_type"),
        (b'{"model_type": 3}', "config.json names no model_type"),
    ],
)
def test_a_broken_config_is_named(model: Path, content: bytes, message: str) -> None:
    (model / "config.json").write_bytes(content)
    assert f"{model}/{message}" in problem(model)


def test_a_missing_config_is_named(model: Path) -> None:
    (model / "config.json").unlink()
    assert problem(model) == f"{model}/config.json is missing."


def test_a_folder_that_is_not_there_or_empty_is_named(tmp_path: Path) -> None:
    assert problem(tmp_path / "none") == f"{tmp_path}/none does not exist."
    assert f"{tmp_path} is empty" in problem(tmp_path)


def test_a_file_instead_of_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"onnx")
    assert "ONNX weights; a folder" in problem(tmp_path / "m.onnx")


@pytest.mark.parametrize(
    ("name", "kind"),
    [("mmproj-Q4.gguf", "GGUF"), ("pytorch_model-1.bin", "PyTorch"), ("consolidated.safetensors", "under")],
)
def test_foreign_weights_are_told_for_what_they_are(model: Path, name: str, kind: str) -> None:
    (model / "model.safetensors").rename(model / name)
    assert name in problem(model)
    assert kind in problem(model)
    (model / "config.json").unlink()
    assert kind in problem(model)


def test_missing_weights_are_named(model: Path) -> None:
    (model / "model.safetensors").unlink()
    assert "has no weights: model.safetensors is missing" in problem(model)


def test_a_missing_tokenizer_is_named(model: Path) -> None:
    (model / "tokenizer.json").unlink()
    assert "has no tokenizer: tokenizer.json or tokenizer.model is missing" in problem(model)


@pytest.mark.parametrize("name", ["tiktoken.model", "qwen.tiktoken"])
def test_a_tokenizer_that_needs_code_of_the_model_is_refused_with_what_to_do(model: Path, name: str) -> None:
    (model / "tokenizer.json").rename(model / name)
    message = problem(model)
    assert f"{name} is there, but how it splits text is Python code" in message
    assert "Get a conversion of this model with a tokenizer.json" in message


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"[" * 100_000, b"nul"])
def test_a_broken_tokenizer_is_named(model: Path, content: bytes) -> None:
    (model / "tokenizer.json").write_bytes(content)
    assert f"{model}/tokenizer.json is" in problem(model)


def test_a_broken_tokenizer_config_is_named(model: Path) -> None:
    (model / "tokenizer_config.json").write_text("nonsense")
    assert "tokenizer_config.json is no JSON" in problem(model)


def test_a_listed_shard_that_is_missing_is_named(model: Path) -> None:
    index = {"weight_map": {"a": "model.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (model / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "model-00002-of-00002.safetensors is missing" in problem(model)


@pytest.mark.parametrize("index", ["{}", '{"weight_map": {"a": 1}}', '{"weight_map": {"a": "../x"}}', "[]"])
def test_a_broken_index_is_named(model: Path, index: str) -> None:
    (model / "model.safetensors.index.json").write_text(index)
    assert "model.safetensors.index.json" in problem(model)


def test_an_unfetched_git_lfs_file_is_told_for_what_it_is(model: Path) -> None:
    (model / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    assert "Git LFS pointer" in problem(model)


def test_missing_bytes_are_counted(model: Path) -> None:
    weights = model / "model.safetensors"
    os.truncate(weights, weights.stat().st_size - 5)
    assert f"{weights} is cut short: 5 bytes are missing" in problem(model)


@pytest.mark.parametrize(
    "tensor", [{"shape": [3]}, {"data_offsets": [9, 8]}, {"dtype": "U8"}, {"shape": [-2]}, {"dtype": 1}]
)
def test_a_tensor_whose_shape_and_place_disagree_is_named(model: Path, tensor: dict[str, Any]) -> None:
    header = json.dumps({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} | tensor}).encode()
    (model / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(8))
    assert f"{model}/model.safetensors has a broken header" in problem(model)


def test_a_tensor_of_a_type_of_tomorrow_is_taken(model: Path) -> None:
    header = json.dumps({"a": {"dtype": "F6_X", "shape": [2], "data_offsets": [0, 8]}}).encode()
    (model / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(8))
    assert catalog.inspect(model).precision == "f6_x"


@settings(deadline=None)
@given(cut=st.floats(0, 1, exclude_max=True), head=st.booleans())
def test_weights_cut_anywhere_are_named(
    built: Path, tmp_path_factory: pytest.TempPathFactory, cut: float, head: bool
) -> None:
    whole = (built / "model.safetensors").read_bytes()
    end = 8 + int.from_bytes(whole[:8], "little") if head else len(whole)
    spoiled = copied_once(built, tmp_path_factory.getbasetemp() / "cut")
    (spoiled / "model.safetensors").write_bytes(whole[: int(cut * end)])
    assert f"{spoiled}/model.safetensors is" in problem(spoiled)


@settings(deadline=None)
@given(data=st.data())
def test_a_garbled_header_is_named_or_harmless(
    built: Path, tmp_path_factory: pytest.TempPathFactory, data: Any
) -> None:
    garbled = bytearray((built / "model.safetensors").read_bytes())
    header = 8 + int.from_bytes(garbled[:8], "little")
    for place in data.draw(st.lists(st.integers(0, header - 1), min_size=1, max_size=4)):
        garbled[place] = data.draw(st.sampled_from(b'\x00\xff0-9"[]{},:ae') | st.integers(0, 255))
    spoiled = copied_once(built, tmp_path_factory.getbasetemp() / "garbled")
    (spoiled / "model.safetensors").write_bytes(garbled)
    try:
        catalog.inspect(spoiled)
    except LoadFailed as failure:
        assert f"{spoiled}/model.safetensors" in failure.message


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@settings(deadline=None)
@given(
    config=st.fixed_dictionaries(
        {"model_type": st.just("llama") | json_values},
        optional=dict.fromkeys(
            [
                "architectures",
                "max_position_embeddings",
                "rope_scaling",
                "text_config",
                "quantization",
                "quantization_config",
            ],
            json_values,
        ),
    )
)
def test_any_config_is_taken_or_named(built: Path, tmp_path_factory: pytest.TempPathFactory, config: Any) -> None:
    spoiled = copied_once(built, tmp_path_factory.getbasetemp() / "config")
    (spoiled / "config.json").write_text(json.dumps(config))
    try:
        assert 0 < catalog.inspect(spoiled).context.tokens <= 2**24
    except LoadFailed as failure:
        assert "config.json" in failure.message


@settings(deadline=None)
@given(model=st.text(max_size=8), cache_path=st.none() | st.text(max_size=300))
def test_any_name_is_found_or_refused_in_words(
    tmp_path_factory: pytest.TempPathFactory, model: str, cache_path: str | None
) -> None:
    environ = {"HOME": str(tmp_path_factory.getbasetemp() / "nobody")}
    with pytest.raises(LoadFailed) as failure:
        catalog.resolve(model, cache_path, environ)
    failure.value.message.encode()


@pytest.mark.parametrize(
    "name", ["", "no/such", "x" * 5000, "~nobody-of-that-name/x", "a\0b", "\udcff", "/dev/null", "..\n"]
)
def test_strange_names_are_refused_in_words(home: dict[str, str], name: str) -> None:
    with pytest.raises(LoadFailed) as failure:
        catalog.resolve(name, None, home)
    failure.value.message.encode()


def test_a_long_foreign_name_is_served_from_its_folder(model: Path) -> None:
    assert catalog.resolve("x" * 5000, str(model)).path == model


def test_an_unknown_repo_says_how_to_get_it(home: dict[str, str]) -> None:
    with pytest.raises(LoadFailed, match="tiles-server pull org/none"):
        catalog.resolve("org/none", None, home)


def test_a_repo_id_is_found_in_the_cache(entry: Entry, home: dict[str, str]) -> None:
    folder = entry("org/tiny", main="c0")
    found = catalog.resolve("org/tiny", None, home)
    assert (found.id, found.path) == ("org/tiny", folder / "snapshots/c0")


@pytest.mark.parametrize("below", ["", "snapshots/c0"])
def test_a_cache_entry_is_a_folder_too(entry: Entry, home: dict[str, str], below: str) -> None:
    place = entry("org/tiny") / below
    assert catalog.resolve("whatever", str(place), home).id == "org/tiny"
    assert catalog.resolve(str(place), None, home).id == "org/tiny"


def test_a_hub_folder_has_the_model_by_its_name(entry: Entry, home: dict[str, str], tmp_path: Path) -> None:
    folder = entry("org/tiny", hub=tmp_path / "hub")
    assert catalog.resolve("org/tiny", str(tmp_path / "hub"), home).path == folder / "snapshots/c0"


def test_a_cache_path_may_be_a_repo_id(entry: Entry, home: dict[str, str]) -> None:
    entry("org/tiny")
    assert catalog.resolve("tiny", "org/tiny", home).id == "org/tiny"


def test_the_snapshot_of_main_is_taken(entry: Entry, home: dict[str, str]) -> None:
    folder = entry(commit="old", main="old")
    entry(commit="new")
    assert catalog.resolve("org/tiny", None, home).path.name == "old"
    (folder / "refs/main").write_text("../../elsewhere")
    assert catalog.resolve("org/tiny", None, home).path.parent == folder / "snapshots"


def test_without_main_the_newest_snapshot_is_taken(entry: Entry, home: dict[str, str]) -> None:
    folder = entry(commit="a")
    entry(commit="b")
    os.utime(folder / "snapshots/a", (2**31, 2**31))
    assert catalog.resolve("org/tiny", None, home).path.name == "a"
    os.utime(folder / "snapshots/b", (2**31 + 9, 2**31 + 9))
    assert catalog.resolve("org/tiny", None, home).path.name == "b"


def test_a_snapshot_that_is_still_downloading_is_passed_over(entry: Entry, home: dict[str, str]) -> None:
    folder = entry(commit="whole")
    entry(commit="half", main="half")
    (folder / "blobs/half/model.safetensors").unlink()
    assert catalog.resolve("org/tiny", None, home).path.name == "whole"
    (folder / "blobs/whole/tokenizer.json").unlink()
    with pytest.raises(LoadFailed, match=r"half/model\.safetensors points to a file that is not there"):
        catalog.resolve("org/tiny", None, home)


def test_an_entry_without_a_snapshot_says_so(home: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "models--org--tiny/snapshots").mkdir(parents=True)
    assert "its download has not finished" in problem(tmp_path / "models--org--tiny")


def test_caches_are_searched_in_order(entry: Entry, home: dict[str, str], tmp_path: Path) -> None:
    environ = home | {"HF_HOME": str(tmp_path / "hf")}
    default = entry()
    assert catalog.resolve("org/tiny", None, environ).path.is_relative_to(default)
    from_hf_home = entry(hub=tmp_path / "hf/hub")
    assert catalog.resolve("org/tiny", None, environ).path.is_relative_to(from_hf_home)
    tiles = entry(hub=Path(home["HOME"]) / ".local/share/tiles/data/models/huggingface/hub")
    assert catalog.resolve("org/tiny", None, environ).path.is_relative_to(tiles)
    (tiles / "blobs/c0/tokenizer.json").unlink()
    assert catalog.resolve("org/tiny", None, environ).path.is_relative_to(from_hf_home)


@pytest.mark.parametrize(
    ("environ", "hub"),
    [
        ({"HF_HUB_CACHE": "/a", "HF_HOME": "/b"}, "/a"),
        ({"HF_HOME": "/b", "XDG_CACHE_HOME": "/c"}, "/b/hub"),
        ({"XDG_CACHE_HOME": "/c", "HOME": "/d"}, "/c/huggingface/hub"),
        ({"HOME": "/d"}, "/d/.cache/huggingface/hub"),
    ],
)
def test_the_hugging_face_cache_is_where_its_own_client_has_it(environ: dict[str, str], hub: str) -> None:
    assert str(hugging_face_cache(environ)) == hub


def test_what_is_available_comes_with_the_reason_why_not(entry: Entry, home: dict[str, str]) -> None:
    entry("org/good")
    (entry("org/torn") / "blobs/c0/config.json").write_text("{")
    good, torn = catalog.available(home)
    assert (good.id, good.problem) == ("org/good", None)
    assert good.folder is not None
    assert good.disk_bytes > good.folder.weight_bytes
    assert (torn.id, torn.folder) == ("org/torn", None)
    assert torn.problem is not None
    assert "config.json is no JSON" in torn.problem


def test_nothing_is_available_on_a_fresh_account(home: dict[str, str]) -> None:
    assert [found for found in catalog.available(home) if found.path.is_relative_to(home["HOME"])] == []
