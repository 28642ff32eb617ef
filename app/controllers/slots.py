"""The slots of the batch, and files of what they hold."""

import time
from typing import Annotated, Literal

from litestar import Controller, get, post
from litestar.di import NamedDependency
from litestar.openapi.spec import Example
from litestar.params import Body, PathParameter, QueryParameter

from app.controllers.openapi import ModelName, operation
from app.controllers.refusals import LOADED_MODEL, body_refusals, query_refusals
from app.dto.llama.models import EMPTY_CONTEXT
from app.dto.llama.slots import Slot, SlotDone, SlotFile, SlotTimings
from app.services.errors import (
    FeatureNotSupported,
    InvalidRequest,
    NoSlotAvailable,
    NothingLoaded,
    SlotBusy,
    SlotEmpty,
    SlotNotRestored,
    SlotNotWritten,
    UnprocessableBody,
)
from app.services.facts import SlotFacts
from app.services.model_service import ModelService
from app.services.served_model import ServedModel
from app.settings import Settings

_ALL_BUSY = NoSlotAvailable()
_NO_NAME = UnprocessableBody("filename: Field required", param="filename")
_NO_SLOT = InvalidRequest("There is no slot 99; there are 32", param="id_slot")
_IN_PARTS = FeatureNotSupported("This model is served by several machines, each of which has a part of a slot")
_REQUEST = [Example(value={"filename": "chat-1.bin"})]
_SAVED = {"id_slot": 1, "filename": "chat-1.bin", "n_saved": 22, "n_written": 45560, "timings": {"save_ms": 1.3}}
_SLOTS = [{"id": 0, "n_ctx": 8192, "speculative": False, "is_processing": False}]


class SlotsController(Controller):
    """Slots, as llama-server has them."""

    tags = ["Operations"]
    opt = {"dialect": "llama.cpp"}

    @get(
        "/slots",
        summary="List the slots",
        operation_class=operation(_SLOTS),
        responses=query_refusals(*LOADED_MODEL, _ALL_BUSY),
    )
    async def list_slots(
        self,
        model_service: NamedDependency[ModelService],
        settings: NamedDependency[Settings],
        model: ModelName = None,
        fail_on_no_slot: Annotated[bool, QueryParameter(description="answer 503 when all slots are at work")] = False,
    ) -> list[Slot]:
        """Say what each slot holds: an answer at work, or what the last one left.

        With `fail_on_no_slot` it is a 503 when all of them are at work.
        """
        try:
            async with model_service.models.using(model, autoload=False) as served:
                slots = await served.slots()
        except NothingLoaded:
            return [Slot.of(SlotFacts(number), EMPTY_CONTEXT) for number in range(settings.max_batch)]
        if fail_on_no_slot and all(slot.processing for slot in slots):
            raise _ALL_BUSY
        return [Slot.of(slot, served.facts.context.tokens) for slot in slots]

    @post(
        "/slots/{id_slot:str}",
        status_code=200,
        summary="Save, restore or erase a slot",
        operation_class=operation(_SAVED),
        responses=body_refusals(
            *LOADED_MODEL, _NO_SLOT, SlotBusy(0), SlotEmpty(0), SlotNotRestored(), SlotNotWritten(), _IN_PARTS
        ),
    )
    async def act_on_slot(
        self,
        id_slot: Annotated[str, PathParameter(description="number of the slot, from 0")],
        action: Annotated[
            Literal["save", "restore", "erase"], QueryParameter(description="what to do with its content")
        ],
        model_service: NamedDependency[ModelService],
        data: Annotated[SlotFile | None, Body(examples=_REQUEST)] = None,
        model: ModelName = None,
    ) -> SlotDone:
        """Save to a file what the last answer left in an idle slot, restore it from there, or erase it."""
        slot, name = _number(id_slot), data.filename if data else ""
        async with model_service.models.using(model, autoload=False) as served:
            if action == "erase":
                return SlotDone(id_slot=slot, n_erased=await served.erase_slot(slot))
            if not name:
                raise _NO_NAME
            return await (_save if action == "save" else _restore)(served, slot, name)


async def _save(served: ServedModel, slot: int, name: str) -> SlotDone:
    began = time.perf_counter()
    tokens, size = await served.save_slot(slot, name)
    timings = SlotTimings(save_ms=_milliseconds(began))
    return SlotDone(id_slot=slot, filename=name, n_saved=tokens, n_written=size, timings=timings)


async def _restore(served: ServedModel, slot: int, name: str) -> SlotDone:
    began = time.perf_counter()
    tokens, size = await served.restore_slot(slot, name)
    timings = SlotTimings(restore_ms=_milliseconds(began))
    return SlotDone(id_slot=slot, filename=name, n_restored=tokens, n_read=size, timings=timings)


def _milliseconds(began: float) -> float:
    return round((time.perf_counter() - began) * 1000, 3)


def _number(slot: str) -> int:
    if not (slot.isascii() and slot.isdecimal() and len(slot) < 10):
        raise InvalidRequest("Invalid slot ID", param="id_slot")
    return int(slot)
