"""What a process and its children take, and where it may listen."""

import socket
from typing import Any


def cpu_seconds(process: Any) -> float:
    """CPU time so far."""
    return sum(float(each.cpu_times().user + each.cpu_times().system) for each in _family(process))


def resident(process: Any) -> float:
    """Memory, in MiB."""
    return sum(float(each.memory_info().rss) / 2**20 for each in _family(process))


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _family(process: Any) -> list[Any]:
    return [process, *process.children(recursive=True)]
