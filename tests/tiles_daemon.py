"""A stand-in for Tiles' daemon: a real server, which knows where models lie and what the configuration says."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.http_server import serving


class TilesDaemon:
    """What it knows may be changed while it runs."""

    def __init__(self, models: dict[str, Path], llama: dict[str, Any] | None) -> None:
        self.models = models
        self.llama = llama  # None: it has no configuration to give
        self.names: list[str] = []  # of models that it was asked for
        self.url = ""

    def answer(self, target: str) -> tuple[int, str]:
        url = urlsplit(target)
        if url.path == "/config" and self.llama is not None:
            return 200, json.dumps({"data": {"path": ""}, "llama": self.llama})
        if url.path == "/model-cache-path":
            name = parse_qs(url.query)["model_name"][0]
            self.names.append(name)
            if name in self.models:
                return 200, str(self.models[name])
        return 404, "not found"


@contextmanager
def tiles_daemon(models: dict[str, Path] | None = None, llama: dict[str, Any] | None = None) -> Iterator[TilesDaemon]:
    daemon = TilesDaemon(models or {}, llama)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, text = daemon.answer(self.path)
            self.send_response(status)
            self.send_header("Content-Type", "text/plain; charset=utf-8")
            self.send_header("Content-Length", str(len(text.encode())))
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: Any) -> None:
            pass

    with serving(Handler) as daemon.url:
        yield daemon
