"""Rows in a batch get what they would get alone, whoever joins and leaves, in both ways of reading tokens."""

from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from mlx_lm.models.cache import make_prompt_cache

from app.services.engine.sampling.dry import Dry
from app.services.engine.sampling.params import SamplingParams
from app.services.engine.scheduler import batches
from app.services.engine.scheduler.running_generation import Outbox
from app.services.errors import ServerError
from tests.engine.workshop import ARCHITECTURES, SlowMachine, Workshop, come_and_go, finish, prompts

PARAMS = [
    SamplingParams(),
    SamplingParams(temperature=1.0, seed=11),
    SamplingParams(temperature=0.8, top_k=40, top_p=0.95, min_p=0.05, seed=12),
    SamplingParams(temperature=1.0, seed=13, repetition_penalty=1.3, penalty_window=4),
    SamplingParams(temperature=0.0, frequency_penalty=0.7, presence_penalty=0.3),
    SamplingParams(temperature=1.2, top_k=5, seed=2**60 + 3, logit_bias={5: 4.0}),
    SamplingParams(temperature=1.0, seed=14, typical_p=0.7, top_n_sigma=2.0, dynatemp_range=0.5, min_keep=2),
    SamplingParams(temperature=0.7, seed=15, dry=Dry(2.0, allowed_length=0, window=20)),
    SamplingParams(seed=16, dry=Dry(2.0, window=1000), samplers=("temperature", "dry", "top_p"), top_p=0.9),
]


@pytest.fixture(scope="module", params=list(ARCHITECTURES))
def workshop(request: Any, tiny: Path) -> Workshop:
    return Workshop(request.param, tiny)


def test_an_answer_is_the_same_alone_and_among_rows_that_come_and_go(workshop: Workshop) -> None:
    requests = [(prompt, PARAMS[i % len(PARAMS)], 5 + 7 * (i % 5)) for i, prompt in enumerate(prompts(12))]
    rows = [workshop.row(*request) for request in requests]
    scheduler = workshop.scheduler()
    come_and_go(scheduler, rows)
    assert [row.answer for row in rows] == [workshop.alone(*request) for request in requests]


def test_what_a_row_leaves_behind_is_the_cache_of_its_tokens(workshop: Workshop) -> None:
    rows = [workshop.row(prompt, SamplingParams(), 9) for prompt in prompts(5, 40)]
    scheduler = workshop.scheduler(cache_bytes=2**30)
    finish(scheduler, rows)
    for row in rows:
        tokens = row.layer_tokens
        assert tokens[: len(row.prompt)] == row.prompt
        found = scheduler.prefixes.get([*tokens, 1])
        assert found is not None
        layers = found.layers.caches
        assert len(found.tokens) == len(tokens)
        fresh = make_prompt_cache(workshop.model)
        workshop.model(mx.array([tokens]), cache=fresh)
        after, expected = (workshop.model(mx.array([[9]]), cache=cache) for cache in (layers, fresh))
        assert mx.allclose(after, expected, atol=1e-4)


def test_a_cached_beginning_changes_nothing_but_the_work(workshop: Workshop) -> None:
    prompt = prompts(1, 90)[0] * 2
    scheduler = workshop.scheduler(cache_bytes=2**30)
    first = workshop.row(prompt, PARAMS[1])
    finish(scheduler, [first])
    turn = [*prompt, *first.answer, 30, 31, 32]
    second = workshop.row(turn, PARAMS[2])
    finish(scheduler, [second])
    assert second.cached_tokens >= len(prompt) + len(first.answer) - 1
    assert second.answer == workshop.alone(turn, PARAMS[2])
    again = workshop.row(prompt, PARAMS[1])
    finish(scheduler, [again])
    assert again.cached_tokens == (len(prompt) - 1 if workshop.trimmable else 0)
    assert again.answer == first.answer


def test_more_rows_than_slots_wait_and_all_are_answered(workshop: Workshop) -> None:
    rows = [workshop.row(prompt, SamplingParams(), 6) for prompt in prompts(11)]
    scheduler = workshop.scheduler(max_rows=3)
    for row in rows:
        scheduler.submit(row)
    while scheduler.busy:
        scheduler.step()
        assert scheduler.running <= 3
    assert all(len(row.answer) == 6 for row in rows)


def test_an_end_token_ends_a_row_and_no_tokens_means_prompt_only(workshop: Workshop) -> None:
    prompt = prompts(1)[0]
    whole = workshop.alone(prompt, SamplingParams())
    ended = workshop.row(prompt, SamplingParams(), 24, frozenset({whole[3]}))
    none = workshop.row(prompt, SamplingParams(), 0)
    finish(workshop.scheduler(), [ended, none])
    assert ended.answer == whole[: whole.index(whole[3]) + 1]
    assert (ended.finish_reason, none.finish_reason) == ("stop", "length")
    assert (none.answer, none.prefill.length) == ([], len(prompt))


class Failing:
    """A model that fails once, at its nth call after the one that measures it."""

    def __init__(self, model: Any, at: int) -> None:
        self._model, self._left = model, at + 1

    def __call__(self, *arguments: Any, **more: Any) -> Any:
        self._left -= 1
        if self._left == 0:
            raise RuntimeError("injected")
        return self._model(*arguments, **more)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)


class Collected(Outbox):
    """An outbox that keeps what is put in, by row order of arrival."""

    def __init__(self) -> None:
        super().__init__()
        self.errors = 0

    def put(self, generation: Any, events: Any) -> None:
        self.errors += sum(isinstance(event, ServerError) for event in events)


@pytest.mark.parametrize("fails_at", range(1, 7))
def test_wherever_the_model_fails_every_reader_is_told(workshop: Workshop, fails_at: int) -> None:
    outbox = Collected()
    scheduler = workshop.scheduler(model=Failing(workshop.model, fails_at), outbox=outbox)
    long, *short = (workshop.row(prompt, SamplingParams(), 30) for prompt in ([9] * 300, *prompts(3, 30)))
    short[0].siblings = [workshop.row(short[0].prompt, SamplingParams(), 30)]
    for row in (long, *short):
        scheduler.submit(row)
    with pytest.raises(RuntimeError):
        while scheduler.busy:
            scheduler.step()
    scheduler.fail(ServerError())
    assert outbox.errors == 5
    after = workshop.row([5, 6, 7], SamplingParams(), 6)
    finish(scheduler, [after])
    assert after.answer == workshop.alone([5, 6, 7], SamplingParams(), 6)


def test_rows_of_very_different_length_are_apart_and_get_what_they_would_get_alone(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "_CALL_BYTES", 0)
    monkeypatch.setattr(batches, "_LOOK_EVERY", 4)
    scheduler = workshop.scheduler()
    scheduler._batches._call_bytes = 64 * scheduler.admission.footprint.token_bytes  # of one row: lengths matter soon
    short = [(prompt, PARAMS[i % 6], 40) for i, prompt in enumerate(prompts(5, 20))]
    long = [(prompt * 9, PARAMS[i + 1], 25) for i, prompt in enumerate(prompts(2, 60))]
    rows = [workshop.row(*request) for request in (*short, *long)]
    for row in rows:
        scheduler.submit(row)
    most = 0
    while scheduler.busy:
        scheduler.step()
        most = max(most, len(scheduler._batches._batches))
    assert [row.answer for row in rows] == [workshop.alone(*request) for request in (*short, *long)]
    assert most > 1 or not scheduler.admission.footprint.token_bytes


def test_a_batch_splits_when_its_rows_have_grown_apart(workshop: Workshop) -> None:
    requests = [(prompt, PARAMS[i], 12) for i, prompt in enumerate(prompts(6, 60))]
    rows = [workshop.row(*request) for request in requests]
    scheduler = workshop.scheduler(chunk_sizer=SlowMachine(10_000))  # all of them join in one step
    for row in rows:
        scheduler.submit(row)
    while len(scheduler._batches) < len(rows):
        scheduler.step()
    whole = scheduler._batches._batches[0]
    scheduler._batches._batches.append(whole.split_off(rows[1:4:2]))
    while scheduler.busy:
        scheduler.step()
    assert [row.answer for row in rows] == [workshop.alone(*request) for request in requests]


def test_several_answers_share_the_prompt_and_are_what_each_would_be_alone(workshop: Workshop) -> None:
    prompt = prompts(1, 80)[0] * 3
    rows = [workshop.row(prompt, params, 10) for params in PARAMS[:4]]
    first = rows[0]
    first.siblings = rows[1:]
    neighbour = workshop.row(prompts(2)[1], PARAMS[5], 30)
    scheduler = workshop.scheduler()
    finish(scheduler, [neighbour, first])
    assert [row.answer for row in rows] == [workshop.alone(prompt, params, 10) for params in PARAMS[:4]]
    assert [row.cached_tokens for row in rows] == [0, *[len(prompt) - 1] * 3]
    assert neighbour.answer == workshop.alone(prompts(2)[1], PARAMS[5], 30)


def test_a_failure_ends_the_rows_and_the_next_is_answered(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    scheduler = workshop.scheduler()
    rows = [workshop.row(prompt, SamplingParams()) for prompt in prompts(4)]
    for row in rows:
        scheduler.submit(row)
    for _ in range(3):
        scheduler.step()
    scheduler.fail(ServerError())
    assert not scheduler.busy
    after = workshop.row(rows[0].prompt, SamplingParams())
    finish(scheduler, [after])
    assert after.answer == workshop.alone(rows[0].prompt, SamplingParams())


def test_a_long_prompt_comes_in_slices_between_the_tokens_of_others(workshop: Workshop) -> None:
    talking = workshop.row(prompts(1)[0], SamplingParams(), 400)
    scheduler = workshop.scheduler(chunk_sizer=SlowMachine(500))  # 60 tokens a chunk
    scheduler.submit(talking)
    while not talking.answer:
        scheduler.step()
    long = workshop.row([7] * 1500, SamplingParams(), 2)
    scheduler.submit(long)
    seen = []
    while not long.finish_reason:
        before, spoken = long.prefill.length, len(talking.answer)
        scheduler.step()
        seen.append((long.prefill.length - before, len(talking.answer) - spoken))
    assert len(seen) >= 1500 // 60
    assert all(tokens >= 1 for _, tokens in seen), "every step gives the other row a token"
    assert max(computed for computed, _ in seen) <= 61, "the last token is fed by the batch"
