"""A hub on this machine: what huggingface_hub asks of Hugging Face's, answered over real HTTP, with its troubles."""

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from threading import Event
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from tests.http_server import serving

_LARGE = 4096  # bytes from which a file is in LFS


@dataclass
class Repo:
    """A repo of the hub, and what is wrong with it."""

    files: dict[str, bytes]
    gated: bool = False  # its files, not its list of them
    needs_token: str = ""
    tags: tuple[str, ...] = ("mlx",)
    commit: str = "a" * 40
    checksums: dict[str, str] = field(default_factory=dict)  # wrong ones, by path

    def blob(self, path: str) -> str:
        content = self.files[path]
        own = hashlib.sha256(content) if self.in_lfs(path) else hashlib.sha1(b"blob %d\0" % len(content) + content)
        return self.checksums.get(path, own.hexdigest())

    def in_lfs(self, path: str) -> bool:
        return len(self.files[path]) >= _LARGE

    def sibling(self, path: str) -> dict[str, Any]:
        row: dict[str, Any] = {"rfilename": path, "size": len(self.files[path]), "blobId": "0" * 40}
        if self.in_lfs(path):
            lfs = {"sha256": self.blob(path), "size": len(self.files[path]), "pointerSize": 130}
            return row | {"lfs": lfs}
        return row | {"blobId": self.blob(path)}


@dataclass
class Hub:
    """What the hub has, and how it answers."""

    repos: dict[str, Repo] = field(default_factory=dict)
    url: str = ""
    statuses: dict[str, list[int]] = field(default_factory=dict)  # errors before an answer, by a part of the path
    cut_after: dict[str, list[int]] = field(default_factory=dict)  # bytes after which a connection ends, by file
    hold: dict[str, Event] = field(default_factory=dict)  # what is waited for in the middle of a file, by its path
    begun: dict[str, Event] = field(default_factory=dict)  # set when half of such a file is sent
    requests: list[tuple[str, str, str]] = field(default_factory=list)  # method, path, Range
    tokens: list[str] = field(default_factory=list)  # that came to the hub's own address, not to its storage

    def add(self, name: str, folder: Path, **more: Any) -> Repo:
        files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        self.repos[name] = Repo(files, **more)
        return self.repos[name]

    def pause(self, path: str) -> Event:
        """Have a file stop in its middle, until the event that is given is set."""
        self.hold[path], self.begun[path] = Event(), Event()
        return self.hold[path]

    def ranges(self, path: str) -> list[str]:
        return [asked for _, one, asked in self.requests if one.endswith(path)]


@contextmanager
def running_hub() -> Iterator[Hub]:
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            url = urlsplit(self.path)
            path = unquote(url.path)
            hub.requests.append((self.command, path, self.headers.get("Range", "")))
            if (status := _next(hub.statuses, path)) is not None:
                self._send(status, b"{}", {"Retry-After": "0"})
            elif path == "/api/models":
                self._search(parse_qs(url.query))
            elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(/revision/.*)?", path):
                self._describe(match[1])
            elif match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
                hub.tokens.append(self.headers.get("Authorization", ""))
                self._resolve(match[1], match[3])
            elif match := re.fullmatch(r"/storage/([^/]+/[^/]+)/(.+)", path):
                self._give(hub.repos[match[1]].files[match[2]], match[2])
            else:
                self._send(404, b"{}")

        def _search(self, query: dict[str, list[str]]) -> None:
            rows = [
                {"id": name, "modelId": name, "downloads": 1000 - number, "likes": 3, "gated": repo.gated, "tags": []}
                for number, (name, repo) in enumerate(hub.repos.items())
                if query["search"][0].lower() in name.lower() and set(query["filter"]) <= set(repo.tags)
            ]
            self._json(rows[: int(query["limit"][0])])

        def _describe(self, name: str) -> None:
            if self._lets_in(name):
                repo = hub.repos[name]
                siblings = [repo.sibling(path) for path in sorted(repo.files)]
                self._json({"id": name, "modelId": name, "sha": repo.commit, "tags": [], "siblings": siblings})

        def _lets_in(self, name: str) -> bool:
            repo = hub.repos.get(name)
            if repo is None or (repo.needs_token and self.headers.get("Authorization") != f"Bearer {repo.needs_token}"):
                self._send(401 if repo else 404, b"{}", {"X-Error-Code": "RepoNotFound"})
                return False
            return True

        def _resolve(self, name: str, path: str) -> None:
            if not self._lets_in(name):
                return
            repo = hub.repos[name]
            if repo.gated:
                self._send(403, b"{}", {"X-Error-Code": "GatedRepo"})
            elif path not in repo.files:
                self._send(404, b"{}", {"X-Error-Code": "EntryNotFound"})
            elif repo.in_lfs(path):
                port = hub.url.rpartition(":")[2]  # another host: no token may go there
                self._send(302, b"", {"Location": f"http://localhost:{port}/storage/{name}/{path}"})
            else:
                self._give(repo.files[path], path)

        def _give(self, content: bytes, path: str) -> None:
            start = 0
            if match := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "")):
                start = int(match[1])
            part = content[start:]
            headers = {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"} if start else {}
            cut = _next(hub.cut_after, path)
            half = cut if cut is not None else len(part) // 2
            self._head(206 if start else 200, len(part), headers)
            if self.command == "HEAD":
                return
            self.wfile.write(part[:half])
            if cut is not None:
                self.close_connection = True
                return
            if (held := hub.hold.get(path)) is not None:
                self.wfile.flush()
                hub.begun[path].set()
                held.wait(60)
            self.wfile.write(part[half:])

        def _json(self, value: Any) -> None:
            self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

        def _send(self, status: int, content: bytes, headers: dict[str, str] | None = None) -> None:
            self._head(status, len(content), headers or {})
            if self.command == "GET":
                self.wfile.write(content)

        def _head(self, status: int, length: int, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in ({"Content-Length": str(length)} | headers).items():
                self.send_header(name, value)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

        def handle(self) -> None:
            with suppress(ConnectionError):  # the other side was killed
                super().handle()

    with serving(Handler) as hub.url:
        try:
            yield hub
        finally:
            for event in hub.hold.values():
                event.set()


def _next(table: dict[str, list[int]], path: str) -> int | None:
    """Take the next of what is prepared for a path."""
    for part, values in table.items():
        if part in path and values:
            return values.pop(0)
    return None
