"""Prompts that begin alike are computed once, whenever they come and whoever leaves; what is computed is counted."""

from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.services.engine.sampling.params import SamplingParams
from app.services.engine.scheduler.prefill_state import Lead
from app.services.engine.scheduler.row import Row
from app.services.engine.scheduler.shared_prefix import find_lead
from app.services.generation import Progress, Text
from tests.engine.scheduler_parts import Counting, Letters, Reader
from tests.engine.workshop import HYBRID, SlowMachine, Workshop

RULES = [20 + index * 7 % 680 for index in range(600)]  # what prompts have in common
OWN = [[30 + number, *range(100, 119)] for number in range(8)]  # what each goes on with: 20 tokens
PROMPTS = [[*RULES, *own] for own in OWN]
PARAMS = [SamplingParams(), SamplingParams(temperature=1.0, seed=11)]


class Machine:
    """A scheduler with chunks of a hundred tokens, and a model that counts."""

    def __init__(self, workshop: Workshop, *, cache_bytes: int = 0) -> None:
        self.workshop = workshop
        self.model = Counting(workshop.model)
        self.scheduler = workshop.scheduler(
            model=self.model, cache_bytes=cache_bytes, chunk_sizer=SlowMachine(200), outbox=Letters()
        )
        self.model.tokens = 0

    def submit(self, prompt: list[int], index: int = 0, max_tokens: int = 6) -> Row:
        row = self.workshop.row(prompt, PARAMS[index % 2], max_tokens)
        row.generation = Reader()
        row.logprobs = 1
        self.scheduler.submit(row)
        return row

    def run(self, until: Callable[[], bool] = lambda: False) -> None:
        while self.scheduler.busy and not until():
            self.scheduler.step()

    def cancel(self, row: Row) -> None:
        assert row.generation is not None
        self.scheduler.cancel(row.generation)


def logprobs(row: Row) -> list[float]:
    assert isinstance(row.generation, Reader)
    texts = [event for event in row.generation.events if isinstance(event, Text)]
    return [token.logprob for text in texts for token in text.logprobs]


@lru_cache
def alone(workshop: Workshop, prompt: tuple[int, ...], index: int, max_tokens: int) -> tuple[list[int], list[float]]:
    """What a row says that has a scheduler to itself, and how likely its tokens were."""
    machine = Machine(workshop)
    row = machine.submit(list(prompt), index, max_tokens)
    machine.run()
    return row.answer, logprobs(row)


def check(workshop: Workshop, rows: Sequence[Row]) -> None:
    """See that rows say what each says alone, as likely as there."""
    for row in rows:
        answer, expected = alone(workshop, tuple(row.prompt), PARAMS.index(row.params), row.max_tokens)
        assert row.answer == answer
        assert logprobs(row) == pytest.approx(expected, abs=0.002)


@pytest.fixture(scope="module", params=["llama", "gemma3_text", "mamba2", HYBRID])
def workshop(request: Any, tiny: Path) -> Workshop:
    return Workshop(request.param, tiny)


@pytest.fixture(scope="module")
def llama(tiny: Path) -> Workshop:
    return Workshop("llama", tiny)


def test_eight_that_come_at_once_compute_what_they_share_once(workshop: Workshop) -> None:
    machine = Machine(workshop)
    rows = [machine.submit(prompt, index, 1) for index, prompt in enumerate(PROMPTS)]
    machine.run()
    assert machine.model.tokens == len(RULES) + sum(map(len, OWN))
    assert [row.cached_tokens for row in rows] == [0, *[len(RULES)] * 7]
    assert [row.prefill.cache_use.reason for row in rows[1:]] == ["first_diff"] * 7
    check(workshop, rows)


def test_those_that_come_while_it_is_half_computed_wait_for_the_rest(workshop: Workshop) -> None:
    machine = Machine(workshop)
    first = machine.submit(PROMPTS[0])
    machine.run(lambda: first.prefill.length >= 300)
    later = [machine.submit(prompt, 1) for prompt in PROMPTS[1:3]]
    machine.run(lambda: not machine.scheduler._prefill)
    assert machine.model.tokens <= len(RULES) + 3 * len(OWN[0]) + 3 * 6
    machine.run()
    assert [row.cached_tokens for row in later] == [len(RULES)] * 2
    check(workshop, [first, *later])


def test_what_comes_later_goes_on_from_the_copy_that_is_there(llama: Workshop) -> None:
    """While the first goes on with a long prompt of its own, decodes alone, or decodes with others."""
    machine = Machine(llama)
    long = machine.submit([*PROMPTS[0], *range(100, 700)], 0, 40)
    machine.run(lambda: long.prefill.length > len(RULES) + 100)
    while_prefilling = machine.submit(PROMPTS[1], 1)
    machine.run(lambda: bool(while_prefilling.finish_reason and long.answer))
    while_alone = machine.submit(PROMPTS[2], 0, 30)
    machine.run(lambda: bool(while_alone.answer[2:]))
    in_a_batch = machine.submit(PROMPTS[3], 1)
    machine.run()
    rows = [while_prefilling, while_alone, in_a_batch]
    assert [row.cached_tokens for row in rows] == [len(RULES)] * 3
    check(llama, [long, *rows])


def test_a_checkpoint_at_the_shared_end_serves_those_that_come_when_all_are_gone(workshop: Workshop) -> None:
    machine = Machine(workshop, cache_bytes=2**30)
    for index in (0, 1):
        machine.submit(PROMPTS[index])
    machine.run()
    late = machine.submit(PROMPTS[2])
    machine.run()
    assert late.cached_tokens == len(RULES)
    check(workshop, [late])


def test_a_decoding_row_with_a_checkpoint_is_copied_from_there(workshop: Workshop) -> None:
    machine = Machine(workshop)
    rows = [machine.submit(prompt, 0, 30) for prompt in PROMPTS[:2]]
    machine.run(lambda: len(rows[1].answer) > 2)
    late = machine.submit(PROMPTS[2], 1)
    machine.run()
    assert late.cached_tokens == len(RULES)
    check(workshop, [*rows, late])


def test_prompts_that_part_one_after_the_other_form_a_tree(workshop: Workshop) -> None:
    machine = Machine(workshop)
    branch = [*RULES, *range(200, 500)]
    prompts = [[*RULES, 1], [*branch, 2], [*branch, 3], [*RULES, 4], [*branch, *range(50, 350), 5], RULES, branch]
    rows = [machine.submit(prompt, index, 1) for index, prompt in enumerate(prompts)]
    machine.run()
    assert (
        machine.model.tokens == len({tuple(prompt[: end + 1]) for prompt in prompts for end in range(len(prompt))}) + 2
    )
    check(workshop, rows)


def test_nobody_waits_for_what_the_first_has_of_its_own(llama: Workshop) -> None:
    machine = Machine(llama)
    long = machine.submit([*RULES, *([7, 8] * 1000)], 0, 1)
    short = machine.submit([*RULES, 9], 0, 1)
    machine.run(lambda: bool(short.finish_reason))
    assert machine.model.tokens <= len(RULES) + 2 * 100 + 1
    machine.run()
    check(llama, [long, short])


@pytest.mark.parametrize("cached", [0, 99, 100, 101, 300])
def test_nobody_waits_for_more_tokens_than_it_would_compute(llama: Workshop, cached: int) -> None:
    first, second, third = (llama.row(prompt, PARAMS[0]) for prompt in PROMPTS[:3])
    first.prefill.length, second.prefill.length = 100, cached
    lead = find_lead(second, [first])
    assert lead == (Lead(first.prefill, len(RULES)) if cached <= 100 else None)
    second.prefill.lead, third.prefill.tokens = lead, [*PROMPTS[1][:-5], 1]
    assert find_lead(third, [first, second]) == Lead(second.prefill, len(PROMPTS[1]) - 5)


def test_an_unrelated_prompt_shares_the_time_with_one_and_not_with_eight(llama: Workshop) -> None:
    machine = Machine(llama)
    eight = [machine.submit(prompt, 0, 1) for prompt in PROMPTS]
    other = machine.submit([5] * 500, 0, 1)
    machine.run(lambda: bool(other.finish_reason))
    assert machine.model.tokens <= 2 * 500 + 100
    machine.run()
    check(llama, [*eight, other])


def test_short_and_different_beginnings_are_not_waited_for(llama: Workshop) -> None:
    machine = Machine(llama)
    rows = [machine.submit(prompt, 0, 1) for prompt in ([*RULES[:255], 1], [*RULES[:255], 2], [1, *RULES], [2, *RULES])]
    machine.run()
    assert machine.model.tokens == sum(len(row.prompt) for row in rows)
    assert [row.cached_tokens for row in rows] == [0] * 4


def test_what_adapters_compute_is_not_shared_with_other_scales(llama: Workshop) -> None:
    machine = Machine(llama)
    rows = [machine.submit(prompt, 0, 1) for prompt in PROMPTS[:4]]
    for row, scales in zip(rows, ((), (1.0,), (1.0,), (0.5,)), strict=True):
        row.scales = scales
    machine.run()
    assert [row.cached_tokens for row in rows] == [0, 0, len(RULES), 0]


def test_when_the_first_is_cancelled_the_next_takes_over_what_is_computed(workshop: Workshop) -> None:
    machine = Machine(workshop)
    first, *others = (machine.submit(prompt, index, 1) for index, prompt in enumerate(PROMPTS))
    machine.run(lambda: first.prefill.length >= 300)
    machine.cancel(first)
    assert [row.prefill.length for row in others] == [first.prefill.length, *[0] * 6]
    machine.run()
    assert machine.model.tokens == len(RULES) + sum(map(len, OWN[1:]))
    check(workshop, others)


def test_when_one_is_cancelled_that_waits_itself_those_behind_it_wait_on(workshop: Workshop) -> None:
    machine = Machine(workshop)
    branch = [*RULES, *range(200, 500)]
    first, middle, *last = (
        machine.submit(prompt, 0, 1) for prompt in (RULES, [*branch, 2], [*branch, 3], [*branch, 4])
    )
    machine.run(lambda: first.prefill.length >= 300)
    machine.cancel(middle)
    machine.run()
    assert machine.model.tokens == len(branch) + 1 + 2
    check(workshop, [first, *last])


def test_when_memory_runs_out_for_the_first_the_next_computes(llama: Workshop) -> None:
    machine = Machine(llama)
    machine.model.fails_after = 350
    rows = [machine.submit(prompt, index, 4) for index, prompt in enumerate(PROMPTS[:4])]
    machine.run()
    assert [row.failures for row in rows] == [1, 0, 0, 0]
    assert [row.cached_tokens for row in rows] == [0, 0, len(RULES), len(RULES)]
    check(llama, rows)


def test_answers_to_one_prompt_follow_and_lead_together(llama: Workshop) -> None:
    machine = Machine(llama)
    leads, follows = (llama.row(prompt, PARAMS[0], 4) for prompt in PROMPTS[:2])
    for row in (leads, follows):
        row.siblings = [llama.row(row.prompt, PARAMS[1], 4)]
        for one in (row, *row.siblings):
            one.generation, one.logprobs = Reader(), 1
    rows = [leads, *leads.siblings, follows, *follows.siblings]
    for row in (leads, follows):
        machine.scheduler.submit(row)
    machine.run(lambda: leads.prefill.length >= 300)
    machine.cancel(leads)  # its sibling goes on in its place
    machine.run()
    assert machine.model.tokens <= len(RULES) + 2 * 20 + 3 * 4
    check(llama, rows[1:])


def test_one_that_asks_for_no_tokens_leads_too(llama: Workshop) -> None:
    machine = Machine(llama)
    rows = [machine.submit(RULES, 0, 0), machine.submit(RULES, 0, 1), machine.submit(PROMPTS[0], 0, 1)]
    machine.run()
    assert machine.model.tokens <= len(RULES) + 2 * len(OWN[0]) + 2  # the rests are computed together, padded
    assert rows[1].prefill.cache_use.reason == "whole"
    check(llama, rows[1:])


def test_progress_never_goes_back(llama: Workshop) -> None:
    machine = Machine(llama)
    rows = [machine.submit(prompt, 0, 1) for prompt in PROMPTS]
    machine.run(lambda: rows[0].prefill.length >= 300)
    machine.cancel(rows[0])
    machine.run()
    for row in rows[1:]:
        assert isinstance(row.generation, Reader)
        done = [event.done for event in row.generation.events if isinstance(event, Progress)]
        assert done == sorted(done)
        assert done[-1] == len(row.prompt)


@settings(max_examples=6, deadline=None)
@given(draw=st.data())
def test_however_they_come_share_and_leave_all_are_answered_as_alone(workshop: Workshop, draw: st.DataObject) -> None:
    machine = Machine(workshop, cache_bytes=draw.draw(st.sampled_from((0, 2**30))))
    known, rows, cancelled = [RULES], list[Row](), set[Row]()
    for number in range(draw.draw(st.integers(2, 9))):
        before = draw.draw(st.sampled_from(known))
        length = draw.draw(st.sampled_from((300, 450, 600, 601, len(before))))
        rest = draw.draw(st.sampled_from(([], [number + 1], OWN[number % 8], range(300, 600))))
        known.append([*before[:length], *rest])
        rows.append(machine.submit(known[-1], number, draw.draw(st.sampled_from((1, 3)))))
        for _ in range(draw.draw(st.integers(0, 4))):
            machine.scheduler.step()
        if draw.draw(st.integers(0, 3)) == 0:
            gone = draw.draw(st.sampled_from(rows))
            if not gone.finish_reason:
                cancelled.add(gone)
                machine.cancel(gone)
    machine.run()
    answered = [row for row in rows if row not in cancelled]
    assert all(row.finish_reason for row in answered)
    assert machine.model.tokens <= sum(len(row.prompt) + row.max_tokens for row in rows)
    check(workshop, answered)
