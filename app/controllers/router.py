"""Loading and unloading a model by name."""

from collections.abc import AsyncIterator
from typing import Annotated, Any

from litestar import Controller, Response, get, post
from litestar.di import NamedDependency
from litestar.openapi.spec import Example
from litestar.params import Body

from app.controllers.answer import PING, encode_event, sse
from app.controllers.openapi import operation
from app.controllers.refusals import UNKNOWN_MODEL, body_refusals, refusals
from app.dto.llama.model_events import ModelEvent
from app.dto.tiles.session import LoadRequest, Success, UnloadRequest
from app.services.downloads.service import Downloads
from app.services.errors import ModelAlreadyRunning, ModelNotLoaded
from app.services.model_events import Change
from app.services.model_service import ModelService
from app.settings import Settings

_REQUEST = [Example(value={"model": "mlx-community/Qwen3-4B-4bit"})]
_NOT_RUNNING = ModelNotLoaded("model is not running")
_EVENTS = (
    'data: {"model":"qwen3-4b","event":"status_change","data":{"status":"loading","progress":'
    '{"stages":["text_model"],"current":"text_model","value":0.42}}}\n\n'
)


class RouterController(Controller):
    """The served model, or several."""

    path = "/models"
    tags = ["Models"]
    opt = {"dialect": "Models"}

    @post(
        "/load",
        status_code=200,
        summary="Load a model",
        operation_class=operation({"success": True}),
        responses=body_refusals(ModelAlreadyRunning(), UNKNOWN_MODEL),
    )
    async def load_model(
        self, data: Annotated[LoadRequest, Body(examples=_REQUEST)], model_service: NamedDependency[ModelService]
    ) -> Success:
        """Load a model from the folder that TILES_MODEL_CACHE_PATH names; what went wrong stands in `error`.

        With --models-dir the load only begins; /models/sse and /models tell how it goes on.
        """
        return Success.of(await model_service.models.load(data.model))

    @post(
        "/unload",
        status_code=200,
        summary="Unload a model",
        operation_class=operation({"success": True}),
        responses=body_refusals(_NOT_RUNNING, UNKNOWN_MODEL),
    )
    async def unload_model(
        self,
        data: Annotated[UnloadRequest, Body(examples=_REQUEST)],
        model_service: NamedDependency[ModelService],
        downloads: NamedDependency[Downloads],
    ) -> Success:
        """Take the model out of memory. A load under way is given up, and so is a download, which can go on later.

        Answers under way have ten seconds to end, those that nobody reads have none.
        """
        if await downloads.cancel(data.model):
            return Success.of(None)
        return Success.of(await model_service.models.unload(data.model))

    @get(
        "/sse",
        media_type="text/event-stream",
        summary="Follow the status of the models",
        operation_class=operation(_EVENTS),
        responses=refusals(),
    )
    async def follow_models(
        self, model_service: NamedDependency[ModelService], settings: NamedDependency[Settings]
    ) -> Response[Any]:
        """Send what happens to downloads and, with --models-dir, to the models as server-sent events from now on."""
        return sse(_encode_events(model_service.events.subscribe(settings.sse_ping_interval)))


async def _encode_events(changes: AsyncIterator[Change | None]) -> AsyncIterator[bytes]:
    async for change in changes:
        yield PING if change is None else encode_event(ModelEvent.of(change))
