"""Vectors are what mlx-lm's model gives for one text alone, in any company and in slices of any size."""

import asyncio
from functools import partial
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx_lm.models.cache import make_prompt_cache

from app.services.engine.model.language_model import LanguageModel
from app.services.engine.sampling.params import SamplingParams
from app.services.engine.scheduler.embedding import CausalGroup, Embedding, check_hidden
from app.services.engine.scheduler.running_request import RunningEmbedding, RunningRequest
from app.services.errors import EngineFailed, NoEmbeddings
from app.services.generation import Embedded, Pooling
from tests.engine.workshop import ARCHITECTURES, Workshop, random_model

LENGTHS = [1, 3, 40, 7, 2, 90, 41, 7]


@pytest.fixture(scope="module", params=sorted(ARCHITECTURES))
def some_model(request: pytest.FixtureRequest) -> Any:
    return random_model(request.param)


def texts() -> list[list[int]]:
    draw = np.random.default_rng(3)
    return [[int(token) for token in draw.integers(0, 768, length)] for length in LENGTHS]


def embedding_of(inputs: list[list[int]], pooling: Pooling, request: RunningEmbedding | None = None) -> Embedding:
    return Embedding(request, "m", [len(tokens) for tokens in inputs], partial(CausalGroup, inputs, pooling))


def causal(network: Any) -> LanguageModel:
    model = LanguageModel(network)
    check_hidden(model, 768)
    return model


def alone(model: Any, tokens: list[int], pooling: Pooling) -> Any:
    body = model.backbone if hasattr(model, "backbone") else model.model
    hidden = np.array(body(mx.array([tokens]), cache=make_prompt_cache(model)).astype(mx.float32))[0]
    return {"mean": hidden.mean(axis=0), "cls": hidden[0], "last": hidden[-1], "max": hidden.max(axis=0)}[pooling]


@pytest.mark.parametrize("pooling", ["mean", "cls", "last", "max"])
@pytest.mark.parametrize("budget", [1, 50, 10_000])
def test_a_text_gets_the_vector_that_it_gets_alone(some_model: Any, pooling: Pooling, budget: int) -> None:
    embedding = embedding_of(texts(), pooling)
    while not embedding.is_finished:
        embedding.compute(causal(some_model), budget)
    result = embedding.result()
    assert result.prompt_tokens == sum(LENGTHS)
    for tokens, vector in zip(texts(), result.vectors, strict=True):
        np.testing.assert_allclose(vector, alone(some_model, tokens, pooling), atol=2e-5)


def test_a_slice_is_as_long_as_the_budget_says() -> None:
    model = causal(random_model("llama"))
    embedding = embedding_of([[1] * 100, [2] * 90], "mean")
    spent = [embedding.compute(model, 50)]
    while not embedding.is_finished:
        spent.append(embedding.compute(model, 50))
    assert spent == [50, 50, 50, 50]


def test_rows_get_their_tokens_between_the_slices(tiny: Path) -> None:
    workshop = Workshop("llama", tiny)
    alone, beside = workshop.row([1, 2, 3], SamplingParams(), 30), workshop.row([1, 2, 3], SamplingParams(), 30)
    scheduler = workshop.scheduler()
    scheduler.submit(alone)
    while scheduler.busy:
        scheduler.step()
    embedding = embedding_of([[1] * 700] * 8, "mean")
    scheduler.submit(beside)
    while not beside.answer:
        scheduler.step()
    scheduler.embed(embedding)
    steps = 0
    while not embedding.is_finished:
        before = len(beside.answer)
        scheduler.step()
        assert beside.finish_reason or len(beside.answer) > before
        steps += 1
    assert steps > 1
    while scheduler.busy:
        scheduler.step()
    assert beside.answer == alone.answer


def test_what_nobody_waits_for_is_dropped(tiny: Path) -> None:
    scheduler = Workshop("llama", tiny).scheduler()

    async def reader() -> RunningEmbedding:
        return RunningEmbedding(lambda _: None)

    gone = asyncio.run(reader())
    scheduler.embed(embedding_of([[1] * 5000], "mean", gone))
    scheduler.step()
    assert scheduler.busy
    scheduler.cancel(gone)
    assert not scheduler.busy


def test_to_cancel_the_waiting_for_vectors_cancels_the_work() -> None:
    async def live() -> None:
        cancelled: list[RunningRequest] = []
        running = RunningEmbedding(cancelled.append)
        waiting = asyncio.ensure_future(running.result())
        await asyncio.sleep(0)  # it waits now
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert (cancelled, running.over.done()) == ([running], True)

    asyncio.run(live())


def test_what_fails_while_vectors_are_waited_for_is_raised_there() -> None:
    async def live() -> None:
        running = RunningEmbedding(lambda _: None)
        running.fail(EngineFailed())
        running.put(Embedded("m", 1, None))  # too late
        with pytest.raises(EngineFailed):
            await running.result()

    asyncio.run(live())


class Closed(nn.Module):
    """A model that shows nothing but logits."""

    layers = ()

    def __call__(self, tokens: mx.array, cache: Any = None) -> mx.array:
        return mx.zeros((*tokens.shape, 768))


class Shy(Closed):
    """One whose inner part gives logits too."""

    def __init__(self) -> None:
        super().__init__()
        self.model = Closed()


class Odd(Closed):
    """One whose inner part is called in another way."""

    def __init__(self) -> None:
        super().__init__()
        self.model = nn.Linear(4, 4)


@pytest.mark.parametrize("model", [Closed(), Shy(), Odd()])
def test_a_model_that_hides_its_states_is_refused(model: Any) -> None:
    with pytest.raises(NoEmbeddings):
        check_hidden(LanguageModel(model), 768)
