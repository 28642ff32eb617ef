"""A step that does not return, and one that does at last."""

import asyncio
import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from app.services.engine import engine as engines
from app.services.engine.engine import MLXEngine
from app.services.engine.limits import EngineLimits
from app.services.engine.model import chunk_sizer
from app.services.engine.scheduler import prefill_manager
from app.services.engine.scheduler.batches import Batches
from app.services.engine.scheduler.embedding import Embedding
from app.services.engine.scheduler.fair_share import FairShare
from app.services.errors import Unavailable
from app.services.generation import EmbeddingRequest, Finished, GenerationRequest, Message
from app.services.model_service import ModelService
from app.settings import Settings
from tests.conftest import wait_for

HELLO = GenerationRequest(messages=(Message("user", "Hello"),), max_tokens=4, ignore_eos=True)


class Clock:
    """What the engine takes for the time. It stands still but for what a test adds, however busy the machine is."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of steps and of prompts."""
    clock = Clock()
    for module in (engines, chunk_sizer):
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=clock, perf_counter=clock))
    return clock


async def answer(service: ModelService, request: GenerationRequest = HELLO) -> Finished:
    generation = await service.generate(request)
    while True:
        for event in await generation.ready():
            if isinstance(event, Finished):
                return event


async def until(condition: Any, what: str) -> None:
    await asyncio.to_thread(wait_for, condition, what=what)


def test_a_step_that_comes_back_by_itself_makes_all_well_again(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    held, let_go = threading.Event(), threading.Event()
    next_scheduler, stuck = FairShare.next, []

    def hang(*, alone: bool) -> None:
        clock.now += 3600
        let_go.wait(60)

    def hold(self: FairShare, schedulers: Any) -> Any:
        scheduler = next_scheduler(self, schedulers)
        if let_go.is_set():
            monkeypatch.undo()
        elif held.is_set() and scheduler is not None:
            held.clear()
            monkeypatch.setattr(scheduler, "step", hang)
        return scheduler

    monkeypatch.setattr(FairShare, "next", hold)
    settings = Settings(model=str(tiny), data_dir=tmp_path, skip_session_persist=True, watchdog_seconds=0.2)

    async def live() -> None:
        service = ModelService(settings, on_stuck=lambda: stuck.append(True))
        async with service.running():
            await until(lambda: service.models.facts, "the model")
            assert (await answer(service)).reason == "length"
            held.set()
            with pytest.raises(Unavailable, match="has not come back"):
                await answer(service)
            with pytest.raises(Unavailable, match="has not come back"):
                await service.generate(HELLO)
            assert stuck == [True]
            let_go.set()
            await until(lambda: service.stuck is None, "the watchdog")
            assert (await answer(service)).reason == "length"

    asyncio.run(live())


def test_a_slow_machine_is_not_called_hanging(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    """A token of a prompt takes twelve seconds, or six where many are computed at once; 60 are a hang by default."""
    forward, forward_padded, embed = prefill_manager.forward, prefill_manager.forward_padded, Embedding.compute
    settings = Settings(model=str(tiny), data_dir=tmp_path, skip_session_persist=True)
    engine = MLXEngine(EngineLimits())
    service = ModelService(settings, engine=engine)
    stuck: list[float] = []

    def take(tokens: int) -> None:
        clock.now += 12 * tokens if tokens < 64 else 6 * tokens
        stuck.append(engine.stuck_for())

    def slow(model: Any, layers: Any, tokens: list[int]) -> None:
        forward(model, layers, tokens)
        take(len(tokens))

    def slow_padded(model: Any, layers: Any, tokens: list[list[int]], *more: Any) -> None:
        forward_padded(model, layers, tokens, *more)
        take(sum(map(len, tokens)))

    def slow_embedding(self: Embedding, *about: Any) -> int:
        spent = embed(self, *about)
        take(spent)
        return spent

    monkeypatch.setattr(prefill_manager, "forward", slow)
    monkeypatch.setattr(prefill_manager, "forward_padded", slow_padded)
    monkeypatch.setattr(Embedding, "compute", slow_embedding)

    async def live() -> None:
        async with service.running():
            await until(lambda: service.models.facts, "the model")
            long = replace(HELLO, messages=(Message("user", "word " * 100),))
            await asyncio.gather(answer(service, long), *(answer(service) for _ in range(6)))
            await service.embed(EmbeddingRequest((("word " * 100,), ("word",))))

    asyncio.run(live())
    assert len(stuck) > 10
    assert not any(stuck)


@pytest.mark.parametrize("function", ["forward", "step"])
def test_a_hang_is_found_wherever_it_is(
    function: str, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    let_go, stuck = threading.Event(), []

    def hang(*_: Any) -> None:
        clock.now += 3600
        let_go.wait(60)

    settings = Settings(model=str(tiny), data_dir=tmp_path, skip_session_persist=True, watchdog_seconds=0.2)

    async def live() -> None:
        service = ModelService(settings, on_stuck=lambda: stuck.append(True))
        async with service.running():
            await until(lambda: service.models.facts, "the model")
            if function == "forward":
                monkeypatch.setattr(prefill_manager, "forward", hang)
            else:
                monkeypatch.setattr(Batches, "step", lambda _: hang() or ([], []))
            with pytest.raises(Unavailable, match="has not come back"):
                await answer(service)
            assert stuck == [True]
            let_go.set()

    asyncio.run(live())
