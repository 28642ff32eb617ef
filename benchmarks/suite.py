"""A whole run: the models are built, the targets started, each workload measured in turns, everything ended."""

import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks import lifecycle, model
from benchmarks.in_process import InProcess
from benchmarks.measure import Result, Series
from benchmarks.model import Model
from benchmarks.prompts import fresh
from benchmarks.server import OURS, PEER, Server, peer_with_blas
from benchmarks.target import Target
from benchmarks.workloads import WORKLOADS, Values, Workload

Say = Callable[[str], None]


@dataclass(frozen=True)
class Plan:
    """What a run does."""

    cache: Path
    names: tuple[str, ...] = ()  # of workloads; none: all
    repeat: int = 5
    idle_seconds: float = 30.0
    models: tuple[str, ...] = tuple(model.SIZES)
    peer_with_blas: bool = True

    def wants(self, name: str) -> bool:
        """Whether a workload is part of the run."""
        return not self.names or name in self.names


async def run(plan: Plan, say: Say) -> list[Result]:
    """Measure everything in the plan; `say` is told what is being done."""
    results = []
    for name in plan.models:
        built = model.built(name, plan.cache)
        wanted = [workload for workload in WORKLOADS if name in workload.models and plan.wants(workload.name)]
        if wanted:
            results += await _measure_model(plan, built, wanted, say)
        if name == lifecycle.MODEL and plan.wants(lifecycle.NAME):
            say(f"{name}: {lifecycle.TITLE}")
            with tempfile.TemporaryDirectory() as home:
                results.append(await lifecycle.measure(built, Path(home), plan.repeat, plan.idle_seconds))
    return results


async def _measure_model(plan: Plan, built: Model, wanted: Sequence[Workload], say: Say) -> list[Result]:
    say(f"{built.name}: starting")
    async with _targets(plan, built) as targets:
        results = []
        for workload in wanted:
            say(f"{built.name}: {workload.title}")
            results.append(await _in_turns(workload, targets, plan.repeat))
        return results


@asynccontextmanager
async def _targets(plan: Plan, built: Model) -> AsyncIterator[list[Target]]:
    """Start everything that is compared, one after the other, and end all of it whatever happens."""
    targets: list[Target] = []
    with tempfile.TemporaryDirectory() as home:
        try:
            for recipe in (OURS, PEER, peer_with_blas() if plan.peer_with_blas else None):
                if recipe is not None:
                    server = Server(recipe, built, Path(home))
                    targets.append(server)
                    await server.ready()
                    await _warm_up(server)
            targets.append(InProcess(built, Path(home)))
            await _warm_up(targets[-1])
            yield targets
        finally:
            for target in targets:
                await target.stop()


async def _warm_up(target: Target) -> None:
    with target.awake():
        await target.chat(fresh("warm up"), 8)
        await target.chats([fresh(f"warm up {number}") for number in range(4)], 8, 4)


async def _in_turns(workload: Workload, targets: Sequence[Target], repeat: int) -> Result:
    """A, B, C, then B, C, A, …: whoever goes first in one repetition goes last in the next."""
    collected: dict[str, list[Values]] = {target.name: [] for target in targets}
    for turn in range(repeat):
        first = turn % len(targets)
        for target in [*targets[first:], *targets[:first]]:
            with target.awake():
                collected[target.name].append(await workload.run(target))
    series = {
        name: {kind.name: Series([values[kind.name] for values in rounds]) for kind in workload.measures}
        for name, rounds in collected.items()
    }
    return Result(workload.name, targets[0].model.name, series)
