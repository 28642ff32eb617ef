"""A real web server with images, and a tiles-server that may fetch them although they are on this machine:
`python image_site.py serve …`.
"""

import base64
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler
from typing import Any

from app.commands.cli import main
from app.services import image_urls
from app.services.public_network import Address, PublicTransport
from tests import vision_models
from tests.http_server import serving

PNG = base64.b64decode(vision_models.png(1))
MIB = 2**20
BUDGET = 4 * MIB  # of the server that is started here; a real one has more than a request may fetch


def anywhere(_: Address) -> bool:
    return True


@dataclass
class Site:
    """What a web server has, and what it was asked."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=lambda: {"/a.png": PNG})
    redirects: dict[str, str] = field(default_factory=dict)
    silent: threading.Event = field(default_factory=threading.Event)  # ends the silence of /silent
    requests: list[tuple[str, dict[str, str]]] = field(default_factory=list)  # path, headers


@contextmanager
def running_site() -> Iterator[Site]:
    site = Site()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            site.requests.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
            if self.path == "/silent":
                site.silent.wait(30)
            if self.path == "/endless":
                self._head(200)
                while True:  # until the client leaves
                    self.wfile.write(bytes(MIB))
            if target := site.redirects.get(self.path):
                self._head(302, Location=target)
            elif (content := site.files.get(self.path)) is None:
                self._head(404)
            else:
                self._head(200)
                self.wfile.write(content)

        def _head(self, status: int, **headers: str) -> None:
            self.send_response(status)
            for name, value in ({"Set-Cookie": "seen=1"} | headers).items():
                self.send_header(name, value)
            self.end_headers()

        def handle(self) -> None:
            with suppress(OSError):  # the client has read enough
                super().handle()

        def log_message(self, *_: Any) -> None:
            pass

    with serving(Handler) as site.url:
        try:
            yield site
        finally:
            site.silent.set()


if __name__ == "__main__":
    image_urls.PublicTransport = partial(PublicTransport, anywhere)  # type: ignore[misc,assignment]
    image_urls._of_all_models = image_urls.FetchBudget(BUDGET)
    main(sys.argv[1:])
