"""How much memory is free for the KV caches of prompts and answers."""

import sys

import mlx.core as mx

from app.services import free_memory
from app.services.engine.model.loading import back_end

_RESERVE = 2 * 2**30  # bytes of the machine that stay free for other programs, or a twentieth of it if that is less


class MemoryBudget:
    """The memory up to a limit: the one given, a GPU's recommended working set, or what the system has available.

    Safe on any thread.
    """

    def __init__(self, limit: int | None = None) -> None:
        self._limit = limit if limit is not None else _device_limit()
        self._reserve = min(_RESERVE, free_memory.total() // 20)

    def free(self) -> int:
        """Give the bytes that can be allocated now. MLX's pool of freed buffers counts as free."""
        if self._limit is not None:
            return int(self._limit - mx.get_active_memory())
        return int(free_memory.available() + mx.get_cache_memory() - self._reserve)


def _device_limit() -> int | None:
    """Bytes that a GPU can use; None on the CPU."""
    if back_end() == "cpu":
        return None
    facts = mx.device_info()
    if working_set := facts.get("max_recommended_working_set_size"):
        return int(working_set)
    return int(facts.get("total_memory", sys.maxsize)) // 10 * 9


def out_of_memory(error: BaseException) -> bool:
    """Whether an error is a failed allocation, in the words of Python, MLX, Metal or CUDA."""
    text = str(error).lower()
    words = ("[malloc", "malloc]", "unable to allocate", "insufficient memory", "out of memory", "outofmemory")
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and any(word in text for word in words))
