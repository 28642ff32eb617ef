"""What the blocks of every type hold: as `gguf` reads them, and as MLX holds them once packed."""

from collections.abc import Callable

import gguf
import mlx.core as mx
import numpy as np
import pytest
from gguf import quants

from app.services.errors import LoadFailed
from app.services.gguf.blocks import CHUNK, Fidelity, Packed, fidelity, is_lossy, pack, widen
from app.services.gguf.file import Tensor
from app.services.gguf.types import BY_NAME, TYPES, WITHDRAWN

QUANTIZED = [one.name for one in TYPES.values() if one.is_quantized]
NEWER = {"Q2_0", "Q1_0"}  # than the package `gguf`, or than what it can widen


def tensor(name: str, data: np.ndarray) -> Tensor:
    kind = BY_NAME[name]
    *rows, size = data.shape
    return Tensor("t", (*rows, size // kind.block_bytes * kind.block), kind, data)


def random(name: str, *rows: int, blocks: int = 4, seed: int = 1) -> Tensor:
    """Any bytes that may be; where they are scales, some of them are infinite or no numbers."""
    kind = BY_NAME[name]
    end = 252 if name in {"MXFP4", "NVFP4"} else 256
    size = blocks * max(kind.block_bytes, 512 // kind.block * kind.block_bytes)
    return tensor(name, np.random.default_rng(seed).integers(0, end, (*rows, size), np.uint8))


def unpacked(packed: Packed) -> np.ndarray:
    """Ask MLX what a packed matrix says."""
    biases = None if packed.biases is None else mx.array(packed.biases)
    mode = {"bits": packed.bits, "group_size": packed.group_size, "mode": packed.mode, "dtype": mx.float32}
    with mx.stream(mx.cpu):
        return np.array(mx.dequantize(mx.array(packed.weight), mx.array(packed.scales), biases, **mode))


def test_the_types_are_those_of_ggml() -> None:
    theirs = {kind.value: (kind.name, *gguf.GGML_QUANT_SIZES[kind]) for kind in gguf.GGMLQuantizationType}
    ours = {one.number: (one.name, one.block, one.block_bytes) for one in TYPES.values()}
    assert {number: theirs.get(number, row) for number, row in ours.items()} == ours
    assert theirs.keys() <= ours.keys() | WITHDRAWN.keys()


@pytest.mark.parametrize("name", [name for name in QUANTIZED if name not in NEWER] + ["BF16"])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # infinite scales
def test_a_type_is_widened_bit_for_bit_as_gguf_reads_it(name: str) -> None:
    one = random(name, 3, 20)
    theirs = quants.dequantize(one.data, gguf.GGMLQuantizationType[name])
    np.testing.assert_array_equal(widen(one), theirs, strict=True)


def test_bits_without_zero_are_signs() -> None:
    half = np.array([0.5], "<f2").view(np.uint8)
    bits = np.packbits(np.arange(128) % 3 == 0, bitorder="little")
    wide = widen(tensor("Q1_0", np.concatenate([half, bits])[None]))
    np.testing.assert_array_equal(wide[0], np.where(np.arange(128) % 3 == 0, 0.5, -0.5))


def test_two_bits_count_from_minus_one() -> None:
    half = np.array([0.5], "<f2").view(np.uint8)
    numbers = np.arange(64) * 7 % 4
    fours = numbers.reshape(16, 4) << np.array([0, 2, 4, 6])
    wide = widen(tensor("Q2_0", np.concatenate([half, fours.sum(axis=1).astype(np.uint8)])[None]))
    np.testing.assert_array_equal(wide[0], (numbers - 1) * 0.5)


@pytest.mark.parametrize("name, dtype", [("F32", "<f4"), ("F16", "<f2"), ("I8", "i1"), ("I16", "<i2")])
def test_plain_numbers_are_widened(name: str, dtype: str) -> None:
    numbers = np.array([[0, 1, -7, 100], [5, 6, 7, 8]], dtype)
    np.testing.assert_array_equal(widen(tensor(name, numbers.view(np.uint8))), numbers.astype(np.float32), strict=True)


@pytest.mark.parametrize("name, dtype", [("F64", "<f8"), ("I32", "<i4"), ("I64", "<i8")])
def test_numbers_that_float32_cannot_hold_are_refused(name: str, dtype: str) -> None:
    numbers = np.array([[1, -2, 3]], dtype)
    np.testing.assert_array_equal(widen(tensor(name, numbers.view(np.uint8))), [[1, -2, 3]])
    numbers[0, 1] = (1 << 24) + 1
    with pytest.raises(LoadFailed, match=f"The tensor 't' is in {name}, and float32 cannot hold its numbers."):
        widen(tensor(name, numbers.view(np.uint8)))


@pytest.mark.parametrize("name", QUANTIZED)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_mlx_holds_a_type_bit_for_bit_unless_it_is_named_lossy(name: str) -> None:
    one = random(name, 3, 20)
    equal = np.array_equal(unpacked(pack(one)), widen(one), equal_nan=True)
    assert equal == (not is_lossy(one))


@pytest.mark.parametrize(
    "name, place", [("Q6_K", slice(192, 208)), ("IQ2_XS", slice(66, 74)), ("IQ2_S", slice(74, 82))]
)
def test_of_two_joined_groups_the_one_with_the_larger_scale_keeps_its_values(name: str, place: slice) -> None:
    one = random(name, 200, blocks=1)
    blocks = one.data.reshape(-1, one.type.block_bytes)
    blocks[:, place] = np.arange(1, 1 + place.stop - place.start)  # of Q6_K; others have two scales in a byte
    half = 208 if name == "Q6_K" else 0
    blocks[:, half : half + 2] = np.array([0.25], "<f2").view(np.uint8)
    packed, wide = pack(one), widen(one)
    errors = np.abs(unpacked(packed) - wide).reshape(-1, 2, 16)
    assert (errors.min(axis=1) == 0).all()
    assert (errors.max(axis=(1, 2)) <= np.abs(packed.scales.reshape(-1)) / 2).all()


@pytest.mark.parametrize("name", QUANTIZED)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_large_tensors_are_worked_on_in_parts(name: str) -> None:
    kind = BY_NAME[name]
    rows = 2 * CHUNK // (kind.block * 4) + 1
    data = np.random.default_rng(2).integers(0, 252, (rows, 4 * kind.block_bytes), np.uint8)
    whole, end = tensor(name, data), tensor(name, data[-3:])
    np.testing.assert_array_equal(widen(whole)[-3:], widen(end))
    for ours, theirs in zip(pack(whole)[:3], pack(end)[:3], strict=True):
        assert (ours is None and theirs is None) or np.array_equal(ours[-3:], theirs, equal_nan=True)


@pytest.mark.parametrize("name, least", [("MXFP4", 252), ("NVFP4", 255)])
@pytest.mark.parametrize("read", [widen, pack])
def test_a_scale_that_no_quantizer_writes_is_refused(name: str, least: int, read: Callable[[Tensor], object]) -> None:
    data = np.full((2, BY_NAME[name].block_bytes), 255, np.uint8)
    data[:, :4] = least - 1
    read(tensor(name, data))
    data[1, 0] = least
    with pytest.raises(LoadFailed, match="The tensor 't' has scales that no quantizer writes"):
        read(tensor(name, data))


def test_nvfp4_is_multiplied_by_the_factor_of_its_matrix() -> None:
    plain = random("NVFP4", 2, 3)
    one = plain._replace(factors=np.broadcast_to(np.float32([[0.3], [7]]), (2, 3)))
    values = widen(plain) * np.float32([0.3, 7])[:, None, None]
    np.testing.assert_array_equal(widen(one), values)
    np.testing.assert_array_equal(widen(one.rows(2, 5)), values.reshape(6, -1)[2:5])
    packed = pack(one)
    assert (packed.bits, packed.group_size, packed.mode) == (8, 32, "affine")
    np.testing.assert_allclose(unpacked(packed), values, atol=np.abs(values).max() / 230)
    assert fidelity([plain, one]) == Fidelity(1, {"NVFP4": 1})


@pytest.mark.parametrize("name", ["F32", "BF16"])
def test_what_is_not_quantized_cannot_be_packed(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} is not quantized"):
        pack(random(name, 2))


def test_fidelity_counts_what_is_not_exact() -> None:
    tensors = [random(name, 1) for name in ("Q4_K", "Q6_K", "Q4_K", "F32", "Q6_K")]
    assert fidelity(tensors) == Fidelity(2, {"Q6_K": 2})
    assert str(fidelity(tensors)).startswith("2 tensors exact, 2 tensors (Q6_K) stored as 8 bit (error 0.")
