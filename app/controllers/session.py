"""Sessions of the Tiles CLI."""

from typing import Annotated

from litestar import Controller, post
from litestar.di import NamedDependency
from litestar.openapi.spec import Example
from litestar.params import Body

from app.controllers.openapi import operation
from app.controllers.refusals import LOAD_FAILED, body_refusals
from app.dto.tiles.session import StartReply, StartRequest
from app.services.errors import BrowserPage
from app.services.model_service import ModelService

_REQUEST = Example(
    value={
        "model": "mlx-community/Qwen3-4B-4bit",
        "memory_path": "~/tiles/memory",
        "system_prompt": "You are a helpful assistant.",
        "model_cache_path": "~/models/Qwen3-4B-4bit",
    }
)
_ANSWER = {
    "message": "Model loaded",
    "warnings": ["Memory mode does not work: memory_path is not a folder: /home/ada/notes.md"],
}


class SessionController(Controller):
    """The session."""

    tags = ["Tiles"]
    opt = {"dialect": "Tiles"}

    @post(
        "/start",
        status_code=200,
        summary="Start a session",
        operation_class=operation(_ANSWER),
        responses=body_refusals(LOAD_FAILED, BrowserPage()),
    )
    async def start_session(
        self, data: Annotated[StartRequest, Body(examples=[_REQUEST])], model_service: NamedDependency[ModelService]
    ) -> StartReply:
        """Load a model and begin a session with it; answers once it is loaded and saved. Web pages may not.

        What does not keep the model from answering stands in `warnings`.
        """
        return StartReply(warnings=await model_service.start(data.to_session()))
