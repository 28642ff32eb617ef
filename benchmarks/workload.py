"""What a workload is."""

import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from statistics import median

from benchmarks import names
from benchmarks.measure import Measure
from benchmarks.server import Server
from benchmarks.target import More, Target

Values = dict[str, float]

EVERYBODY = (names.OURS, names.PEER, names.PEER_WITH_BLAS, names.IN_PROCESS)
AS_THEY_COME = (names.OURS, names.PEER, names.IN_PROCESS)
SERVERS = (names.OURS, names.PEER)
WITH_BLAS = (names.OURS, names.PEER_WITH_BLAS, names.IN_PROCESS)  # where the peer alone would take half a minute
WITH_LLAMA = (names.OURS, names.PEER_WITH_BLAS, names.IN_PROCESS, names.LLAMA_SERVER)  # the real model
OURS_ALONE = (names.OURS,)

# What is drawn so is seldom what came before, so that no draft is taken from there.
NOTHING_COPIED: More = {"temperature": 1.5, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "seed": 1}

REPEATS = 3  # in a round, of what may take less than a second
_BRIEF = 2.0  # seconds; what has taken longer is not repeated


@dataclass(frozen=True)
class Workload:
    """Drives a target once and gives a value for each measure; `targets` says by model whom it is measured on.

    It is run up to `repeats` times in a round, as long as that takes no time worth mentioning, and the median counts.
    """

    name: str
    title: str
    measures: tuple[Measure, ...]
    targets: Mapping[str, tuple[str, ...]]
    run: Callable[[Target], Awaitable[Values]]
    repeats: int = 1

    async def measured(self, target: Target) -> Values:
        """Give what a round counts of a target."""
        ends = time.monotonic() + _BRIEF
        runs = [await self.run(target)]
        while len(runs) < self.repeats and time.monotonic() < ends:
            runs.append(await self.run(target))
        return {name: median(run[name] for run in runs) for name in runs[0]}


@dataclass(frozen=True)
class Scale:
    """How much of everything."""

    tokens: int = 128  # of an answer that is alone
    stream_tokens: int = 64  # of one that is not
    short: int = 96  # answers of one token; a sixth with a larger model
    history: int = 1080  # tokens of a system message
    turns: int = 5
    steps: int = 6  # of an agent
    long_prompt: int = 4000  # tokens
    idle_seconds: float = 8.0
    connections: int = 500


def server_of(target: Target) -> Server:
    """The server that a target is."""
    if not isinstance(target, Server):
        raise TypeError(f"{target.name} is no server")
    return target


FULL = Scale()
QUICK = Scale(32, 16, 16, 200, 3, 3, 600, 1.0, 50)
