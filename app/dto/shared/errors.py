"""The one error envelope, and those of Anthropic's and of Ollama's clients."""

from collections.abc import Mapping
from typing import Annotated

from msgspec import UNSET, Meta, UnsetType

from app.dto.shared.base import Reply
from app.services.errors import AppError, PromptTooLong


class ErrorDetail(Reply, kw_only=True):
    """What is wrong."""

    message: Annotated[str, Meta(description="what is wrong, in a sentence")]
    type: Annotated[str, Meta(description="the kind of error; docs/errors.md lists them")]
    param: Annotated[str | None, Meta(description="the parameter that is wrong, null where it is none")]
    code: Annotated[
        str | None, Meta(description="which error of its kind it is, for programs; null where there is only one")
    ]
    n_prompt_tokens: Annotated[int | UnsetType, Meta(description="tokens of a prompt that is too long")] = UNSET
    n_ctx: Annotated[int | UnsetType, Meta(description="tokens that the context holds")] = UNSET


class ErrorReply(Reply, kw_only=True):
    """The envelope of every error."""

    error: Annotated[ErrorDetail, Meta(description="what is wrong")]

    @classmethod
    def of(cls, error: AppError) -> "ErrorReply":
        """Build the reply to an error."""
        detail = ErrorDetail(message=error.message, type=error.kind, param=error.param, code=error.code)
        for name, value in error.details.items():
            setattr(detail, name, value)
        return cls(error=detail)


_ANTHROPIC_KINDS = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    500: "api_error",
    503: "overloaded_error",
}


class AnthropicErrorDetail(Reply, kw_only=True):
    """What is wrong, as Anthropic's API spells it."""

    type: Annotated[str, Meta(description="the kind of error, in Anthropic's words")]
    message: Annotated[str, Meta(description="what is wrong, in a sentence")]
    n_prompt_tokens: Annotated[int | UnsetType, Meta(description="tokens of a prompt that is too long")] = UNSET
    n_ctx: Annotated[int | UnsetType, Meta(description="tokens that the context holds")] = UNSET


class AnthropicErrorReply(Reply, tag_field="type", tag="error", kw_only=True):
    """The envelope of every error that Anthropic's clients get."""

    error: Annotated[AnthropicErrorDetail, Meta(description="what is wrong")]
    request_id: Annotated[str | None, Meta(description="id of the request, the same as X-Request-Id")]

    @classmethod
    def of(cls, error: AppError, request_id: str | None = None) -> "AnthropicErrorReply":
        """Build the reply to an error."""
        detail = AnthropicErrorDetail(
            type=_ANTHROPIC_KINDS.get(error.status, "invalid_request_error"), message=_anthropic_message(error)
        )
        for name, value in error.details.items():
            setattr(detail, name, value)
        return cls(error=detail, request_id=request_id)


def _anthropic_message(error: AppError) -> str:
    """Clients look for Anthropic's own words to know that they have to shorten the conversation."""
    if isinstance(error, PromptTooLong):
        return f"prompt is too long: {error.prompt_tokens} tokens > {error.context_length} maximum"
    if error.param and error.param not in error.message:
        return f"{error.param}: {error.message}"
    return error.message


class OllamaErrorReply(Reply, kw_only=True):
    """The envelope of every error that Ollama's clients get."""

    error: Annotated[str, Meta(description="what is wrong, in a sentence")]

    @classmethod
    def of(cls, error: AppError) -> "OllamaErrorReply":
        """Build the reply to an error."""
        is_named = not error.param or error.param in error.message
        return cls(error=error.message if is_named else f"{error.param}: {error.message}")


EnvelopeReply = ErrorReply | AnthropicErrorReply | OllamaErrorReply


def is_anthropics(path: str, headers: Mapping[str, str]) -> bool:
    """Whether a request comes from a client of Anthropic's; of models both they and OpenAI's ask at one path."""
    if _is_below("/v1/models", path):
        return "anthropic-version" in headers
    return _is_below("/v1/messages", path)


def _is_below(route: str, path: str) -> bool:
    return path == route or path.startswith(f"{route}/")


def error_reply(path: str, headers: Mapping[str, str], error: AppError, request_id: str | None) -> EnvelopeReply:
    """Build the reply to an error, in the dialect of the request."""
    if is_anthropics(path, headers):
        return AnthropicErrorReply.of(error, request_id)
    return OllamaErrorReply.of(error) if _is_below("/api", path) else ErrorReply.of(error)
