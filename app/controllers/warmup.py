"""Getting a model ready before somebody asks it."""

from typing import Annotated, Any

from litestar import Controller, Request, post
from litestar.di import NamedDependency
from litestar.openapi.spec import Example
from litestar.params import Body

from app.controllers.answer import unless_gone
from app.controllers.openapi import operation
from app.controllers.refusals import MODEL, body_refusals
from app.dto.tiles.warmup import WarmupReply, WarmupRequest
from app.services.model_service import ModelService

_REQUEST = Example(value={"model": "mlx-community/Qwen3-4B-4bit"})


class WarmupController(Controller):
    """The daemon of Tiles calls it when its user starts the server or switches models."""

    tags = ["Tiles"]
    opt = {"dialect": "Tiles"}

    @post(
        "/v1/warmup",
        status_code=200,
        summary="Warm a model up",
        operation_class=operation({"message": "Model loaded", "prefilled": True, "warnings": []}),
        responses=body_refusals(*MODEL),
    )
    async def warm_up(
        self,
        data: Annotated[WarmupRequest, Body(examples=[_REQUEST])],
        request: Request[Any, Any, Any],
        model_service: NamedDependency[ModelService],
    ) -> WarmupReply:
        """Load a model, and compute the system prompt and the tools that `/v1/responses` last got for it.

        The first message then waits for neither. Calling it again costs nothing.
        """
        prefilled, warnings = await unless_gone(model_service.warm_up(data.model), request)
        return WarmupReply(prefilled=prefilled, warnings=warnings)
