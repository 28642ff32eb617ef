"""Whether a model has room in what memory is free."""

import psutil

from app.services.catalog import ModelFolder

_AROUND = 1.2  # what a model takes beside its weights, as a share of them
_SPARE = 2**28  # bytes that stay free


def fits(folder: ModelFolder, back_end: str) -> bool:
    """Whether it can be loaded beside what is there now; on the CPU weights become float32."""
    weights = folder.weight_bytes if back_end != "cpu" else max(folder.weight_bytes, folder.parameters * 4)
    return bool(weights * _AROUND + _SPARE < psutil.virtual_memory().available)
