"""LoRA adapters that lie over the model."""

from typing import Annotated

from litestar import Controller, get, post
from litestar.di import NamedDependency
from litestar.openapi.spec import Example
from litestar.params import Body

from app.controllers.openapi import ModelName, operation
from app.controllers.refusals import LOADED_MODEL, body_refusals, refusals
from app.dto.shared.adapters import AdapterReply, AdapterScale, AdaptersSet, scales
from app.services.errors import InvalidRequest, NothingLoaded
from app.services.model_service import ModelService

_ADAPTER = {"id": 0, "path": "/home/me/adapters/pirate", "scale": 1.0, "task_name": "", "prompt_prefix": ""}
_UNKNOWN = InvalidRequest("lora: there is no adapter 3, only 1", param="lora")
_SCALES = [Example(summary="At half its strength", value=[{"id": 0, "scale": 0.5}])]


class AdaptersController(Controller):
    """Adapters."""

    tags = ["Operations"]
    opt = {"dialect": "llama.cpp"}

    @get(
        "/lora-adapters",
        summary="List LoRA adapters",
        operation_class=operation([_ADAPTER]),
        responses=refusals(*LOADED_MODEL),
    )
    async def list_adapters(
        self, model_service: NamedDependency[ModelService], model: ModelName = None
    ) -> list[AdapterReply]:
        """List the adapters of --lora, with the scale that each has where a request names none."""
        try:
            adapters = model_service.models.find(model).model.adapters()
        except NothingLoaded:
            return []
        return [AdapterReply.of(facts) for facts in adapters]

    @post(
        "/lora-adapters",
        status_code=200,
        summary="Set the scales of LoRA adapters",
        operation_class=operation({"success": True}),
        responses=body_refusals(*LOADED_MODEL, _UNKNOWN),
        takes_list=True,
    )
    async def set_adapters(
        self,
        data: Annotated[list[AdapterScale], Body(examples=_SCALES)],
        model_service: NamedDependency[ModelService],
        model: ModelName = None,
    ) -> AdaptersSet:
        """Set the scale of each adapter; those that are not named are turned off."""
        model_service.models.find(model).model.set_adapters(scales(data))
        return AdaptersSet()
