"""From exceptions to the one error envelope."""

import re
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any

import structlog
from litestar import Request, Response
from litestar.exceptions import HTTPException, ValidationException
from litestar.types import ExceptionHandlersMap

from app.controllers.answer import ClientGone
from app.dto.shared.errors import AnthropicErrorReply, ErrorReply, error_reply
from app.request_context import request_id_of
from app.services.errors import (
    AppError,
    InvalidRequest,
    MethodNotAllowed,
    NotFound,
    ServerError,
    Unavailable,
    UnprocessableBody,
    UnsupportedEncoding,
)

log = structlog.get_logger()

_MOST_CAUSES, _MOST_COMPARED = 3, 64
# How pydantic names the members of a union.
_TYPE = re.compile(r"(?:constrained-)?(?:str|int|float|bool)|(?:list|dict|literal|nullable|function-[a-z]+)\[.*\]")


Refusal = Response[ErrorReply | AnthropicErrorReply]


def say(request: Request[Any, Any, Any], error: AppError, headers: dict[str, str] | None = None) -> Refusal:
    """Answer with an error, in the words of the route's dialect."""
    more = dict(headers or {})
    if isinstance(error, Unavailable):
        more["Retry-After"] = str(error.retry_after)
    if isinstance(error, UnsupportedEncoding):
        more["Accept-Encoding"] = "gzip, deflate"
    reply = error_reply(request.scope["path"], error, request_id_of(request.scope))
    return Response(reply, status_code=error.status, headers=more)


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


def invalid(mistakes: Iterable[Mapping[str, Any]]) -> UnprocessableBody:
    """Name the first mistakes that pydantic found in a body."""
    causes = [(_path(one["loc"]), one["msg"]) for one in islice(mistakes, _MOST_COMPARED)]
    # Of what may be of several types, that which goes deepest is meant: a list with a wrong item is no wrong text.
    deepest = [
        (path, message) for path, message in causes if not any(other.startswith(f"{path}.") for other, _ in causes)
    ]
    return _unprocessable(deepest)


def _path(location: Iterable[str | int]) -> str:
    """Name a field; pydantic names the types that it tried as well, where there are several."""
    return ".".join(str(part) for part in location if not (isinstance(part, str) and _TYPE.fullmatch(part)))


def _validation(error: ValidationException) -> UnprocessableBody:
    causes = [cause for cause in (error.extra or []) if isinstance(cause, dict)]
    return _unprocessable([_field_and_message(cause) for cause in causes])


def _field_and_message(cause: dict[str, Any]) -> tuple[str, str]:
    """Give the field and what is wrong with it; `data` is the body itself, which is not there."""
    key = str(cause.get("key") or "")
    return ("", "The body has to be a JSON object") if key == "data" else (key, str(cause.get("message", "")))


def _unprocessable(causes: list[tuple[str, str]]) -> UnprocessableBody:
    named = [_cause(field[:200], message) for field, message in causes[:_MOST_CAUSES]]
    param = causes[0][0][:200] or None if causes else None
    return UnprocessableBody("; ".join(named) or "The body has to be a JSON object", param=param)


def _cause(field: str, message: str) -> str:
    message = message.removeprefix("Value error, ")[:300]
    return f"{field}: {message}" if field else message


HANDLERS: ExceptionHandlersMap = {
    AppError: on_app_error,
    HTTPException: on_http_error,
    ClientGone: on_client_gone,
    Exception: on_any_error,
}
