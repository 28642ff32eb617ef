"""Ways in which models reach further than they were trained, as the file says them and as mlx-lm's config does."""

import math
from typing import Any

import numpy as np

from app.services.gguf.architectures.common import linear_rope
from app.services.gguf.architectures.hyperparameters import Hyperparameters, shortest
from app.services.gguf.architectures.layout import Change, as_is, each_array
from app.services.gguf.file import GGUFFile


def scaled_rope(values: Hyperparameters) -> dict[str, Any] | None:
    """Give `rope_scaling` of a model that may stretch positions evenly or by YaRN. Raises LoadFailed for other ways."""
    if values.text("rope.scaling.type") != "yarn":
        return linear_rope(values)
    factor = values.number("rope.scaling.factor")
    if factor <= 1:
        raise values.refused(f"has rope.scaling.factor {factor}, which YaRN cannot stretch positions by")
    scaling = {
        "rope_type": "yarn",
        "factor": factor,
        "original_max_position_embeddings": values.integer(
            "rope.scaling.original_context_length", values.integer("context_length")
        ),
        "beta_fast": values.number("rope.scaling.yarn_beta_fast", 32.0),
        "beta_slow": values.number("rope.scaling.yarn_beta_slow", 1.0),
    }
    values.expect("rope.scaling.yarn_ext_factor", 1.0)
    values.expect("rope.scaling.attn_factor", 1.0)
    # llama.cpp computes this itself, as mlx-lm does, whatever the file says.
    values.get("rope.scaling.yarn_attn_factor")
    if multiplier := values.number("rope.scaling.yarn_log_multiplier", 0.0):
        scaling |= {"mscale": 1.0, "mscale_all_dim": multiplier}
    return scaling


def long_rope(file: GGUFFile, values: Hyperparameters, rotated: int, context: int) -> dict[str, Any]:
    """Give what mlx-lm's config says of factors for each pair of a head, or nothing without. Raises LoadFailed.

    The file has factors for short contexts, too, but mlx-lm turns by the long ones at any length.
    """
    values.expect("rope.scaling.type", "none", "longrope")
    original = values.integer("rope.scaling.original_context_length", context, least=2)
    attention = values.number("rope.scaling.attn_factor", 1.0)
    names = {"long_factor": "rope_factors_long.weight", "short_factor": "rope_factors_short.weight"}
    factors = {key: numbers(file, name) for key, name in names.items() if name in file.tensors}
    if not factors and attention == 1.0:
        return {}
    if len(factors) != 2 or any(len(one) != rotated // 2 for one in factors.values()):
        raise values.refused("has not the factors of rope that it needs (rope_factors_long, rope_factors_short)")
    stretch = context / original
    if abs(attention - (math.sqrt(1 + math.log(stretch) / math.log(original)) if stretch > 1 else 1.0)) > 1e-4:
        raise values.refused(f"has rope.scaling.attn_factor {attention}, which mlx-lm's model does not compute")
    return {
        "original_max_position_embeddings": original,
        "rope_scaling": {"type": "longrope", "rope_type": "longrope", **factors},
    }


def numbers(file: GGUFFile, name: str) -> list[float]:
    """Give the numbers of a small tensor that is part of the config; none if they are not float32."""
    tensor = file.tensors[name]
    flat = tensor.data.reshape(-1).view("<f4") if tensor.type.name == "F32" else np.array([])
    return [shortest(one) for one in flat]


def rotated_share(values: Hyperparameters, size: int, default: int | None = None) -> float:
    """Give the share of a head that rope turns (`partial_rotary_factor`). Raises LoadFailed if it cannot be said."""
    rotated = values.integer("rope.dimension_count", size if default is None else default)
    share = rotated / size
    if not 0 < rotated <= size or rotated % 2 or int(size * share) != rotated:
        raise values.refused(f"turns {rotated} of the {size} numbers of a head, which mlx-lm's model cannot")
    return share


def halves_apart(heads: int, before: Change = as_is) -> Change:
    """Give a change of queries or keys whose pairs for rope lie side by side: the halves of a head follow each other.

    `before` is a change that comes first.
    """

    def turn(array: np.ndarray) -> np.ndarray:
        pairs = array.reshape(heads, array.shape[0] // heads // 2, 2, *array.shape[1:])
        return np.ascontiguousarray(pairs.swapaxes(1, 2)).reshape(array.shape)

    return lambda matrix: each_array(before(matrix), turn)
