"""Which request is next: slots are shared among callers, and nobody waits for ever."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from app.services.caller import Caller
from app.services.engine.sampling.params import SamplingParams
from app.services.engine.scheduler.row import Row
from app.services.engine.scheduler.running_generation import RunningGeneration
from app.services.engine.scheduler.wait_queue import WaitQueue
from tests.engine.workshop import SlowMachine, Workshop

import pytest  # isort: skip


@pytest.fixture(scope="module")
def workshop(tiny: Path) -> Workshop:
    return Workshop("llama", tiny)


def rows_of(workshop: Workshop, callers: Sequence[tuple[str, int]], tokens: int = 2) -> list[Row]:
    """A row for each of these callers and connections, in the order of their arrival."""

    async def generations() -> list[RunningGeneration]:
        return [RunningGeneration(lambda _: None, Caller((who,), connection)) for who, connection in callers]

    rows = [workshop.row([5, 6, 7], SamplingParams(), tokens) for _ in callers]
    for row, generation in zip(rows, asyncio.run(generations()), strict=True):
        row.generation = generation
    return rows


def admitted_order(queue: WaitQueue, slots: int = 1) -> list[Row]:
    """The order in which rows are admitted where the oldest of so many that run has just ended."""
    running: list[Row] = []
    order = []
    while row := queue.take(running, lambda _: True):
        order.append(row)
        running = [*running, row][-slots:]
    return order


def test_a_flood_of_one_caller_leaves_every_second_slot_to_the_other(workshop: Workshop) -> None:
    rows = rows_of(workshop, [("flood", port) for port in range(20)] + [("one", 99)] * 4)
    queue = WaitQueue()
    for row in rows:
        queue.put(row)
    order = [rows.index(row) for row in admitted_order(queue, slots=4)]
    assert sorted(order) == list(range(24))
    assert max(order.index(index) for index in (20, 21, 22, 23)) < 9
    assert [index for index in order if index < 20] == list(range(20))


def test_many_prompts_of_one_connection_do_not_hold_up_another(workshop: Workshop) -> None:
    rows = rows_of(workshop, [("me", 1)] * 10 + [("me", 2)])
    queue = WaitQueue()
    for row in rows:
        queue.put(row)
    assert [rows.index(row) for row in admitted_order(queue, slots=4)][1] == 10


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 3)), min_size=1, max_size=30), st.integers(1, 8))
def test_everybody_is_served_and_a_connection_in_order(
    workshop: Workshop, callers: list[tuple[str, int]], slots: int
) -> None:
    rows = rows_of(workshop, callers)
    queue = WaitQueue()
    for row in rows:
        queue.put(row)
    order = admitted_order(queue, slots)
    assert len(queue) == 0
    for one in set(callers):
        mine = [row for row, whose in zip(rows, callers, strict=True) if whose == one]
        assert [row for row in order if row in mine] == mine


def test_what_does_not_fit_is_passed_by_but_not_for_ever(workshop: Workshop) -> None:
    big, *small = rows_of(workshop, [("a", 1)] * 101)
    queue = WaitQueue()
    queue.put(big)
    fits = False
    let_in: list[Row] = []
    for row in small:
        queue.put(row)
        if taken := queue.take([], lambda one: one is not big or fits):
            let_in.append(taken)
    assert len(let_in) == 32
    fits = True
    assert queue.take([], lambda one: True) is big
    assert queue.take([], lambda one: True) is small[32]


def test_rows_that_were_running_come_first(workshop: Workshop) -> None:
    rows = rows_of(workshop, [("a", 1), ("b", 2), ("a", 1)])
    queue = WaitQueue()
    for row in rows[:2]:
        queue.put(row)
    rows[2].failures = 1
    queue.put_first(rows[2:])
    assert queue.take(rows[2:], lambda _: True) is rows[2]


def test_a_lone_question_does_not_wait_for_a_flood_to_end(workshop: Workshop) -> None:
    scheduler = workshop.scheduler(max_rows=4)
    *flood, lone = rows_of(workshop, [("flood", port) for port in range(24)] + [("lone", 99)], tokens=6)
    for row in (*flood, lone):
        scheduler.submit(row)
    ended: list[Any] = []
    while scheduler.busy:
        scheduler.step()
        ended += [row for row in (*flood, lone) if row.finish_reason and row not in ended]
    assert ended.index(lone) < 8
    assert len(ended) == 25


def test_a_short_prompt_does_not_wait_behind_a_long_one(workshop: Workshop) -> None:
    scheduler = workshop.scheduler(chunk_sizer=SlowMachine(200))  # 100 tokens a chunk
    long, short = workshop.row([7] * 3000, SamplingParams(), 2), workshop.row([8] * 30, SamplingParams(), 2)
    scheduler.submit(long)
    scheduler.step()
    scheduler.submit(short)
    while not short.finish_reason:
        scheduler.step()
    assert long.prefill.length < 1000
