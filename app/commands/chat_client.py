"""A client of the server's chat completions, for the terminal; the standard library is enough for it."""

import json
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from typing import Any
from urllib.parse import urlsplit

_SILENCE = 600.0  # seconds; the server says that it lives far more often


@dataclass(frozen=True, slots=True)
class Said:
    """A piece of an answer."""

    text: str
    thought: bool = False


@dataclass(frozen=True, slots=True)
class Figures:
    """What an answer took."""

    tokens: int
    tokens_per_second: float
    first_token_seconds: float
    prompt_tokens: int
    cached_tokens: int
    reason: str


class Refused(Exception):
    """The server is not there, or has said no; the message is for people."""


class ChatClient:
    """Talks to one server. Everything raises Refused."""

    def __init__(self, url: str, key: str | None = None) -> None:
        try:
            parts = urlsplit(url if "//" in url else f"http://{url}")
            self._place = (parts.hostname or "", parts.port)
        except ValueError:
            raise Refused(f"'{url}' is no address of a server") from None
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise Refused(f"'{url}' is no address of a server")
        self.url = f"{parts.scheme}://{parts.netloc}"
        self._connect = HTTPSConnection if parts.scheme == "https" else HTTPConnection
        self._path = parts.path.rstrip("/").removesuffix("/v1")
        self._headers: dict[str, str | bytes] = {"Content-Type": "application/json"}
        if key:
            self._headers["Authorization"] = f"Bearer {key}".encode("utf-8", "surrogateescape")

    def models(self) -> list[str]:
        """Name the models that can be asked."""
        with closing(self._open()) as connection:
            answer = self._ask(connection, "GET", "/v1/models").read()
        try:
            return [str(model["id"]) for model in json.loads(answer)["data"]]
        except (ValueError, KeyError, TypeError) as error:
            raise Refused(f"{self.url} does not list its models") from error

    def answer(self, messages: Sequence[dict[str, str]], **more: Any) -> Generator[Said | Figures, None, None]:
        """Answer a conversation, piece by piece. An iterator that is closed early ends the answer."""
        given = {name: value for name, value in more.items() if value is not None}
        body = {"messages": list(messages), "stream": True} | given
        with closing(self._open()) as connection:
            answer = self._ask(connection, "POST", "/v1/chat/completions", json.dumps(body).encode())
            yield from _pieces(answer)

    def _open(self) -> HTTPConnection:
        return self._connect(*self._place, timeout=_SILENCE)

    def _ask(self, connection: HTTPConnection, method: str, route: str, body: bytes | None = None) -> HTTPResponse:
        try:
            connection.request(method, self._path + route, body, self._headers)
            answer = connection.getresponse()
        except (OSError, HTTPException) as error:
            raise Refused(f"No server answers at {self.url} ({error}); `tiles-server --demo` starts one") from None
        if answer.status != 200:
            raise Refused(_reason(answer))
        return answer


def _reason(answer: HTTPResponse) -> str:
    try:
        return str(json.loads(answer.read())["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"The server answered {answer.status} {answer.reason}"


def _pieces(answer: HTTPResponse) -> Iterator[Said | Figures]:
    try:
        for line in answer:
            if line.startswith(b"data: {"):
                yield from _of_chunk(json.loads(line.removeprefix(b"data: ")))
    except (OSError, HTTPException) as error:
        raise Refused(f"The answer broke off: {error}") from None


def _of_chunk(chunk: dict[str, Any]) -> Iterator[Said | Figures]:
    if error := chunk.get("error"):
        raise Refused(str(error.get("message")))
    for choice in chunk["choices"]:
        delta = choice["delta"]
        if thought := delta.get("reasoning_content"):
            yield Said(thought, thought=True)
        if text := delta.get("content"):
            yield Said(text)
        if choice.get("finish_reason"):
            yield _figures(chunk, choice["finish_reason"])


def _figures(chunk: dict[str, Any], reason: str) -> Figures:
    timings, metrics = chunk.get("timings") or {}, chunk.get("metrics") or {}
    return Figures(
        tokens=timings.get("predicted_n", 0),
        tokens_per_second=timings.get("predicted_per_second") or 0.0,
        first_token_seconds=metrics.get("ttft_ms", 0.0) / 1000,
        prompt_tokens=timings.get("prompt_n", 0) + timings.get("cache_n", 0),
        cached_tokens=timings.get("cache_n", 0),
        reason=reason,
    )
