"""Builds mlx-lm's model from a GGUF file, with weights in float32, as the CPU computes best."""

from collections.abc import Generator
from typing import Any

import mlx.core as mx
import numpy as np
from mlx_lm.utils import _get_classes

from app.services.gguf.architectures import Architecture
from app.services.gguf.conversion import file_bytes, widened


def build(architecture: Architecture) -> Generator[float, None, Any]:
    """Yield progress from 0 to 1 and return the model. Takes no more memory than its weights and some MiB.

    Raises LoadFailed, and ValueError if the parameters are not those of mlx-lm's model.
    """
    model_class, arguments = _get_classes(architecture.config)
    model = model_class(arguments.from_dict(dict(architecture.config)))
    weights: dict[str, mx.array] = {}
    total = sum(file_bytes(one) for one in architecture.parameters) or 1
    bytes_read = 0
    for parameter in architecture.parameters:
        shape, parts = widened(parameter)
        weights[parameter.name] = array = mx.zeros(shape, mx.float32)
        mx.eval(array)
        rows = _writable(array)
        start = 0
        for part in parts:
            values = part.reshape(-1, rows.shape[1])
            rows[start : start + len(values)] = values
            start += len(values)
            bytes_read += part.nbytes * file_bytes(parameter) // max(1, array.nbytes)
            yield bytes_read / total
    if hasattr(model, "sanitize"):
        weights = model.sanitize(weights)
    model.eval()
    model.load_weights(list(weights.items()), strict=True)
    return model


def _writable(array: mx.array) -> np.ndarray:
    """Give the memory of an array, to be filled: (rows, columns)."""
    view = np.array(array, copy=False)
    return view.reshape(-1, view.shape[-1] if view.ndim else 1)
