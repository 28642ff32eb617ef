"""Unloading the one model while it answers: who reads has a while, who does not has none."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from app.services import single_model
from app.services.errors import NothingLoaded, Unavailable
from app.services.generation import Finished, Generation, GenerationRequest, Message
from app.services.model_service import ModelService
from app.settings import Settings
from tests.conftest import wait_for

ENDLESS = GenerationRequest(messages=(Message("user", "Go on"),), ignore_eos=True)


def live(tiny: Path, home: Path, work: Callable[[ModelService], Awaitable[None]]) -> None:
    async def run() -> None:
        service = ModelService(Settings(model=str(tiny), data_dir=home, skip_session_persist=True))
        async with service.running():
            await asyncio.to_thread(wait_for, lambda: service.models.facts, what="the model")
            await work(service)

    asyncio.run(run())


async def read(generation: Generation) -> Finished:
    while True:
        for event in await generation.ready():
            if isinstance(event, Finished):
                return event


def test_what_nobody_reads_is_not_waited_for(tiny: Path, tmp_path: Path) -> None:
    async def work(service: ModelService) -> None:
        unread = await service.generate(ENDLESS)
        unread.note_readers(0)
        ended = asyncio.ensure_future(read(unread))
        assert await service.models.unload("tiny") is None
        with pytest.raises(Unavailable, match="unloaded while it answered"):
            await ended

    live(tiny, tmp_path, work)


@pytest.mark.parametrize("reads", [True, False])
def test_what_is_read_has_a_while_to_end(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reads: bool
) -> None:
    monkeypatch.setattr(single_model, "GRACE_PERIOD", 0.2)

    async def work(service: ModelService) -> None:
        answer = await service.generate(ENDLESS)
        reader = asyncio.ensure_future(read(answer) if reads else asyncio.sleep(0))
        unloading = asyncio.ensure_future(service.models.unload("tiny"))
        await asyncio.sleep(0)
        with pytest.raises(NothingLoaded):
            service.models.find()
        assert await unloading is None  # although one that does not read never takes its error
        if reads:
            with pytest.raises(Unavailable, match="unloaded while it answered"):
                await reader
        answer.cancel()

    live(tiny, tmp_path, work)
