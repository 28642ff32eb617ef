"""How much memory the machine has, and whether a model fits into what is free."""

import os

import psutil

from app.services.model_folder import ModelFolder

_OVERHEAD = 1.2  # what a model takes, over its weights
_RESERVE = 2**28  # bytes that stay free


class _Available:
    """Bytes by the system's account; the last account while it gives none, as when no file descriptor is free."""

    def __init__(self) -> None:
        self._last: int | None = None

    def __call__(self) -> int:
        try:
            self._last = int(psutil.virtual_memory().available)
        except (OSError, psutil.Error):
            if self._last is None:
                return total() // 2
        return self._last


available = _Available()  # bytes that can be taken now; on any thread


def total() -> int:
    """Bytes of the machine's memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def fits(folder: ModelFolder, back_end: str) -> bool:
    """Whether a model can be loaded beside what is loaded."""
    return weight_bytes(folder, back_end) * _OVERHEAD + _RESERVE < available()


def weight_bytes(folder: ModelFolder, back_end: str) -> int:
    """Give the bytes that a model's weights take once they are loaded, on the CPU as float32."""
    return folder.weight_bytes if back_end != "cpu" else max(folder.weight_bytes, folder.parameters * 4)
