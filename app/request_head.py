"""The head of a request, its line and its headers, within bounds."""

from app.services.errors import AppError, HeadTooLarge, UrlTooLong

MOST_URL_BYTES = 16 * 1024
MOST_HEAD_BYTES = 64 * 1024  # the request's line and its headers; a browser's cookies for localhost can be many
MOST_HEADERS = 256


class RequestHead:
    """Counts what has come of a head. `framing` are its headers that say how long the body is, as they came."""

    def __init__(self) -> None:
        self.framing = b""
        self._url_bytes = 0
        self._header_bytes = 0
        self._headers = 0

    def add_url(self, url: bytes) -> None:
        """Count a piece of the URL. Raises UrlTooLong."""
        self._url_bytes += len(url)
        if self._url_bytes > MOST_URL_BYTES:
            raise UrlTooLong(f"The URL is longer than {MOST_URL_BYTES} bytes")

    def add_header(self, name: bytes, value: bytes) -> None:
        """Count a header. Raises HeadTooLarge."""
        if name.lower() in {b"content-length", b"transfer-encoding"}:
            self.framing += name + b": " + value + b"\r\n"
        self._headers += 1
        self._header_bytes += len(name) + len(value) + len(": \r\n")
        if self._headers > MOST_HEADERS or self._url_bytes + self._header_bytes > MOST_HEAD_BYTES:
            raise head_too_large()


def head_too_large() -> AppError:
    """Make the error for a head of more than is taken."""
    kibibytes = MOST_HEAD_BYTES // 1024
    return HeadTooLarge(f"The request has more than {MOST_HEADERS} headers, or more than {kibibytes} KiB of them")
