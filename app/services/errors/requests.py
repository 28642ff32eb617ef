"""Requests that cannot be read: heads and bodies that are malformed, too large or too slow."""

from app.services.errors.base import AppError, InvalidRequest, UnprocessableBody


class InvalidHttp(InvalidRequest):
    """What was sent is not a request of HTTP/1.1 or HTTP/1.0."""

    code = "invalid_http"
    advice = "Check that the client speaks HTTP, not HTTPS, to this port."
    default_message = "This is no HTTP request that can be read"


class RequestTimeout(AppError):
    """The head or the body of the request did not arrive in time."""

    status = 408
    kind = "invalid_request_error"
    code = "request_timeout"
    advice = "Send the request again, without pauses."


class BodyTooLarge(AppError):
    """The body is larger than `--max-body`, or inflates to more than it."""

    status = 413
    kind = "invalid_request_error"
    code = "body_too_large"
    advice = "Send less, or raise `--max-body`."

    def __init__(self, most_bytes: int) -> None:
        super().__init__(f"The body has more than {most_bytes} bytes; --max-body raises the limit")


class UrlTooLong(AppError):
    """The URL is too long."""

    status = 414
    kind = "invalid_request_error"
    code = "url_too_long"
    advice = "Send a shorter URL."


class UnsupportedEncoding(AppError):
    """The body is compressed with something else than gzip or deflate, or its text is not UTF-8."""

    status = 415
    kind = "invalid_request_error"
    code = "unsupported_encoding"
    advice = "Send UTF-8, as it is or with an encoding that the header `Accept-Encoding` names."

    def __init__(self, encoding: str) -> None:
        super().__init__(
            f"The body's encoding is {encoding[:64]!r}; this server reads UTF-8, as it is or with gzip or deflate"
        )


class HeadTooLarge(AppError):
    """The request has too many headers, or too many bytes of them."""

    status = 431
    kind = "invalid_request_error"
    code = "headers_too_large"
    advice = "Send fewer or shorter headers."


class InvalidJson(UnprocessableBody):
    """The body is not a JSON object in UTF-8."""

    code = "invalid_json"
    advice = "Correct the JSON where `message` says."


class CorruptEncoding(UnprocessableBody):
    """The body is not what its `Content-Encoding` says."""

    code = "encoding"
    advice = "Correct `Content-Encoding`, or leave it out and send the body uncompressed."


class TooDeep(UnprocessableBody):
    """Lists and objects of the body are nested deeper than `--max-nesting`."""

    code = "too_deep"
    advice = "Nest less, or raise `--max-nesting`."


class TooManyValues(UnprocessableBody):
    """The body holds more values than `--max-values`."""

    code = "too_many_values"
    advice = "Send fewer values, or raise `--max-values`."


class TextTooLong(UnprocessableBody):
    """A text has more characters than the server tokenizes in one request."""

    code = "text_too_long"
    advice = "Send a shorter text."


class ReadsTextOnly(InvalidRequest):
    """Images for a model that sees none."""


class InvalidImage(InvalidRequest):
    """An image that cannot be taken: too large, broken, of another format, or not in the request itself."""

    code = "invalid_image"
    advice = "Send a PNG, JPEG, WebP or GIF as base64, or a URL with `--allow-image-urls`; `param` names which it is."
