"""Reading GGUF files: what is in them, and which are refused, each with one sentence that says why."""

import os
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from app.services.errors import LoadFailed
from app.services.gguf.file import read, read_any
from tests.services import gguf_bytes as by_hand

BLOCKS = np.arange(2 * 3 * 18, dtype=np.uint8).reshape(2, 3 * 18)  # Q4_0: two rows of 96 values
FLOATS = np.arange(24, dtype=np.float32).reshape(2, 3, 4)


def write(path: Path, **values: Any) -> Path:
    """Write a small model; values replace its metadata, None leaves a key out."""
    writer = gguf.GGUFWriter(path, values.pop("architecture", "llama"))
    for name, value in values.items():
        add = {bool: writer.add_bool, str: writer.add_string, int: writer.add_uint32, float: writer.add_float32}
        add.get(type(value), writer.add_array)(name, value)
    writer.add_tensor("blk.0.attn_q.weight", BLOCKS, raw_dtype=gguf.GGMLQuantizationType.Q4_0)
    writer.add_tensor("experts", FLOATS)
    finish(writer)
    return path


def finish(writer: gguf.GGUFWriter) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_shards(folder: Path, count: int = 3) -> list[Path]:
    """Write a model of as many tensors as shards, one in each."""
    writer = gguf.GGUFWriter(folder / "model.gguf", "llama", split_max_tensors=1)
    writer.add_uint32("llama.block_count", 7)
    for number in range(count):
        writer.add_tensor(f"blk.{number}.attn_q.weight", np.full((2, 32), number, np.float32))
    finish(writer)
    return sorted(folder.glob("*.gguf"))


def refusal(path: Path) -> str:
    with pytest.raises(LoadFailed) as failure:
        read(path)
    return str(failure.value)


def test_a_file_gives_its_metadata(tmp_path: Path) -> None:
    tokens = ["a", "ü", "日本", ""]
    file = read(
        write(tmp_path / "m.gguf", number=7, fraction=0.5, yes=True, name="Ü", tokens=tokens, scores=[0.5, -1.0])
    )
    assert file.architecture == "llama"
    assert (file.metadata["number"], file.metadata["fraction"], file.metadata["name"]) == (7, 0.5, "Ü")
    assert file.metadata["yes"] is True
    assert file.metadata["tokens"] == tokens
    np.testing.assert_array_equal(file.metadata["scores"], [0.5, -1.0])
    assert "absent" not in file.metadata and file.metadata.get("absent", 5) == 5


def test_tensors_are_views_of_the_file_with_rows_first(tmp_path: Path) -> None:
    file = read(write(tmp_path / "m.gguf"))
    query, experts = file.tensors["blk.0.attn_q.weight"], file.tensors["experts"]
    assert (query.shape, query.type.name, query.data.shape) == ((2, 96), "Q4_0", (2, 54))
    np.testing.assert_array_equal(query.data, BLOCKS)
    assert (experts.shape, experts.type.name) == ((2, 3, 4), "F32")
    np.testing.assert_array_equal(experts.data.view(np.float32), FLOATS)
    assert not query.data.flags.writeable


def test_every_number_of_metadata_is_read_as_its_type_says(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "llama")
    values = {"uint8": 255, "int8": -5, "uint16": 65535, "int16": -3, "uint64": 1 << 63, "int64": -1, "float64": 0.1}
    for kind, value in values.items():
        getattr(writer, f"add_{kind}")(kind, value)
    writer.add_tensor("t", FLOATS)
    finish(writer)
    metadata = read(tmp_path / "m.gguf").metadata
    assert {kind: metadata[kind] for kind in values} == values


def test_an_alignment_of_its_own_is_kept_to(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "llama")
    writer.add_custom_alignment(128)
    writer.add_tensor("a", FLOATS)
    writer.add_tensor("b", FLOATS + 1)
    finish(writer)
    tensors = read(tmp_path / "m.gguf").tensors
    np.testing.assert_array_equal(tensors["b"].data.view(np.float32), FLOATS + 1)


def test_the_second_version_is_read_as_the_third(tmp_path: Path) -> None:
    file = read(by_hand.write(tmp_path / "m.gguf", [], [by_hand.tensor("t", [8, 2])], version=2))
    assert file.tensors["t"].shape == (2, 8)


def nvfp4(path: Path, architecture: str, scale: np.ndarray) -> Path:
    """Write a stack of two matrices of NVFP4 with what llama.cpp's converter writes beside it."""
    writer = gguf.GGUFWriter(path, architecture)
    name = "blk.0.ffn_down_exps"
    writer.add_tensor(f"{name}.weight", np.ones((2, 3, 36), np.uint8), raw_dtype=gguf.GGMLQuantizationType.NVFP4)
    writer.add_tensor(f"{name}.scale", scale)
    writer.add_tensor(f"{name}.input_scale", np.ones(2, np.float32))
    writer.add_tensor("other.scale", np.ones(2, np.float32))
    finish(writer)
    return path


def test_nvfp4_takes_the_factors_that_lie_beside_it(tmp_path: Path) -> None:
    tensors = read(nvfp4(tmp_path / "m.gguf", "llama", np.float32([0.5, 2]))).tensors
    assert set(tensors) == {"blk.0.ffn_down_exps.weight", "other.scale"}
    np.testing.assert_array_equal(tensors["blk.0.ffn_down_exps.weight"].factors, [[0.5] * 3, [2] * 3])


def test_the_factors_of_gemma_4_stay_with_its_router(tmp_path: Path) -> None:
    tensors = read(nvfp4(tmp_path / "m.gguf", "gemma4", np.float32([0.5, 2]))).tensors
    assert set(tensors) == {"blk.0.ffn_down_exps.weight", "blk.0.ffn_down_exps.scale", "other.scale"}
    assert tensors["blk.0.ffn_down_exps.weight"].factors is None


@pytest.mark.parametrize("scale", [np.float32([1]), np.float32([1, 2, 3]), np.float16([1, 2])])
def test_factors_that_do_not_fit_are_refused(tmp_path: Path, scale: np.ndarray) -> None:
    assert "of a shape or type that does not fit" in refusal(nvfp4(tmp_path / "m.gguf", "llama", scale))


@pytest.mark.parametrize("number", range(3))
def test_any_shard_opens_the_whole_model(tmp_path: Path, number: int) -> None:
    shards = write_shards(tmp_path)
    file = read(shards[number])
    assert file.path == shards[0] and list(file.paths) == shards
    assert file.metadata["llama.block_count"] == 7
    assert [file.tensors[f"blk.{one}.attn_q.weight"].data.view(np.float32)[0, 0] for one in range(3)] == [0, 1, 2]


def test_shards_may_have_an_ending_in_capitals(tmp_path: Path) -> None:
    shards = [one.rename(one.with_suffix(".GGUF")) for one in write_shards(tmp_path)]
    assert list(read(shards[1]).paths) == shards


def test_missing_shards_are_named(tmp_path: Path) -> None:
    shards = write_shards(tmp_path)
    shards[1].unlink()
    assert "is one of 3 shards; missing: model-00002-of-00003.gguf. Download" in refusal(shards[0])
    shards[0].unlink()
    assert "missing: model-00001-of-00003.gguf, model-00002-of-00003.gguf." in refusal(shards[2])


def test_a_renamed_shard_says_what_it_must_be_called(tmp_path: Path) -> None:
    shard = write_shards(tmp_path)[1].rename(tmp_path / "mine.gguf")
    assert "is shard 2 of 3; name it …-00002-of-00003.gguf" in refusal(shard)


def test_shards_that_have_changed_places_are_refused(tmp_path: Path) -> None:
    first, second, third = write_shards(tmp_path)
    second.rename(tmp_path / "spare")
    third.rename(second)
    (tmp_path / "spare").rename(third)
    assert "is shard 3 of 3 by its header, but 2 of 3 by its name. Download it again." in refusal(first)
    assert "is shard 3 of 3 by its header, but its name says otherwise" in refusal(second)


def test_a_shard_of_another_model_is_refused(tmp_path: Path) -> None:
    shards = write_shards(tmp_path)
    (tmp_path / "other").mkdir()
    write_shards(tmp_path / "other", 2)[1].rename(shards[1])
    assert "is shard 2 of 2 by its header, but 2 of 3 by its name" in refusal(shards[0])


def test_a_tensor_that_two_shards_have_is_refused(tmp_path: Path) -> None:
    for number in range(2):
        keys = [
            by_hand.key(f"split.{name}", 4, struct.pack("<I", value)) for name, value in (("no", number), ("count", 2))
        ]
        by_hand.write(tmp_path / f"m-0000{number + 1}-of-00002.gguf", keys, [by_hand.tensor("t", [8])])
    assert "has the tensor 't', which another shard has, too." in refusal(tmp_path / "m-00001-of-00002.gguf")


def test_shards_with_fewer_tensors_than_promised_are_refused(tmp_path: Path) -> None:
    keys = [by_hand.key(f"split.{name}", 4, struct.pack("<I", value)) for name, value in (("no", 0), ("count", 1))]
    promise = by_hand.key("split.tensors.count", 5, struct.pack("<i", 5))
    path = by_hand.write(tmp_path / "m.gguf", [*keys, promise], [by_hand.tensor("t", [8])])
    assert "promises 5 tensors, but its shards have 1." in refusal(path)


@pytest.mark.parametrize("share", [0, 0.01, 0.2, 0.5, 0.9, 0.999])
def test_a_file_that_is_cut_short_says_so(tmp_path: Path, share: float) -> None:
    path = write(tmp_path / "m.gguf", tokens=["a"] * 50)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    assert "Download it again." in refusal(path)


@pytest.mark.parametrize(
    "start, reason",
    [
        (b"FUGG" + bytes(60), "is a big-endian GGUF file"),
        (b"GGUF\0\0\0\3" + bytes(60), "is a big-endian GGUF file"),
        (b"GGUF\1\0\0\0" + bytes(60), "is a GGUF file of version 1; versions 2 and 3 can be read (convert"),
        (b"GGUF\4\0\0\0" + bytes(60), "is a GGUF file of version 4; versions 2 and 3 can be read (it may be too new"),
        (b"lmgg" + bytes(60), "is a GGML file from before August 2023"),
        (b"tjgg\3\0\0\0" + bytes(60), "is a GGML file from before August 2023"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "is a Git LFS pointer"),
        (b"<!DOCTYPE html><html>", "is a web page, not a model"),
        (b"PK\3\4" + bytes(60), "is a ZIP archive, or PyTorch weights"),
        (bytes(100), "is no GGUF file."),
        (b"GG", "is cut short"),
        (b"", "is empty."),
    ],
)
def test_files_that_begin_otherwise_are_told_apart(tmp_path: Path, start: bytes, reason: str) -> None:
    (path := tmp_path / "m.gguf").write_bytes(start)
    assert reason in refusal(path)


@pytest.mark.parametrize(
    "values, reason",
    [
        ({"architecture": "clip"}, "is the vision part (mmproj) of a model"),
        ({"general.type": "mmproj"}, "is the vision part (mmproj) of a model"),
        ({"general.type": "adapter"}, "is a LoRA adapter"),
        ({"general.type": "imatrix"}, "is an importance matrix"),
        ({"architecture": "controlvector"}, "is a control vector"),
        ({"architecture": "flux"}, "is a model that makes pictures or films (architecture 'flux')"),
        ({"architecture": "eagle3"}, "is a drafter for speculative decoding"),
        ({"architecture": "wavtokenizer-dec"}, "is a model for sound"),
        ({"architecture": ""}, "does not say its architecture"),
    ],
)
def test_what_is_no_language_model_is_named(tmp_path: Path, values: dict[str, Any], reason: str) -> None:
    path = write(tmp_path / "m.gguf", **values)
    assert reason in refusal(path)
    assert read_any(path).tensors, "a tool may still look into it"


def test_a_vocabulary_is_no_model(tmp_path: Path) -> None:
    assert "is a vocabulary without weights" in refusal(by_hand.write(tmp_path / "m.gguf"))


@pytest.mark.parametrize(
    "tensor, reason",
    [
        (
            by_hand.tensor("t", [256], 4),
            "has the tensor 't' in Q4_2, a type that llama.cpp no longer reads; take the same",
        ),
        (
            by_hand.tensor("t", [256], 31),
            "in Q4_0_4_4, a type that llama.cpp no longer reads; take the same model in Q4_0",
        ),
        (by_hand.tensor("t", [256], 15), "in Q8_K, a type that llama.cpp has only while it computes"),
        (by_hand.tensor("t", [256], 99), "in a type (number 99) that this server does not know; take another quant"),
        (by_hand.tensor("t", [33], 2), "has 33 columns, no multiple of Q4_0's 32"),
        (by_hand.tensor("t", [1, 1, 1, 1, 1]), "has 5 dimensions"),
        (by_hand.tensor("t", [0, 4]), "has the shape (4, 0)"),
        (by_hand.tensor("t", [8], 0, 8), "does not begin at a multiple of 32 bytes"),
        (by_hand.tensor("t", [8], 0, 1 << 40), "is cut short"),
        (by_hand.tensor("t", [8], 0, (1 << 64) - 32), "is cut short"),
        (by_hand.tensor("t", [1 << 62, 1 << 62, 1 << 62, 1 << 62]), "is cut short"),
        (by_hand.tensor(b"\xff", [8]), "a tensor's name is no UTF-8"),
        (by_hand.tensor("t", [8]) * 2, "the tensor 't' occurs twice"),
        (by_hand.tensor("t", [8]) + by_hand.tensor("u", [8]), "the tensors 't' and 'u' overlap"),
    ],
)
def test_tensors_that_cannot_be_are_refused(tmp_path: Path, tensor: bytes, reason: str) -> None:
    count = 2 if len(tensor) > len(by_hand.tensor("t", [1, 1, 1, 1, 1])) else 1
    assert reason in refusal(by_hand.write(tmp_path / "m.gguf", [], [tensor], tensor_count=count))


@pytest.mark.parametrize(
    "key, reason",
    [
        (by_hand.key("k", 13, bytes(8)), "the value of 'k' has the type 13, which GGUF does not know"),
        (by_hand.key("k", 9, by_hand.array(13, 1, bytes(8))), "is an array of the type 13, which GGUF does not know"),
        (by_hand.key("k", 9, by_hand.array(9, 1, by_hand.array(4, 1, bytes(4)))), "is an array of arrays"),
        (by_hand.key(b"\xff\xfe", 4, bytes(4)), "a key is no UTF-8"),
        (by_hand.ARCHITECTURE, "the key 'general.architecture' occurs twice"),
        (by_hand.key("general.alignment", 4, struct.pack("<I", 33)), "general.alignment is 33, no power of two"),
        (by_hand.key("general.alignment", 4, struct.pack("<I", 0)), "general.alignment is 0, no power of two"),
        (by_hand.key("general.alignment", 8, by_hand.text("x")), "general.alignment is 'x', no power of two"),
    ],
)
def test_metadata_that_cannot_be_is_refused(tmp_path: Path, key: bytes, reason: str) -> None:
    assert reason in refusal(by_hand.write(tmp_path / "m.gguf", [key], [by_hand.tensor("t", [8])]))


def test_a_text_that_is_no_utf8_is_refused_when_it_is_asked_for(tmp_path: Path) -> None:
    texts = by_hand.array(8, 2, by_hand.text("a") + by_hand.text(b"\xff"))
    keys = [by_hand.key("texts", 9, texts), by_hand.key("name", 8, by_hand.text(b"\xc3"))]
    metadata = read(by_hand.write(tmp_path / "m.gguf", keys, [by_hand.tensor("t", [8])])).metadata
    for key in ("texts", "name"):
        with pytest.raises(LoadFailed, match=f"the value of '{key}' is no UTF-8"):
            metadata[key]


@pytest.mark.parametrize(
    "keys, counts",
    [
        ([], {"tensor_count": (1 << 64) - 1}),
        ([], {"tensor_count": 200_000}),
        ([], {"key_count": (1 << 64) - 1}),
        ([], {"key_count": 60_000}),
        ([by_hand.key("k", 9, by_hand.array(8, 1 << 60, b""))], {}),
        ([by_hand.key("k", 9, by_hand.array(8, 500_000, b""))], {}),
        ([by_hand.key("k", 9, by_hand.array(4, 1 << 62, b""))], {}),
        ([by_hand.key("k", 9, by_hand.array(0, (1 << 64) - 1, b""))], {}),
        ([by_hand.key("k", 8, struct.pack("<Q", (1 << 64) - 1))], {}),
    ],
)
def test_a_count_beyond_the_file_costs_no_memory(tmp_path: Path, keys: list[bytes], counts: dict[str, int]) -> None:
    path = by_hand.write(tmp_path / "m.gguf", keys, [by_hand.tensor("t", [8])], **counts)
    tracemalloc.start()
    try:
        refusal(path)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_a_path_that_is_no_file_is_refused(tmp_path: Path) -> None:
    (link := tmp_path / "link.gguf").symlink_to(tmp_path / "blob")
    os.mkfifo(pipe := tmp_path / "pipe.gguf")
    assert "points to a file that is not there: its download has not finished." in refusal(link)
    assert "is a folder, not a GGUF file." in refusal(tmp_path)
    assert "is no regular file." in refusal(pipe)
    assert "cannot be read: no such file or directory." in refusal(tmp_path / "absent.gguf")
    assert "is no usable path" in refusal(Path("a\0b"))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = write(tmp_path_factory.mktemp("gguf") / "m.gguf", tokens=["a", "ü"], scores=[0.5], yes=True)
    return path.read_bytes()


def look_at_everything(path: Path) -> None:
    """Read a file, ask for all of its metadata, and touch all of its tensors."""
    file = read(path)
    for key in file.metadata:
        file.metadata[key]
    for tensor in file.tensors.values():
        tensor.data.sum()


QUICK = settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@QUICK
@given(
    changes=st.lists(st.tuples(st.integers(0, 1 << 20), st.binary(min_size=1, max_size=9)), max_size=4),
    end=st.floats(0, 1),
)
@example(changes=[], end=1.0)
def test_any_bytes_give_a_model_or_a_sentence(
    tmp_path: Path, model: bytes, changes: list[tuple[int, bytes]], end: float
) -> None:
    content = bytearray(model)
    for at, change in changes:
        at %= len(model)
        content[at : at + len(change)] = change
    path = tmp_path / "m.gguf"
    path.unlink(missing_ok=True)  # a mapped file must not change
    path.write_bytes(content[: max(8, round(end * len(content)))])
    try:
        look_at_everything(path)
    except LoadFailed as error:
        assert str(error).endswith(".") and str(path) in str(error)
