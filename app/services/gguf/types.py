"""The types that tensors of GGUF files have, as llama.cpp numbers them (`enum ggml_type`, build b11434)."""

from typing import NamedTuple


class TensorType(NamedTuple):
    """How the values of a tensor are stored: in blocks, which never cross the end of a row."""

    number: int
    name: str
    block: int  # values
    block_bytes: int

    @property
    def is_quantized(self) -> bool:
        """Whether several values share a scale."""
        return self.block > 1


TYPES = {
    row[0]: TensorType(*row)
    for row in (
        (0, "F32", 1, 4),
        (1, "F16", 1, 2),
        (2, "Q4_0", 32, 18),
        (3, "Q4_1", 32, 20),
        (6, "Q5_0", 32, 22),
        (7, "Q5_1", 32, 24),
        (8, "Q8_0", 32, 34),
        (10, "Q2_K", 256, 84),
        (11, "Q3_K", 256, 110),
        (12, "Q4_K", 256, 144),
        (13, "Q5_K", 256, 176),
        (14, "Q6_K", 256, 210),
        (16, "IQ2_XXS", 256, 66),
        (17, "IQ2_XS", 256, 74),
        (18, "IQ3_XXS", 256, 98),
        (19, "IQ1_S", 256, 50),
        (20, "IQ4_NL", 32, 18),
        (21, "IQ3_S", 256, 110),
        (22, "IQ2_S", 256, 82),
        (23, "IQ4_XS", 256, 136),
        (24, "I8", 1, 1),
        (25, "I16", 1, 2),
        (26, "I32", 1, 4),
        (27, "I64", 1, 8),
        (28, "F64", 1, 8),
        (29, "IQ1_M", 256, 56),
        (30, "BF16", 1, 2),
        (34, "TQ1_0", 256, 54),
        (35, "TQ2_0", 256, 66),
        (39, "MXFP4", 32, 17),
        (40, "NVFP4", 64, 36),
        (41, "Q1_0", 128, 18),
        (42, "Q2_0", 64, 18),
    )
}
BY_NAME = {one.name: one for one in TYPES.values()}
# Numbers that llama.cpp has given, too, but that no model of today has: what the file has instead.
_SUPERSEDED = "a type that llama.cpp no longer reads; take the same model in {}"
_INTERMEDIATE = "a type that llama.cpp has only while it computes; the file is not for models"
WITHDRAWN = {
    4: ("Q4_2", _SUPERSEDED.format("Q4_0")),
    5: ("Q4_3", _SUPERSEDED.format("Q4_1")),
    9: ("Q8_1", _INTERMEDIATE),
    15: ("Q8_K", _INTERMEDIATE),
    31: ("Q4_0_4_4", _SUPERSEDED.format("Q4_0")),
    32: ("Q4_0_4_8", _SUPERSEDED.format("Q4_0")),
    33: ("Q4_0_8_8", _SUPERSEDED.format("Q4_0")),
    36: ("IQ4_NL_4_4", _SUPERSEDED.format("IQ4_NL")),
    37: ("IQ4_NL_4_8", _SUPERSEDED.format("IQ4_NL")),
    38: ("IQ4_NL_8_8", _SUPERSEDED.format("IQ4_NL")),
}
