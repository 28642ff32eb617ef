"""Loading and unloading a model by name."""

from collections.abc import AsyncIterator
from typing import Annotated, Any

from litestar import Controller, Response, get, post
from litestar.di import NamedDependency
from litestar.openapi.spec import Example
from litestar.params import Body

from app.controllers.answer import PING, sent_event, sse
from app.controllers.openapi import operation
from app.controllers.refusals import body_refusals, refusals
from app.dto.llama.model_events import ModelEvent
from app.dto.tiles.session import LoadRequest, Success, UnloadRequest
from app.services.errors import AppError, FeatureDisabled, ModelAlreadyRunning, ModelNotFound, ModelNotLoaded
from app.services.model_events import Change
from app.services.model_service import ModelService
from app.settings import Settings

_REQUEST = [Example(value={"model": "mlx-community/Qwen3-4B-4bit"})]
_UNKNOWN = ModelNotFound("model 'x' not found; those that are here: 'y'")
_RUNNING = ModelAlreadyRunning()
_NOT_RUNNING = ModelNotLoaded("model is not running", param="model")
_ONE_MODEL = FeatureDisabled("This server serves one model; --models-dir serves several")
_EVENTS = (
    'data: {"model":"qwen3-4b","event":"status_change","data":{"status":"loading","progress":'
    '{"stages":["text_model"],"current":"text_model","value":0.42}}}\n\n'
)


class RouterController(Controller):
    """The served model, or several."""

    path = "/models"
    tags = ["Models"]

    @post(
        "/load",
        status_code=200,
        operation_class=operation({"success": True}),
        responses=body_refusals(_RUNNING, _UNKNOWN),
    )
    async def load_model(
        self, data: Annotated[LoadRequest, Body(examples=_REQUEST)], model_service: NamedDependency[ModelService]
    ) -> Success:
        """Load a model from the folder that TILES_MODEL_CACHE_PATH names; what went wrong stands in `error`.

        With --models-dir the load only begins; /models/sse and /models tell how it goes on.
        """
        if model_service.router is not None:
            await model_service.router.load(data.model)
            return Success(success=True)
        try:
            await model_service.load_configured(data.model)
        except AppError as error:
            return Success(success=False, error=error.message)
        return Success(success=True)

    @post(
        "/unload",
        status_code=200,
        operation_class=operation({"success": True}),
        responses=body_refusals(_NOT_RUNNING, _UNKNOWN),
    )
    async def unload_model(
        self, data: Annotated[UnloadRequest, Body(examples=_REQUEST)], model_service: NamedDependency[ModelService]
    ) -> Success:
        """Take the model out of memory. A load under way is given up.

        Answers under way have ten seconds to end, those that nobody reads have none.
        """
        if model_service.router is not None:
            model_service.router.unload(data.model)
            return Success(success=True)
        if await model_service.unload(data.model):
            return Success(success=True)
        return Success(success=False, error=f"The model '{data.model[:200]}' is not loaded")

    @get(
        "/sse",
        media_type="text/event-stream",
        operation_class=operation(_EVENTS),
        responses=refusals(_ONE_MODEL),
    )
    async def follow_models(
        self, model_service: NamedDependency[ModelService], settings: NamedDependency[Settings]
    ) -> Response[Any]:
        """Tell from now on what happens to the models, as server-sent events. Only with --models-dir."""
        if model_service.router is None:
            raise _ONE_MODEL
        return sse(_spoken(model_service.router.feed.listen(settings.sse_ping_interval)))


async def _spoken(changes: AsyncIterator[Change | None]) -> AsyncIterator[bytes]:
    async for change in changes:
        yield PING if change is None else sent_event(ModelEvent.of(change))
