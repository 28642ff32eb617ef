"""What the layers around the routes, and the routes, tell each other of a request: its ASGI scope's `state`."""

from collections.abc import MutableMapping
from typing import Any

from litestar.types import Scope

from app.services.errors import AppError

LogFields = MutableMapping[str, Any]


def request_id_of(scope: Scope) -> str | None:
    """Give the id of this request, None where no gate gave it one."""
    identity: str | None = scope["state"].get("request_id")
    return identity


def log_fields_of(scope: Scope) -> LogFields:
    """Give what the log line of this request says besides its route and status; to be added to."""
    log_fields: LogFields = scope["state"].setdefault("log_fields", {})
    return log_fields


def end_answer(scope: Scope) -> None:
    """Have an answer counted that is over, if what it uses is counted."""
    if (usage := scope["state"].get("usage")) is not None:
        usage.end_answer(log_fields_of(scope))


def refusal_of(scope: Scope) -> AppError | None:
    """Give the error for which the connection itself refuses this request."""
    refusal: AppError | None = scope["state"].get("refusal")
    return refusal
