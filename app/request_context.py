"""What the layers around the routes, and the routes, tell each other of a request: its ASGI scope's `state`."""

from typing import Any

from litestar.types import Scope

from app.services.errors import AppError
from app.services.stages import Stages


class LogFields(dict[str, Any]):
    """What the log line of a request says, and `stages` of its answer, which it does not."""

    stages: Stages | None = None


def request_id_of(scope: Scope) -> str | None:
    """Give the id of this request, None where no gate gave it one."""
    identity: str | None = scope["state"].get("request_id")
    return identity


def log_fields_of(scope: Scope) -> LogFields:
    """Give what the log line of this request says besides its route and status; to be added to."""
    log_fields: LogFields = scope["state"].setdefault("log_fields", LogFields())
    return log_fields


def end_answer(scope: Scope) -> None:
    """Have an answer counted that is over, and its stages kept, where that is done."""
    for observer in ("usage", "timer"):
        if (one := scope["state"].get(observer)) is not None:
            one.end_answer(log_fields_of(scope))


def refusal_of(scope: Scope) -> AppError | None:
    """Give the error for which the connection itself refuses this request."""
    refusal: AppError | None = scope["state"].get("refusal")
    return refusal
