"""From exceptions to the one error envelope."""

from typing import Any

import structlog
from litestar import Request, Response
from litestar.exceptions import HTTPException, ValidationException
from litestar.types import ExceptionHandlersMap

from app.controllers.answer import ClientGone
from app.dto.errors import AnthropicErrorReply, ErrorReply, error_reply
from app.gate import request_id_of
from app.services.errors import (
    AppError,
    BodyTooLarge,
    InvalidRequest,
    MethodNotAllowed,
    NotFound,
    ServerError,
    Unavailable,
    UnprocessableBody,
)

log = structlog.get_logger()

_MOST_CAUSES = 3


Refusal = Response[ErrorReply | AnthropicErrorReply]


def say(request: Request[Any, Any, Any], error: AppError, headers: dict[str, str] | None = None) -> Refusal:
    """Answer with an error, in the words of the route's dialect."""
    wait = {"Retry-After": str(error.retry_after)} if isinstance(error, Unavailable) else {}
    reply = error_reply(request.scope["path"], error, request_id_of(request.scope))
    return Response(reply, status_code=error.status, headers={**(headers or {}), **wait})


def on_app_error(request: Request[Any, Any, Any], error: AppError) -> Refusal:
    """Say what a handler or a service refused."""
    return say(request, error)


def on_http_error(request: Request[Any, Any, Any], error: HTTPException) -> Refusal:
    """Say what Litestar refused."""
    if isinstance(error, ValidationException):
        return say(request, _validation(error))
    if isinstance(error.__cause__, AppError):
        return say(request, error.__cause__)
    path, method = request.scope["path"], request.scope["method"]
    match error.status_code:
        case 404:
            return say(request, NotFound(f"There is no route {path[:200]}"))
        case 405:
            allowed = {"Allow": (error.headers or {}).get("allow", "")}
            return say(request, MethodNotAllowed(f"{path[:200]} does not take {method}"), allowed)
        case 413:
            return say(request, BodyTooLarge("The body is larger than this server takes; --max-body raises the limit"))
        case status if status < 500:
            return say(request, InvalidRequest("The request is not valid"))
    return on_any_error(request, error)


def on_any_error(request: Request[Any, Any, Any], error: Exception) -> Refusal:
    """Say nothing of what went wrong inside; the log says it."""
    log.error("request failed", exc_info=error)
    return say(request, ServerError())


def on_client_gone(_: Request[Any, Any, Any], error: ClientGone) -> Response[None]:
    """Nobody reads this."""
    return Response(None, status_code=499)


def _validation(error: ValidationException) -> UnprocessableBody:
    causes = [cause for cause in (error.extra or []) if isinstance(cause, dict)]
    named = [_cause(cause) for cause in causes[:_MOST_CAUSES]]
    param = _field(causes[0]) if causes else None
    return UnprocessableBody("; ".join(named) or "The body has to be a JSON object", param=param)


def _cause(cause: dict[str, Any]) -> str:
    message = str(cause.get("message", "")).removeprefix("Value error, ")[:300]
    field = _field(cause)
    if field is None:
        return "The body has to be a JSON object" if cause.get("key") == "data" else message
    return f"{field}: {message}"


def _field(cause: dict[str, Any]) -> str | None:
    key = cause.get("key")
    return str(key)[:200] if key and key != "data" else None


HANDLERS: ExceptionHandlersMap = {
    AppError: on_app_error,
    HTTPException: on_http_error,
    ClientGone: on_client_gone,
    Exception: on_any_error,
}
