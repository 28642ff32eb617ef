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
from app.dto.shared.errors import EnvelopeReply, error_reply
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


Refusal = Response[EnvelopeReply]


def error_response(request: Request[Any, Any, Any], error: AppError, headers: dict[str, str] | None = None) -> Refusal:
    """Give an error as the dialect of the route spells it, with the headers that belong to it."""
    headers = dict(headers or {})
    if isinstance(error, Unavailable):
        headers["Retry-After"] = str(error.retry_after)
    if isinstance(error, UnsupportedEncoding):
        headers["Accept-Encoding"] = "gzip, deflate"
    reply = error_reply(request.scope["path"], request.headers, error, request_id_of(request.scope))
    return Response(reply, status_code=error.status, headers=headers)


def on_app_error(request: Request[Any, Any, Any], error: AppError) -> Refusal:
    """Answer with an error that a handler or a service raised.

    Some are raised for many requests: each time would add its frames to the traceback, and the request in them.
    """
    return error_response(request, error.with_traceback(None))


def on_http_error(request: Request[Any, Any, Any], error: HTTPException) -> Refusal:
    """Answer with what Litestar raised, as an error of ours."""
    if isinstance(error, ValidationException):
        return error_response(request, _validation(error))
    if isinstance(error.__cause__, AppError):
        return error_response(request, error.__cause__)
    path, method = request.scope["path"], request.scope["method"]
    match error.status_code:
        case 404:
            return error_response(request, NotFound(f"There is no route {path[:200]}"))
        case 405:
            allowed = {"Allow": (error.headers or {}).get("allow", "")}
            return error_response(request, MethodNotAllowed(f"{path[:200]} does not take {method}"), allowed)
        case status if status < 500:
            return error_response(request, InvalidRequest("The request is not valid"))
    return on_any_error(request, error)


def on_any_error(request: Request[Any, Any, Any], error: Exception) -> Refusal:
    """Log an exception that nobody expected, and answer with a 500 that tells nothing of it."""
    log.error("request failed", exc_info=error)
    return error_response(request, ServerError())


def on_client_gone(_: Request[Any, Any, Any], error: ClientGone) -> Response[None]:
    """End the request of a client that has disconnected, which the log calls a 499."""
    return Response(None, status_code=499)


def invalid_body(mistakes: Iterable[Mapping[str, Any]]) -> UnprocessableBody:
    """Make an error of what pydantic found wrong in a body; it names the first fields."""
    causes = [(_path(mistake["loc"]), _message(mistake)) for mistake in islice(mistakes, _MOST_COMPARED)]
    # Of a field of several types the deepest mistake is meant: a list with a wrong item is not a wrong string.
    deepest = [
        (path, message) for path, message in causes if not any(other.startswith(f"{path}.") for other, _ in causes)
    ]
    return _unprocessable(deepest)


def _path(location: Iterable[str | int]) -> str:
    """Give the path of a field, without the types of a union that pydantic puts into it."""
    return ".".join(str(part) for part in location if not (isinstance(part, str) and _TYPE.fullmatch(part)))


def _message(mistake: Mapping[str, Any]) -> str:
    """Give pydantic's message, but for one that names the class behind a field: it is no client's business."""
    return "Input should be an object" if mistake["type"] == "model_type" else str(mistake["msg"])


def _validation(error: ValidationException) -> UnprocessableBody:
    causes = [cause for cause in (error.extra or []) if isinstance(cause, dict)]
    return _unprocessable([_field_and_message(cause) for cause in causes])


def _field_and_message(cause: dict[str, Any]) -> tuple[str, str]:
    """Give the field and what is wrong with it; `data` is the body itself, which is missing."""
    key = str(cause.get("key") or "")
    return ("", "The body has to be a JSON object") if key == "data" else (key, str(cause.get("message", "")))


def _unprocessable(causes: list[tuple[str, str]]) -> UnprocessableBody:
    messages = [_cause(field[:200], message) for field, message in causes[:_MOST_CAUSES]]
    param = causes[0][0][:200] or None if causes else None
    return UnprocessableBody("; ".join(messages) or "The body has to be a JSON object", param=param)


def _cause(field: str, message: str) -> str:
    message = message.removeprefix("Value error, ")[:300]
    return f"{field}: {message}" if field else message


HANDLERS: ExceptionHandlersMap = {
    AppError: on_app_error,
    HTTPException: on_http_error,
    ClientGone: on_client_gone,
    Exception: on_any_error,
}
