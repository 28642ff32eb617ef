"""Memory: what a row takes, which are admitted, wait or are refused, and what happens when an allocation fails."""

import asyncio
import errno
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import mlx.core as mx
import psutil
import pytest

from app.services import free_memory
from app.services.engine.cache.footprint import measure
from app.services.engine.cache.prefix_cache import PrefixCache
from app.services.engine.model.language_model import LanguageModel
from app.services.engine.model.memory_budget import MemoryBudget, out_of_memory
from app.services.engine.model.prefill import forward
from app.services.engine.sampling.dry import Dry
from app.services.engine.sampling.params import SamplingParams
from app.services.engine.scheduler.row import Row
from app.services.engine.scheduler.running_generation import Outbox, RunningGeneration
from app.services.engine.scheduler.running_request import RunningRequest
from app.services.engine.scheduler.scheduler import Scheduler
from app.services.errors import AppError, InvalidRequest, Unavailable
from tests.engine.workshop import EVERY, Workshop, finish, prompts, random_model


@pytest.fixture(scope="module")
def workshop(tiny: Path) -> Workshop:
    return Workshop("llama", tiny)


class Small(MemoryBudget):
    """So many bytes for a scheduler, of which it uses what its rows and its stored prompts hold."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.size = size
        self.scheduler: Scheduler | None = None

    def free(self) -> int:
        if self.scheduler is None:
            return self.size
        batches = [batch._cache.nbytes for batch in self.scheduler._batches._batches]
        prompts = [row.prefill.layers.nbytes if row.prefill.layers else 0 for row in self.scheduler._prefill.rows]
        return self.size - sum(batches) - sum(prompts) - self.scheduler.prefixes.nbytes


def small(workshop: Any, size: int, **more: Any) -> Scheduler:
    """Give a scheduler of a workshop, or of what sees, that has so many bytes."""
    memory_budget = Small(size)
    scheduler = workshop.scheduler(memory_budget=memory_budget, **more)
    memory_budget.scheduler = scheduler
    scheduler.admission.settle()
    return scheduler


class Errors(Outbox):
    """An outbox that notes the errors of rows, for which it makes readers."""

    def __init__(self) -> None:
        super().__init__()
        self._rows: dict[RunningRequest, Row] = {}
        self.by_row: dict[Row, list[AppError]] = {}

    def read(self, *rows: Row) -> None:
        """Let each of the rows have a reader."""

        async def generations() -> list[RunningGeneration]:
            return [RunningGeneration(lambda _: None) for _ in rows]

        for row, generation in zip(rows, asyncio.run(generations()), strict=True):
            row.generation = generation
            self._rows[generation] = row

    def put(self, request: RunningRequest | None, outcomes: Iterable[Any]) -> None:
        for outcome in outcomes:
            if isinstance(outcome, AppError) and request is not None:
                self.by_row.setdefault(self._rows[request], []).append(outcome)


@pytest.mark.parametrize("architecture", list(EVERY))
def test_the_footprint_is_what_rows_take(architecture: str) -> None:
    model = LanguageModel(random_model(architecture))
    footprint = measure(model.network)
    for tokens in (1, 15, 16, 17, 255, 256, 257, 700):
        layers = model.new_layers()
        forward(model, layers, [5] * tokens)
        forward(model, layers, [6])  # a step of decoding: windows shrink to their size
        slack = 2 * 256 * footprint.token_bytes
        assert layers.nbytes <= footprint.bytes(tokens + 1) <= layers.nbytes + slack


def test_rows_wait_until_there_is_memory_and_all_are_answered(workshop: Workshop) -> None:
    requests = [(prompt, SamplingParams(), 8) for prompt in prompts(7)]
    one = measure(workshop.model).bytes(100)
    errors, most = Errors(), 0
    scheduler = small(workshop, 6 * one, outbox=errors)
    rows = [workshop.row(*request) for request in requests]
    errors.read(*rows)
    for row in rows:
        scheduler.submit(row)
    while scheduler.busy:
        scheduler.step()
        most = max(most, scheduler.running)
    assert not errors.by_row
    assert 1 < most < 7
    assert [row.answer for row in rows] == [workshop.alone(*request) for request in requests]


def test_stored_prompts_are_evicted_before_anybody_waits(workshop: Workshop) -> None:
    one = measure(workshop.model).bytes(100)
    scheduler = small(workshop, 3 * one, cache_bytes=2**30)
    for prompt in prompts(6):
        finish(scheduler, [workshop.row(prompt, SamplingParams(), 4)])
    assert scheduler.prefixes.nbytes > 0
    before = len(scheduler.prefixes)
    wide = workshop.row([9] * 400, SamplingParams(), 4)
    assert scheduler.admission.footprint.bytes(404) > scheduler.admission.free()
    finish(scheduler, [wide])
    assert len(wide.answer) == 4
    assert len(scheduler.prefixes) < before


def test_what_never_fits_is_refused_with_the_numbers(workshop: Workshop) -> None:
    scheduler = small(workshop, measure(workshop.model).bytes(500))
    scheduler.admission.check(400, 1)
    for tokens, answers in ((600, 1), (400, 3)):
        with pytest.raises(InvalidRequest, match=rf"{tokens} tokens .* [KM]iB .* [KM]iB") as refused:
            scheduler.admission.check(tokens, answers)
        assert refused.value.code == "memory_exceeded"


def test_what_does_not_fit_although_nothing_runs_gets_an_error(workshop: Workshop) -> None:
    errors = Errors()
    scheduler = small(workshop, measure(workshop.model).bytes(500), outbox=errors)
    row, after = workshop.row([7] * 900, SamplingParams(), 4), workshop.row([7] * 9, SamplingParams(), 4)
    errors.read(row, after)
    finish(scheduler, [row, after])
    ((error,),) = errors.by_row.values()
    assert isinstance(error, Unavailable)
    assert "900 tokens" in error.message
    assert len(after.answer) == 4


def test_an_answer_that_outgrows_the_memory_ends_with_what_there_is(workshop: Workshop) -> None:
    size = measure(workshop.model).bytes
    scheduler = small(workshop, size(1500))
    long = workshop.row([7] * 20, SamplingParams(), 5000)
    finish(scheduler, [long])
    assert (long.finish_reason, len(long.answer) < 1600, len(long.answer) >= 1024) == ("length", True, True)


class Greedy:
    """A model that finds no memory while a token is among those that it computes."""

    def __init__(self, model: Any, token: int, times: int = 10**9) -> None:
        self._model, self._token, self._left = model, token, times

    def __call__(self, tokens: mx.array, **more: Any) -> Any:
        if self._left and (tokens == self._token).any().item():
            self._left -= 1
            raise RuntimeError("[malloc] Unable to allocate 123 bytes.")
        return self._model(tokens, **more)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)


BAD = 719  # no prompt of `prompts` has it


@pytest.mark.parametrize("position", ["first", "last", "answer"])
def test_an_allocation_that_fails_for_a_row_fails_that_row_alone(workshop: Workshop, position: str) -> None:
    requests = [(prompt, SamplingParams(temperature=1.0, seed=seed), 20) for seed, prompt in enumerate(prompts(5, 100))]
    expected = [workshop.alone(*request) for request in requests]
    errors = Errors()
    scheduler = workshop.scheduler(cache_bytes=2**30, model=Greedy(workshop.model, BAD), outbox=errors)
    prompt = {"first": [BAD, *requests[0][0]], "last": [*requests[0][0], BAD], "answer": requests[0][0]}[position]
    forcing = SamplingParams(logit_bias={BAD: 100.0}) if position == "answer" else SamplingParams()
    bad = workshop.row(prompt, forcing, 20)
    bad.siblings = [workshop.row(prompt, forcing, 20)] if position == "first" else []
    rows = [workshop.row(*request) for request in requests]
    errors.read(bad, *bad.siblings, *rows)
    for row in rows[:3]:
        scheduler.submit(row)
    for _ in range(4):
        scheduler.step()
    finish(scheduler, [bad, *rows[3:]])
    assert set(errors.by_row) == {bad, *bad.siblings}
    assert all(error.code == "out_of_memory" for (error,) in errors.by_row.values())
    assert [row.answer for row in rows] == expected
    again = workshop.row(*requests[0])
    finish(scheduler, [again])
    assert again.answer == expected[0]


def test_what_is_short_once_costs_nobody_the_answer(workshop: Workshop) -> None:
    all_params = [
        SamplingParams(),
        SamplingParams(temperature=1.0, seed=3, frequency_penalty=0.7),
        SamplingParams(repetition_penalty=1.4),
        SamplingParams(temperature=1.0, seed=4, repetition_penalty=1.4, penalty_window=3, typical_p=0.8),
        SamplingParams(temperature=1.0, seed=5, dry=Dry(2.0, allowed_length=0, window=9)),
    ]
    requests = [(prompt, params, 30) for prompt, params in zip(prompts(5), all_params, strict=True)]
    expected = [workshop.alone(*request) for request in requests]
    errors = Errors()
    scheduler = workshop.scheduler(model=Greedy(workshop.model, expected[1][12], 1), outbox=errors)
    rows = [workshop.row(*request) for request in requests]
    errors.read(*rows)
    finish(scheduler, rows)
    assert not errors.by_row
    assert [row.answer for row in rows] == expected
    assert any(row.failures for row in rows)


def test_what_is_short_while_several_answers_run_costs_none_of_them(workshop: Workshop) -> None:
    prompt = prompts(1, 80)[0]
    all_params = [SamplingParams(temperature=1.0, seed=seed) for seed in range(3)]
    expected = [workshop.alone(prompt, params, 30) for params in all_params]
    errors = Errors()
    scheduler = workshop.scheduler(model=Greedy(workshop.model, expected[1][12], 1), outbox=errors)
    rows = [workshop.row(prompt, params, 30) for params in all_params]
    rows[0].siblings = rows[1:]
    errors.read(*rows)
    finish(scheduler, rows[:1])
    assert not errors.by_row
    assert [row.answer for row in rows] == expected


@pytest.mark.parametrize(
    ("error", "short"),
    [
        (MemoryError(), True),
        (RuntimeError("[malloc] Unable to allocate 8 bytes."), True),
        (RuntimeError("[metal::malloc] Attempting to allocate 9 bytes which is greater than the maximum"), True),
        (RuntimeError("[METAL] Command buffer execution failed: Insufficient Memory"), True),
        (RuntimeError("cudaMallocAsync failed: out of memory"), True),
        (RuntimeError("shapes do not match"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_a_failed_allocation_is_known_by_its_words(error: Exception, short: bool) -> None:
    assert out_of_memory(error) == short


def test_a_machine_that_cannot_be_measured_has_what_it_had(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails() -> Any:
        raise OSError(errno.EMFILE, "Too many open files")

    prompt = [7 + i % 50 for i in range(40)]
    scheduler, rows = (
        workshop.scheduler(memory_budget=MemoryBudget()),
        [workshop.row(prompt, SamplingParams()) for _ in range(3)],
    )
    before = free_memory.available()
    monkeypatch.setattr(psutil, "virtual_memory", fails)
    assert free_memory.available() == before
    for row in rows:
        scheduler.submit(row)
    while scheduler.busy:
        scheduler.step()
    assert [row.answer for row in rows] == [workshop.alone(prompt, SamplingParams(), 24)] * 3
    assert MemoryBudget().free() > 0
    monkeypatch.setattr(free_memory, "available", type(free_memory.available)())  # one that never could ask
    assert 0 < MemoryBudget().free() < free_memory.total()


def test_the_room_of_this_machine_shrinks_by_what_is_taken() -> None:
    mx.clear_cache()
    memory_budget = MemoryBudget(mx.get_active_memory() + 2**24)
    before = memory_budget.free()
    taken = mx.zeros((1024, 1024))
    mx.eval(taken)
    assert before - memory_budget.free() == taken.nbytes
    assert 0 < MemoryBudget().free() < 2**50
    assert PrefixCache(0).evict(5) == 0
