"""The base of all errors that a client may see, and a class for each HTTP status whose messages are free."""

from typing import Any, ClassVar


def first_line(error: BaseException | None) -> str:
    """What an error of a library says, in one line of at most 300 characters."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


class AppError(Exception):
    """An error whose message may be shown to a client.

    Its class says the rest: the HTTP status, `type` and `code` of the envelope, and the row of docs/errors.md, which is
    the docstring and `advice`.
    """

    status: ClassVar[int]
    kind: ClassVar[str]  # `type` of the envelope
    code: ClassVar[str | None] = None
    advice: ClassVar[str]  # what whoever gets it can do
    default_message: ClassVar[str]  # only of a class whose errors mostly say the same
    default_param: ClassVar[str | None] = None

    def __init__(self, message: str | None = None, *, param: str | None = None) -> None:
        self.message = self.default_message if message is None else message
        self.param = self.default_param if param is None else param  # the field or parameter that is wrong
        super().__init__(self.message)

    @property
    def details(self) -> dict[str, Any]:
        """Numbers that stand beside the message in the envelope."""
        return {}


class InvalidRequest(AppError):
    """The request is understood, but cannot be done."""

    status = 400
    kind = "invalid_request_error"
    advice = "Change what `message` and `param` name."


class Unauthorized(AppError):
    """No API key, or a wrong one."""

    status = 401
    kind = "authentication_error"
    code = "invalid_api_key"
    advice = "Send a key of `--api-key` as `Authorization: Bearer …` or `X-Api-Key`."
    default_message = "Invalid API Key"


class Forbidden(AppError):
    """The server does this for nobody, or not for this client."""

    status = 403
    kind = "permission_error"
    advice = "See `message`."


class NotFound(AppError):
    """There is no such route."""

    status = 404
    kind = "not_found_error"
    advice = "Compare the path with `/schema`."


class MethodNotAllowed(AppError):
    """The route exists, but not with this method."""

    status = 405
    kind = "invalid_request_error"
    advice = "Use a method that the header `Allow` names."


class UnprocessableBody(AppError):
    """A field of the body, or a parameter of the URL, is missing or not of its type."""

    status = 422
    kind = "invalid_request_error"
    advice = "Change the field that `param` names."


class ServerError(AppError):
    """Internal error; see the log."""

    status = 500
    kind = "server_error"
    advice = "Find the log line with this `X-Request-Id` and report the bug."
    default_message = "internal error"


class Unavailable(AppError):
    """The server cannot do this now, but may be able to soon."""

    status = 503
    kind = "unavailable_error"
    advice = "Try again after `Retry-After` seconds."

    def __init__(self, message: str | None = None, *, param: str | None = None, retry_after: int = 1) -> None:
        super().__init__(message, param=param)
        self.retry_after = retry_after  # seconds
