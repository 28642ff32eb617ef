"""The status of one model of several: which changes there may be, and what listeners hear of them."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from app.services.errors import InvalidRequest, LoadCancelled, LoadFailed, ModelLoading
from app.services.model_events import ModelChange, ModelEvents
from app.services.model_state import IN_MEMORY, Status
from app.services.routed_model import RoutedModel
from tests.loop import run


class Held:
    """A loaded model as far as a router's model knows it."""

    facts = None
    held = 0

    def hold(self) -> None:
        self.held += 1

    def release(self) -> None:
        self.held -= 1


async def forever() -> None:
    await asyncio.sleep(3600)  # the loop holds who waits for its clock; a task that nobody holds may be collected


CHANGES: dict[str, Callable[[RoutedModel], object]] = {
    "queue": lambda model: model.begin_load(forever),
    "read": lambda model: model.note_progress(0.0),
    "load": lambda model: model.loaded(Held()),  # type: ignore[arg-type]
    "cancel": lambda model: model.load_failed(LoadCancelled()),
    "fail": lambda model: model.load_failed(LoadFailed("torn")),
    "evict": lambda model: model.evict(forever),
    "keep": lambda model: model.keep(),
    "unload": lambda model: model.unload(forever, 60),
    "free": lambda model: model.unloaded(),
}


def changed(*changes: str) -> RoutedModel:
    model = RoutedModel("a", Path("a"), ModelEvents())
    for change in changes:
        CHANGES[change](model)
    return model


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ((), Status.UNLOADED),
        (("queue",), Status.QUEUED),
        (("queue", "cancel"), Status.UNLOADED),
        (("queue", "fail"), Status.FAILED),
        (("queue", "fail", "queue"), Status.QUEUED),
        (("queue", "read"), Status.LOADING),
        (("queue", "read", "fail"), Status.FAILED),
        (("queue", "read", "load"), Status.LOADED),
        (("queue", "read", "load", "evict"), Status.EVICTING),
        (("queue", "read", "load", "evict", "keep"), Status.LOADED),
        (("queue", "read", "load", "evict", "unload"), Status.UNLOADING),
        (("queue", "read", "load", "evict", "free"), Status.UNLOADED),
        (("queue", "read", "load", "unload"), Status.UNLOADING),
        (("queue", "read", "load", "unload", "free", "queue"), Status.QUEUED),
    ],
)
def test_a_model_goes_from_load_to_load(changes: tuple[str, ...], status: Status) -> None:
    async def go() -> None:
        model = changed(*changes)
        assert model.status is status
        assert (model.served is not None) == (status in IN_MEMORY)
        assert (model.task is not None) == (status not in {Status.UNLOADED, Status.FAILED, Status.LOADED})

    run(go())


@pytest.mark.parametrize(
    "changes",
    [
        ("load",),
        ("evict",),
        ("free",),
        ("queue", "load"),
        ("queue", "evict"),
        ("queue", "read", "keep"),
        ("queue", "read", "load", "free"),
        ("queue", "read", "load", "queue"),
        ("queue", "read", "load", "unload", "keep"),
        ("queue", "read", "load", "unload", "load"),
    ],
)
def test_no_step_is_left_out(changes: tuple[str, ...]) -> None:
    async def go() -> None:
        model = changed(*changes[:-1])
        with pytest.raises(AssertionError):
            CHANGES[changes[-1]](model)

    run(go())


def test_whoever_listens_hears_each_change_once() -> None:
    async def go() -> None:
        events = ModelEvents()
        heard = events.subscribe(0)
        model = RoutedModel("a", Path("a"), events)
        for change in ("queue", "read", "load", "evict", "unload", "free"):
            CHANGES[change](model)
        events.close()
        changes = [(change.kind, change.model.status) async for change in heard if isinstance(change, ModelChange)]
        assert changes == [
            ("load_begins", Status.QUEUED),
            ("status", Status.LOADING),
            ("status", Status.LOADED),
            ("status", Status.EVICTING),  # that it goes in any case is no news
            ("status", Status.UNLOADED),
        ]

    run(go())


def test_those_who_wait_have_the_model_or_the_error() -> None:
    async def go() -> None:
        model = changed("queue")
        requests: list[asyncio.Task[Any]] = [asyncio.create_task(model.wait()) for _ in range(3)]
        await asyncio.sleep(0)
        assert model.waiting == 3
        requests[2].cancel()
        model.note_progress(0.0)
        CHANGES["load"](model)
        served = await requests[0]
        assert served is await requests[1]
        with pytest.raises(asyncio.CancelledError):
            await requests[2]
        assert (served.held, model.waiting, model.is_wanted) == (2, 0, False)

        for change, error in (("cancel", InvalidRequest), ("fail", LoadFailed)):
            model = changed("queue")
            request = asyncio.create_task(model.wait())
            await asyncio.sleep(0)
            CHANGES[change](model)
            with pytest.raises(error):
                await request

    run(go())


def test_a_model_that_makes_way_for_another_folder_is_not_waited_for() -> None:
    async def go() -> None:
        model = changed("queue", "read", "load", "unload")
        request = asyncio.create_task(model.wait())
        await asyncio.sleep(0)
        model.replace()
        model.unloaded()
        with pytest.raises(ModelLoading, match="takes its place"):
            await request

    run(go())
