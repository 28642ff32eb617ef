"""What a process and its children take."""

from typing import Any


def cpu_seconds(process: Any) -> float:
    """CPU time so far."""
    return sum(float(each.cpu_times().user + each.cpu_times().system) for each in _family(process))


def resident(process: Any) -> float:
    """Memory, in MiB."""
    return sum(float(each.memory_info().rss) / 2**20 for each in _family(process))


def _family(process: Any) -> list[Any]:
    return [process, *process.children(recursive=True)]
