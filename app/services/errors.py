"""What can go wrong, each with the status and the words a client gets.

AppError
├── InvalidRequest          400  what was asked cannot be done
│   ├── UnsupportedParameter 400  a known parameter that is not honoured
│   ├── NothingLoaded       400  no model is there to answer
│   ├── PromptTooLong       400  more tokens than the context holds
│   └── NoMemory            400  a prompt whose cache has no room beside the model
├── UnprocessableBody       422  the body does not validate
├── Unauthorized            401  no key, or a wrong one
├── Forbidden               403  a host, an origin or a browser page that may not
├── NotFound                404  an unknown route or model
├── RequestTimeout          408  a request that did not come to its end
├── BodyTooLarge            413
├── UrlTooLong              414
├── UnsupportedEncoding     415  a body whose bytes cannot be read as they come
├── HeadTooLarge            431  more headers than a request needs
├── NotSupported            501  what llama-server does and this server does not
├── Unavailable             503  loading, busy or going down; says when to come again
└── ServerError             500  ours; the log says why
    └── LoadFailed          500  a model that does not load; the message is fit for users
"""

from typing import Any, ClassVar


class AppError(Exception):
    """An error whose message may be shown to a client."""

    status: ClassVar[int] = 500
    kind: ClassVar[str] = "server_error"
    code: str | None = None

    def __init__(self, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code or type(self).code

    @property
    def details(self) -> dict[str, Any]:
        """Numbers that stand beside the message in the envelope."""
        return {}


class InvalidRequest(AppError):
    """What was asked cannot be done."""

    status = 400
    kind = "invalid_request_error"


class UnsupportedParameter(InvalidRequest):
    """A parameter that its dialect knows and this server does not honour."""

    code = "unsupported_parameter"

    def __init__(self, param: str, why: str = "is not supported by this server yet") -> None:
        super().__init__(f"'{param}' {why}", param=param)


class NothingLoaded(InvalidRequest):
    """No model is loaded and none is loading."""

    code = "model_not_loaded"

    def __init__(self) -> None:
        super().__init__("No model is loaded. Load one with POST /start, or start the server with --model or --demo.")


class PromptTooLong(InvalidRequest):
    """The prompt has more tokens than the context holds."""

    kind = "exceed_context_size_error"
    code = "context_length_exceeded"

    def __init__(self, prompt_tokens: int, context_length: int, *, at_least: bool = False) -> None:
        tokens = f"{'at least ' if at_least else ''}{prompt_tokens} tokens"
        super().__init__(
            f"The prompt has {tokens} and this model's context holds {context_length}. "
            "Shorten the conversation, or start the server with a larger --context-length where the model allows it."
        )
        self.prompt_tokens = prompt_tokens
        self.context_length = context_length

    @property
    def details(self) -> dict[str, Any]:
        """The two numbers the Web UI shows in its dialog."""
        return {"n_prompt_tokens": self.prompt_tokens, "n_ctx": self.context_length}


class NoMemory(InvalidRequest):
    """The prompt's cache needs more memory than there is beside the model."""

    code = "memory_exceeded"


class UnprocessableBody(AppError):
    """The body is not what the route takes."""

    status = 422
    kind = "invalid_request_error"


class Unauthorized(AppError):
    """No API key, or a wrong one."""

    status = 401
    kind = "authentication_error"
    code = "invalid_api_key"


class Forbidden(AppError):
    """A host, an origin or a browser page that may not do this."""

    status = 403
    kind = "permission_error"


class NotFound(AppError):
    """An unknown route or model."""

    status = 404
    kind = "not_found_error"


class MethodNotAllowed(AppError):
    """A known route, another method."""

    status = 405
    kind = "invalid_request_error"


class RequestTimeout(AppError):
    """A request that did not come to its end in time."""

    status = 408
    kind = "invalid_request_error"
    code = "request_timeout"


class UrlTooLong(AppError):
    """A URL over the limit."""

    status = 414
    kind = "invalid_request_error"
    code = "url_too_long"


class HeadTooLarge(AppError):
    """More headers, or longer ones, than a request may have."""

    status = 431
    kind = "invalid_request_error"
    code = "headers_too_large"


class BodyTooLarge(AppError):
    """A body over the limit, or one that inflates to more than it."""

    status = 413
    kind = "invalid_request_error"
    code = "body_too_large"

    def __init__(self, most_bytes: int) -> None:
        super().__init__(f"The body has more than {most_bytes} bytes; --max-body raises the limit")


class UnsupportedEncoding(AppError):
    """A body that is compressed otherwise than with gzip or deflate, or a text that is not UTF-8."""

    status = 415
    kind = "invalid_request_error"
    code = "unsupported_encoding"

    def __init__(self, encoding: str) -> None:
        super().__init__(
            f"The body's encoding is {encoding[:64]!r}; this server reads UTF-8, as it is or with gzip or deflate"
        )


class NotSupported(AppError):
    """What llama-server does and this server does not."""

    status = 501
    kind = "not_supported_error"


class Unavailable(AppError):
    """Loading, busy or going down."""

    status = 503
    kind = "unavailable_error"

    def __init__(self, message: str, *, retry_after: int = 1, code: str | None = None) -> None:
        super().__init__(message, code=code)
        self.retry_after = retry_after  # seconds


class Busy(Unavailable):
    """More requests wait than may (`--max-queue`); `Retry-After` says for how long a running one has been at it."""

    def __init__(self, waiting: int, *, retry_after: int = 1) -> None:
        super().__init__(
            f"Too many requests are waiting ({waiting}); try again soon", retry_after=retry_after, code="busy"
        )


class ServerError(AppError):
    """Ours; the log says why."""

    def __init__(self, message: str = "internal error", *, code: str | None = None) -> None:
        super().__init__(message, code=code)


class LoadFailed(ServerError):
    """A model that does not load; the message says which file and what is wrong with it."""

    code = "model_load_failed"
