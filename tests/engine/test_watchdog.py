"""A step that does not return, and one that does at last."""

import asyncio
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from app.services.engine import runner as runners
from app.services.engine.engine import Engine
from app.services.errors import Unavailable
from app.services.generation import Finished, GenerationRequest, Message
from app.services.model_service import ModelService
from app.settings import Settings
from tests.conftest import wait_for

HELLO = GenerationRequest(messages=(Message("user", "Hello"),), max_tokens=4)


async def answer(models: ModelService, request: GenerationRequest = HELLO) -> Finished:
    generation = await models.generate(request)
    while True:
        for event in await generation.ready():
            if isinstance(event, Finished):
                return event


async def until(condition: Any, what: str) -> None:
    await asyncio.to_thread(wait_for, condition, what=what)


def test_a_step_that_comes_back_by_itself_makes_all_well_again(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held, let_go = threading.Event(), threading.Event()
    step, stuck = Engine._step, []

    def hold(self: Engine, runner: Any) -> None:
        if held.is_set() and runner.busy:
            held.clear()
            monkeypatch.setattr(runner, "step", lambda: let_go.wait(60))
        step(self, runner)
        if let_go.is_set():
            monkeypatch.undo()

    monkeypatch.setattr(Engine, "_step", hold)
    told = Settings(model=str(tiny), data_dir=tmp_path, skip_session_persist=True, watchdog_seconds=0.2)

    async def live() -> None:
        models = ModelService(told, on_stuck=lambda: stuck.append(True))
        async with models.running():
            await until(lambda: models.facts, "the model")
            assert (await answer(models)).reason == "length"
            held.set()
            with pytest.raises(Unavailable, match="has not come back"):
                await answer(models)
            with pytest.raises(Unavailable, match="has not come back"):
                await models.generate(HELLO)
            assert stuck == [True]
            let_go.set()
            await until(lambda: models.stuck is None, "the watchdog")
            assert (await answer(models)).reason == "length"

    asyncio.run(live())


def test_the_first_prompt_on_a_slow_machine_is_not_called_a_hang(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward, forward_padded, stuck = runners.forward, runners.forward_padded, []

    def slow(model: Any, layers: Any, tokens: list[int]) -> None:
        time.sleep(0.01 * len(tokens))
        forward(model, layers, tokens)

    def slow_padded(model: Any, layers: Any, tokens: list[list[int]], *more: Any) -> None:
        time.sleep(0.01 * sum(map(len, tokens)))
        forward_padded(model, layers, tokens, *more)

    monkeypatch.setattr(runners, "forward", slow)
    monkeypatch.setattr(runners, "forward_padded", slow_padded)
    told = Settings(model=str(tiny), data_dir=tmp_path, skip_session_persist=True, watchdog_seconds=0.1)
    prompt = replace(HELLO, messages=(Message("user", "word " * 300),))

    async def live() -> None:
        models = ModelService(told, on_stuck=lambda: stuck.append(True))
        async with models.running():
            await until(lambda: models.facts, "the model")
            assert (await answer(models, prompt)).reason == "length"
            assert stuck == []

    asyncio.run(live())


@pytest.mark.parametrize("place", ["forward", "step"])
def test_a_hang_is_found_wherever_it_is(
    place: str, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    let_go, stuck = threading.Event(), []
    told = Settings(model=str(tiny), data_dir=tmp_path, skip_session_persist=True, watchdog_seconds=0.2)

    async def live() -> None:
        models = ModelService(told, on_stuck=lambda: stuck.append(True))
        async with models.running():
            await until(lambda: models.facts, "the model")
            if place == "forward":
                monkeypatch.setattr(runners, "forward", lambda *_: let_go.wait(60))
            else:
                (runner,) = models._engine._runners
                monkeypatch.setattr(runner._batch, "step", lambda: let_go.wait(60) and ([], []))
            with pytest.raises(Unavailable, match="has not come back"):
                await answer(models)
            assert stuck == [True]
            let_go.set()

    asyncio.run(live())
