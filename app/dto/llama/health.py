"""Whether the server lives and what it serves."""

from typing import Literal

from msgspec import UNSET, UnsetType

from app.dto.shared.base import Reply
from app.dto.shared.errors import ErrorDetail


class Pong(Reply, kw_only=True):
    """The server is there."""

    message: str = "pong"


class Health(Reply, kw_only=True):
    """Whether the server can answer."""

    status: Literal["ok", "loading model", "stuck"]
    tiles: Literal[True] = True
    model_loaded: bool
    model: str | None
    last_error: str | UnsetType = UNSET  # why the last load failed
    progress: float | UnsetType = UNSET  # of the load under way, 0 to 1
    error: ErrorDetail | UnsetType = UNSET
