"""Loading and unloading a model by name."""

from typing import Annotated

from litestar import Controller, post
from litestar.di import NamedDependency
from litestar.openapi.spec import Example
from litestar.params import Body

from app.controllers.openapi import body_refusals, operation
from app.dto.tiles import LoadRequest, Success, UnloadRequest
from app.services.errors import AppError
from app.services.model_service import ModelService

_REQUEST = [Example(value={"model": "mlx-community/Qwen3-4B-4bit"})]


class RouterController(Controller):
    """The served model."""

    path = "/models"
    tags = ["Models"]

    @post("/load", status_code=200, operation_class=operation({"success": True}), responses=body_refusals())
    async def load_model(
        self, data: Annotated[LoadRequest, Body(examples=_REQUEST)], model_service: NamedDependency[ModelService]
    ) -> Success:
        """Load a model from the folder that TILES_MODEL_CACHE_PATH names; what went wrong stands in `error`."""
        try:
            await model_service.load_configured(data.model)
        except AppError as error:
            return Success(success=False, error=error.message)
        return Success(success=True)

    @post("/unload", status_code=200, operation_class=operation({"success": True}), responses=body_refusals())
    async def unload_model(
        self, data: Annotated[UnloadRequest, Body(examples=_REQUEST)], model_service: NamedDependency[ModelService]
    ) -> Success:
        """Take the model out of memory; answers under way are finished first."""
        if await model_service.unload(data.model):
            return Success(success=True)
        return Success(success=False, error=f"The model '{data.model[:200]}' is not loaded")
