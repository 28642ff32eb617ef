"""A client of the server's chat completions, for the terminal. It needs the standard library only."""

import json
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from typing import Any
from urllib.parse import urlsplit

_TIMEOUT = 600.0  # seconds without a byte; the server sends keep-alives far more often


@dataclass(frozen=True, slots=True)
class TextPiece:
    """Some text of an answer, or of the reasoning before it."""

    text: str
    is_reasoning: bool = False


@dataclass(frozen=True, slots=True)
class Figures:
    """How long an answer took, and why it ended."""

    tokens: int
    tokens_per_second: float
    first_token_seconds: float
    prompt_tokens: int
    cached_tokens: int
    finish_reason: str


class ChatError(Exception):
    """The server cannot be reached, or has answered with an error; the message is for people."""


class ChatClient:
    """Talks to one server. Every method raises ChatError."""

    def __init__(self, url: str, key: str | None = None) -> None:
        try:
            parts = urlsplit(url if "//" in url else f"http://{url}")
            self._address = (parts.hostname or "", parts.port)
        except ValueError:
            raise ChatError(f"'{url}' is no address of a server") from None
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ChatError(f"'{url}' is no address of a server")
        self.url = f"{parts.scheme}://{parts.netloc}"
        self._connect = HTTPSConnection if parts.scheme == "https" else HTTPConnection
        self._path = parts.path.rstrip("/").removesuffix("/v1")
        self._headers: dict[str, str | bytes] = {"Content-Type": "application/json"}
        if key:
            self._headers["Authorization"] = f"Bearer {key}".encode("utf-8", "surrogateescape")

    def models(self) -> list[str]:
        """Give the ids of the server's models."""
        with closing(self._open()) as connection:
            content = self._request(connection, "GET", "/v1/models").read()
        try:
            return [str(model["id"]) for model in json.loads(content)["data"]]
        except (ValueError, KeyError, TypeError) as error:
            raise ChatError(f"{self.url} does not list its models") from error

    def answer(self, messages: Sequence[dict[str, str]], **options: Any) -> Generator[TextPiece | Figures, None, None]:
        """Give the answer to a conversation, piece by piece. Closing the generator cancels it.

        `options` are parameters of the request; those that are None are left out.
        """
        body = {"messages": list(messages), "stream": True}
        body |= {name: value for name, value in options.items() if value is not None}
        with closing(self._open()) as connection:
            response = self._request(connection, "POST", "/v1/chat/completions", json.dumps(body).encode())
            yield from _read_stream(response)

    def _open(self) -> HTTPConnection:
        return self._connect(*self._address, timeout=_TIMEOUT)

    def _request(self, connection: HTTPConnection, method: str, route: str, body: bytes | None = None) -> HTTPResponse:
        try:
            connection.request(method, self._path + route, body, self._headers)
            response = connection.getresponse()
        except (OSError, HTTPException) as error:
            raise ChatError(f"No server answers at {self.url} ({error}); `tiles-server --demo` starts one") from None
        if response.status != 200:
            raise ChatError(_error_message(response))
        return response


def _error_message(response: HTTPResponse) -> str:
    try:
        return str(json.loads(response.read())["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"The server answered {response.status} {response.reason}"


def _read_stream(response: HTTPResponse) -> Iterator[TextPiece | Figures]:
    try:
        for line in response:
            if line.startswith(b"data: {"):
                yield from _parse_chunk(json.loads(line.removeprefix(b"data: ")))
    except (OSError, HTTPException) as error:
        raise ChatError(f"The answer broke off: {error}") from None


def _parse_chunk(chunk: dict[str, Any]) -> Iterator[TextPiece | Figures]:
    if error := chunk.get("error"):
        raise ChatError(str(error.get("message")))
    for choice in chunk["choices"]:
        delta = choice["delta"]
        if reasoning := delta.get("reasoning_content"):
            yield TextPiece(reasoning, is_reasoning=True)
        if text := delta.get("content"):
            yield TextPiece(text)
        if choice.get("finish_reason"):
            yield _parse_figures(chunk, choice["finish_reason"])


def _parse_figures(chunk: dict[str, Any], finish_reason: str) -> Figures:
    timings, metrics = chunk.get("timings") or {}, chunk.get("metrics") or {}
    return Figures(
        tokens=timings.get("predicted_n", 0),
        tokens_per_second=timings.get("predicted_per_second") or 0.0,
        first_token_seconds=metrics.get("ttft_ms", 0.0) / 1000,
        prompt_tokens=timings.get("prompt_n", 0) + timings.get("cache_n", 0),
        cached_tokens=timings.get("cache_n", 0),
        finish_reason=finish_reason,
    )
