"""The errors that an operation of the OpenAPI document can answer with, an example each."""

import msgspec
from litestar.openapi.datastructures import ResponseSpec
from litestar.openapi.spec import Example

from app.controllers.openapi import Verbatim
from app.dto.shared.errors import AnthropicErrorReply, ErrorReply
from app.services.errors import (
    AppError,
    BodyTooLarge,
    Forbidden,
    RequestTimeout,
    ServerError,
    Unauthorized,
    UnprocessableBody,
    UnsupportedEncoding,
)

Spelling = type[ErrorReply] | type[AnthropicErrorReply]


def refusals(*errors: AppError, spelling: Spelling = ErrorReply) -> dict[int, ResponseSpec]:
    """Describe the errors of an operation, with an example each."""
    by_status: dict[int, list[AppError]] = {}
    for error in (*errors, Unauthorized("Invalid API Key"), Forbidden("A page of another site may not do this")):
        by_status.setdefault(error.status, []).append(error)
    by_status.setdefault(500, [ServerError()])
    return {status: _refusal(several, spelling) for status, several in by_status.items()}


def body_refusals(*errors: AppError, spelling: Spelling = ErrorReply) -> dict[int, ResponseSpec]:
    """Describe the errors of an operation that takes a body."""
    invalid = UnprocessableBody("messages: Field required", param="messages")
    timeout = RequestTimeout("The body came too slowly")
    unreadable = (timeout, BodyTooLarge(100 * 2**20), UnsupportedEncoding("zstd"))
    return refusals(*errors, invalid, *unreadable, spelling=spelling)


def query_refusals(*errors: AppError, spelling: Spelling = ErrorReply) -> dict[int, ResponseSpec]:
    """Describe the errors of an operation that takes parameters in its address."""
    return refusals(*errors, UnprocessableBody("limit: Expected `int`, got `str`", param="limit"), spelling=spelling)


def _refusal(errors: list[AppError], spelling: Spelling) -> ResponseSpec:
    examples = [
        Example(summary=error.message[:60], value=Verbatim(msgspec.to_builtins(spelling.of(error)))) for error in errors
    ]
    return ResponseSpec(spelling, description=errors[0].kind, generate_examples=False, examples=examples)
