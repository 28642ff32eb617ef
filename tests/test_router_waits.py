"""Requests that wait for a model: what they hear meanwhile, and what becomes of the load. On a real engine."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from app.services import free_memory, model_loader
from app.services.engine.model import loading
from app.services.engine.scheduler.fair_share import FairShare
from app.services.errors import InvalidRequest, QueueFull, Unavailable
from app.services.generation import Finished, Generation, GenerationRequest, Message, Started
from app.services.model_events import ModelChange
from app.services.model_service import ModelService
from app.services.pending_generation import PendingGeneration
from app.settings import Settings
from tests import tiny_model
from tests.conftest import wait_for

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models."""
    folder = tmp_path_factory.mktemp("two")
    tiny_model.build(folder / "alpha", layers=1, seed=1)
    tiny_model.build(folder / "beta", layers=1, seed=2)
    return folder


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Loads read their weights, and go on when this is set."""
    let_go, load = threading.Event(), loading.load

    def hold(*arguments: Any, **more: Any) -> loading.Step:
        steps = load(*arguments, **more)
        yield next(steps)
        while not let_go.wait(0.01):
            yield 0.5
        return (yield from steps)

    monkeypatch.setattr(loading, "load", hold)
    return let_go


def live(folder: Path, home: Path, work: Callable[[ModelService], Awaitable[None]], **told: Any) -> None:
    """Run a router until the work is done."""

    async def run() -> None:
        service = ModelService(Settings(models_dir=folder, data_dir=home, skip_session_persist=True, **told))
        async with service.running():
            await work(service)

    asyncio.run(run())


def asking(model: str | None) -> GenerationRequest:
    return GenerationRequest(messages=(Message("user", "Hello"),), model=model, max_tokens=2)


async def events(generation: Generation) -> list[Any]:
    heard: list[Any] = []
    while not heard or not isinstance(heard[-1], Finished):
        heard += await generation.ready()
    return heard


async def statuses(service: ModelService) -> dict[str, str]:
    return {state.id: state.status.name.lower() for state in await service.models.states()}


async def until(service: ModelService, **wanted: str) -> None:
    loop = asyncio.get_running_loop()

    def reached() -> bool:
        return asyncio.run_coroutine_threadsafe(statuses(service), loop).result(60).items() >= wanted.items()

    await asyncio.to_thread(wait_for, reached, what=str(wanted))


def test_a_reader_can_be_woken_while_its_model_loads_and_then_gets_its_answer(
    folder: Path, tmp_path: Path, held: threading.Event
) -> None:
    async def work(service: ModelService) -> None:
        generation = await service.generate(asking("alpha"))
        assert isinstance(generation, PendingGeneration)
        assert (generation.choices, generation.end_reasoning()) == (1, False)
        asyncio.get_running_loop().call_later(0.05, generation.wake)
        assert await generation.ready() == ()
        assert await statuses(service) == {"alpha": "loading", "beta": "unloaded"}
        held.set()
        heard = await events(generation)
        assert isinstance(heard[0], Started)
        assert heard[0].model == "alpha"
        assert not isinstance(await service.generate(asking("alpha")), PendingGeneration)

    live(folder, tmp_path, work)


def test_a_reader_that_leaves_leaves_no_trace(folder: Path, tmp_path: Path, held: threading.Event) -> None:
    async def work(service: ModelService) -> None:
        changes = service.events.subscribe(0)
        reading = await service.generate(asking("alpha"))
        async for change in changes:
            if isinstance(change, ModelChange) and change.model.progress:
                break
        queued = await service.generate(asking("beta"))
        queued.cancel()
        await until(service, alpha="loading", beta="unloaded")  # its turn had not come: it is not loaded at all
        reading.cancel()
        held.set()
        await until(service, alpha="loaded")  # most of the work was done
        assert not service.models.find("alpha").busy

    live(folder, tmp_path, work)


def test_no_more_requests_wait_for_models_than_may_wait_at_all(
    folder: Path, tmp_path: Path, held: threading.Event
) -> None:
    async def work(service: ModelService) -> None:
        waiting = [await service.generate(asking(name)) for name in ("alpha", "beta")]
        for name in ("alpha", "beta"):
            with pytest.raises(QueueFull, match=r"waiting \(2\)"):
                await service.generate(asking(name))
        held.set()
        for generation in waiting:
            await events(generation)

    live(folder, tmp_path, work, max_queue=2)


def test_a_load_that_is_given_up_tells_those_who_wait_and_can_be_begun_anew(
    folder: Path, tmp_path: Path, held: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded, next_scheduler = [], FairShare.next

    def count(self: FairShare, schedulers: Any) -> Any:
        loaded.append(len(schedulers))
        return next_scheduler(self, schedulers)

    monkeypatch.setattr(FairShare, "next", count)

    async def work(service: ModelService) -> None:
        generation = await service.generate(asking("alpha"))
        await service.models.unload("alpha")
        with pytest.raises(InvalidRequest, match="cancelled"):
            await events(generation)
        assert (await statuses(service))["alpha"] == "unloaded"
        held.set()
        assert (await events(await service.generate(asking("alpha"))))[0].model == "alpha"
        assert loaded[-1] == 1

    live(folder, tmp_path, work)


def test_at_the_end_those_who_wait_are_told(folder: Path, tmp_path: Path, held: threading.Event) -> None:
    async def work(service: ModelService) -> None:
        generation = await service.generate(asking("alpha"))
        await service.drain(1.0)
        with pytest.raises(Unavailable, match="shutting down"):
            await events(generation)
        with pytest.raises(Unavailable, match="shutting down"):
            await service.generate(asking("alpha"))

    live(folder, tmp_path, work)


def test_a_model_that_does_not_fit_beside_the_others_takes_their_place(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work(service: ModelService) -> None:
        await events(await service.generate(asking("alpha")))
        monkeypatch.setattr(free_memory, "fits", lambda *_: not service.models.facts)  # room for one
        await events(await service.generate(asking("beta")))
        assert await statuses(service) == {"alpha": "unloaded", "beta": "loaded"}
        monkeypatch.undo()
        await events(await service.generate(asking("alpha")))
        assert await statuses(service) == {"alpha": "loaded", "beta": "loaded"}

    live(folder, tmp_path, work)


def test_a_model_that_nobody_uses_is_unloaded_and_one_that_answers_is_not(folder: Path, tmp_path: Path) -> None:
    async def work(service: ModelService) -> None:
        long = replace(asking("alpha"), max_tokens=None, ignore_eos=True)
        answering = await service.generate(long)
        await events(await service.generate(asking("beta")))
        await until(service, alpha="loaded", beta="unloaded")
        answering.cancel()
        await until(service, alpha="unloaded")

    live(folder, tmp_path, work, sleep_idle_seconds=0.2)


@pytest.mark.parametrize("reads", [True, False])
def test_an_answer_has_a_while_to_end_when_its_model_is_told_to_go(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reads: bool
) -> None:
    monkeypatch.setattr(model_loader, "GRACE_PERIOD", 0.2)

    async def work(service: ModelService) -> None:
        endless = replace(asking("alpha"), max_tokens=None, ignore_eos=True)
        answering = await service.generate(endless)
        await service.models.unload("alpha")
        if reads:
            with pytest.raises(Unavailable, match="unloaded while it answered"):
                await events(answering)
        await until(service, alpha="unloaded")  # whether or not its reader took the error
        assert (await events(await service.generate(asking("alpha"))))[0].model == "alpha"
        answering.cancel()

    live(folder, tmp_path, work)


def test_an_answer_that_nobody_reads_makes_room(folder: Path, tmp_path: Path) -> None:
    async def work(service: ModelService) -> None:
        unread = await service.generate(replace(asking("alpha"), max_tokens=None, ignore_eos=True))
        unread.note_readers(0)
        ended = asyncio.ensure_future(events(unread))
        assert (await events(await service.generate(asking("beta"))))[0].model == "beta"
        with pytest.raises(Unavailable, match="unloaded while it answered"):
            await ended

    live(folder, tmp_path, work, max_models=1)


def test_what_the_start_brings_is_the_default(folder: Path, tiny: Path, tmp_path: Path) -> None:
    async def work(service: ModelService) -> None:
        await until(service, tiny="loaded")
        assert (await events(await service.generate(asking(None))))[0].model == "tiny"
        assert await statuses(service) == {"alpha": "unloaded", "beta": "unloaded", "tiny": "loaded"}

    live(folder, tmp_path, work, model=str(tiny))
