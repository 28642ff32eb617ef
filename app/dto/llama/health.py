"""Whether the server is there, and what it serves."""

from typing import Annotated, Literal

from msgspec import UNSET, Meta, UnsetType

from app.dto.shared.base import Reply
from app.dto.shared.errors import ErrorDetail


class Pong(Reply, kw_only=True):
    """The server is there."""

    message: Annotated[str, Meta(description="always pong")] = "pong"


class Health(Reply, kw_only=True):
    """Whether the server can answer."""

    status: Annotated[Literal["ok", "loading model", "stuck"], Meta(description="ok, or why no answer can be made now")]
    tiles: Annotated[Literal[True], Meta(description="tells this server from others")] = True
    model_loaded: Annotated[bool, Meta(description="whether a model is loaded")]
    model: Annotated[str | None, Meta(description="id of the loaded model, null without one")]
    last_error: Annotated[str | UnsetType, Meta(description="why the last load failed")] = UNSET
    progress: Annotated[float | UnsetType, Meta(description="progress of the load under way, 0 to 1")] = UNSET
    waits_for: Annotated[str | UnsetType, Meta(description="the machine of --hostfile that is waited for")] = UNSET
    error: Annotated[ErrorDetail | UnsetType, Meta(description="what other routes answer with now")] = UNSET
