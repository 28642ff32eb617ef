"""A real server that gives parts of files, as a model hub does."""

from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from typing import Any

from tests.http_server import serving


class Hub:
    """What the server has, how it answers, and how much it has sent."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.redirects: dict[str, str] = {}
        self.without_ranges = False
        self.bytes_sent = 0
        self.url = ""


@contextmanager
def running_hub() -> Iterator[Hub]:
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if (target := hub.redirects.get(self.path)) is not None:
                self._answer(302, {"Location": target})
            elif (content := hub.files.get(self.path)) is None:
                self._answer(404)
            elif hub.without_ranges:
                self._answer(200, content=content)
            else:
                start, stop = self.headers["Range"].removeprefix("bytes=").split("-")
                part = content[int(start) : int(stop) + 1]
                end = int(start) + len(part) - 1
                self._answer(206, {"Content-Range": f"bytes {start}-{end}/{len(content)}"}, part)

        def _answer(self, status: int, headers: dict[str, str] | None = None, content: bytes = b"") -> None:
            hub.bytes_sent += len(content)
            self.send_response(status)
            for name, value in ({"Content-Length": str(len(content))} | (headers or {})).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            pass

    with serving(Handler) as hub.url:
        yield hub
