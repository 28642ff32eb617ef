"""A run: rounds in turns, an end when the time is over, and peers that fail."""

import asyncio
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pytest

from benchmarks import names, profile
from benchmarks.errors import BenchmarkError
from benchmarks.long_prompt import gaps, p95
from benchmarks.measure import Measure, Result
from benchmarks.reply import Reply
from benchmarks.suite import Job, Plan, Run, said
from benchmarks.workload import Values, Workload

TARGETS = ("a", "b", "c")


class Written:
    """A target that does nothing: what a workload makes of it is in the test."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.model: Any = None

    async def chat(self, messages: Any, tokens: int, more: Any = None) -> Reply:
        return Reply(0, [1], 1, 1, 0, tokens, "")

    async def chats(self, conversations: Any, tokens: int, at_once: int, more: Any = None) -> list[Reply]:
        return []

    def awake(self) -> AbstractContextManager[None]:
        return nullcontext()

    async def stop(self) -> None:
        pass


class Everybody:
    """A line-up of them, and who was sent away."""

    def __init__(self) -> None:
        self.dropped: list[str] = []

    async def target(self, of: str, name: str) -> Written:
        if name == "missing":
            raise BenchmarkError("not here")
        return Written(name)

    async def drop(self, target: Written) -> None:
        self.dropped.append(target.name)


def job(run: Any, targets: tuple[str, ...] = TARGETS) -> Job:
    workload = Workload("w", "a workload", (Measure("m", "m", "", True),), {"tiny": targets}, run)
    return Job(workload, list(targets), Result("w", "a workload", "tiny"))


def go(plan: Plan, jobs: list[Job]) -> tuple[Everybody, list[str]]:
    everybody, told = Everybody(), list[str]()
    asyncio.run(Run(plan, told.append, everybody).go(jobs))  # type: ignore[arg-type]
    return everybody, told


def test_targets_take_turns_at_going_first() -> None:
    order: list[str] = []

    async def run(target: Written) -> Values:
        order.append(target.name)
        return {"m": len(order)}

    one = job(run)
    go(Plan(Path(), rounds=3), [one])
    assert "".join(order) == "abcbcacab"
    assert one.result.series["a"]["m"].values == [1, 6, 8]


def test_rounds_go_over_all_workloads() -> None:
    order: list[str] = []

    def noting(name: str) -> Job:
        async def run(target: Written) -> Values:
            order.append(name)
            return {}

        return job(run, ("a",))

    go(Plan(Path(), rounds=2), [noting("x"), noting("y")])
    assert order == ["x", "y", "x", "y"]


def test_a_target_that_fails_keeps_nobody_from_being_measured_and_is_not_asked_again() -> None:
    async def run(target: Written) -> Values:
        if target.name == "b":
            async with asyncio.TaskGroup():
                raise BenchmarkError("b is broken")
        return {"m": 1.0}

    one = job(run, (*TARGETS, "missing"))
    everybody, told = go(Plan(Path(), rounds=2), [one])
    assert one.result.failures == {
        "b": "BenchmarkError: b is broken",
        "missing": "BenchmarkError: not here",
    }
    assert {name: len(kinds["m"].values) for name, kinds in one.result.series.items()} == {"a": 2, "c": 2}
    assert everybody.dropped == ["b"]
    assert any("FAILED b" in line for line in told)


def test_nothing_is_begun_once_the_time_is_over() -> None:
    async def run(target: Written) -> Values:
        return {"m": 1.0}

    one = job(run)
    _, told = go(Plan(Path(), rounds=2, minutes=0), [one])
    assert one.result.series == {}
    assert [line[:19] for line in told] == ["no time for round 1", "no time for round 2"]


def test_a_round_that_would_take_too_long_is_left_out() -> None:
    async def run(target: Written) -> Values:
        return {"m": 1.0}

    long, short = job(run), job(run)
    long.seconds = 61.0
    go(Plan(Path(), rounds=1, minutes=1), [long, short])
    assert (long.result.series == {}, set(short.result.series)) == (True, set(TARGETS))


def test_a_plan_holds_what_was_asked_for() -> None:
    plan = Plan(Path(), only=("short",), models=(names.DEMO,), without=frozenset({names.PEER_WITH_BLAS}))
    [one] = plan.jobs()
    assert (one.workload.name, one.targets) == ("short", [names.OURS, names.PEER, names.IN_PROCESS])


def test_without_a_blas_to_preload_the_peer_as_it_comes_stands_in() -> None:
    plan = Plan(Path(), only=("chat",), models=(names.DEMO, names.LARGER), without=frozenset({names.PEER_WITH_BLAS}))
    assert [job.targets for job in plan.jobs()] == [[names.OURS, names.PEER, names.IN_PROCESS]] * 2


def test_of_a_group_of_errors_the_first_is_told() -> None:
    group = ExceptionGroup("several", [ExceptionGroup("more", [ValueError("this")]), OSError("that")])
    assert said(group) == "ValueError: this"


def test_silences_are_those_between_tokens_that_touch_the_span() -> None:
    assert list(gaps([0.0, 1.0, 2.0, 9.0, 10.0], 1.5, 9.0)) == [(1.0, 2.0), (2.0, 9.0)]


@pytest.mark.parametrize(("values", "expected"), [([5.0], 5.0), ([float(n) for n in range(101)], 95.0)])
def test_one_in_twenty_exceeds_p95(values: list[float], expected: float) -> None:
    assert p95(values) == pytest.approx(expected)


def test_a_profile_says_which_thread_ran_where() -> None:
    stacks = [
        "engine;run (e.py:1);step (e.py:9) 30",
        "engine;run (e.py:1);step (e.py:12) 10",
        "main;loop (m.py:3) 20",
        "pool;_worker (concurrent/futures/thread.py:81) 500",
    ]
    lines = list(profile.summary(stacks))
    assert [line for line in lines if not line.startswith(" ")] == ["engine: 0.20 s", "main: 0.10 s"]
    assert "  100.0 %  step (e.py" in lines
    assert "  100.0 %  run (e.py" in lines
