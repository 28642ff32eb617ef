"""A whole run: rounds, in each of which every workload is measured once on every target."""

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import names
from benchmarks.lineup import Lineup
from benchmarks.measure import Result
from benchmarks.profile import profiled
from benchmarks.prompts import fresh
from benchmarks.target import Target
from benchmarks.workload import FULL, Scale, Values, Workload
from benchmarks.workloads import catalogue

Say = Callable[[str], None]
SECONDS = 400.0  # that a workload may take on a target


@dataclass(frozen=True)
class Plan:
    """What a run does."""

    cache: Path  # where models are
    only: tuple[str, ...] = ()  # workloads; none: all
    models: tuple[str, ...] = names.MODELS
    rounds: int = 5
    minutes: float = 25.0  # after which no round of a workload is begun
    scale: Scale = FULL
    without: frozenset[str] = frozenset()  # targets
    profiles: Path | None = None  # where CPU profiles of ours go; None makes none

    def jobs(self, before: Sequence[Result] = ()) -> Iterator["Job"]:
        """Every workload on every model of the run, with what an earlier run has measured of it."""
        measured = {(result.model, result.workload): result for result in before}
        for model in self.models:
            for workload in catalogue(self.scale):
                if model in workload.targets and (not self.only or workload.name in self.only):
                    targets = self._targets(workload.targets[model])
                    result = measured.get((model, workload.name)) or Result(workload.name, workload.title, model)
                    yield Job(workload, targets, result, begun=result.rounds)

    def _targets(self, wanted: tuple[str, ...]) -> list[str]:
        """Those that take part; where there is no BLAS to preload, the peer as it comes is the same."""
        same = {names.PEER_WITH_BLAS: names.PEER} if names.PEER_WITH_BLAS in self.without else {}
        return [name for name in dict.fromkeys(same.get(name, name) for name in wanted) if name not in self.without]


@dataclass
class Job:
    """A workload on a model, and what came of it so far."""

    workload: Workload
    targets: list[str]
    result: Result
    seconds: float = 0.0  # that its last round took
    begun: int = 0  # rounds of it in an earlier run

    def turns(self, number: int) -> list[str]:
        """A, B, C, then B, C, A, …: whoever goes first in one round goes last in the next."""
        first = number % len(self.targets)
        turns = [*self.targets[first:], *self.targets[:first]]
        return [name for name in turns if name not in self.result.failures]


@dataclass
class Run:
    """A run in progress."""

    plan: Plan
    say: Say
    lineup: Lineup
    began: float = field(default_factory=time.monotonic)

    async def go(self, jobs: list[Job]) -> None:
        """Measure, round by round, until all is done or the time is over."""
        for number in range(self.plan.rounds):
            for job in jobs:
                if number < job.begun:
                    continue
                left = 60 * self.plan.minutes - (time.monotonic() - self.began)
                if left < job.seconds or left <= 0:
                    self.say(f"no time for round {number + 1} of {job.result.model}: {job.workload.title}")
                    continue
                self.say(f"round {number + 1} of {self.plan.rounds}, {job.result.model}: {job.workload.title}")
                await self._round(job, number)

    async def _round(self, job: Job, number: int) -> None:
        ready = [await self._ready(job.result, name) for name in job.turns(number)]
        began = time.monotonic()
        for target in ready:
            if target is not None:
                await self._measure(job, target, number)
        job.seconds = time.monotonic() - began

    async def _ready(self, result: Result, name: str) -> Target | None:
        try:
            return await self.lineup.target(result.model, name)
        except Exception as error:
            self._failed(result, name, error)
            return None

    async def _measure(self, job: Job, target: Target, number: int) -> None:
        """Add the values of a target. One that fails is not asked again, and begins the next workload anew."""
        try:
            async with asyncio.timeout(SECONDS):
                job.result.take(target.name, await self._values(job, target, number))
        except Exception as error:
            self._failed(job.result, target.name, error)
            await self.lineup.drop(target)

    async def _values(self, job: Job, target: Target, number: int) -> Values:
        with target.awake():
            await target.chat(fresh("wake up"), self.plan.scale.stream_tokens)  # its memory is cold after the others
            if self.plan.profiles is None or target.name != names.OURS or number:
                return await job.workload.measured(target)
            path = self.plan.profiles / f"{job.result.model}-{job.workload.name}"
            async with profiled(self.lineup.process(target), path):
                return await job.workload.measured(target)

    def _failed(self, result: Result, name: str, error: Exception) -> None:
        result.failures[name] = said(error)
        self.say(f"FAILED {name}, {result.model}, {result.workload}: {said(error).splitlines()[0]}")


def said(error: BaseException) -> str:
    """Say what went wrong, in the words of the first of a group."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}"


async def run(plan: Plan, jobs: list[Job], say: Say) -> None:
    """Measure the plan's jobs, which hold what came of it even if this is cancelled; `say` hears what is being done."""
    async with Lineup(plan.cache, profiles=plan.profiles) as lineup:
        await Run(plan, say, lineup).go(jobs)
