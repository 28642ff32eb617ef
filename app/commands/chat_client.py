"""A client of the server's chat completions, for the terminal. It needs the standard library only."""

import json
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from typing import Any

from app.commands.server_client import ServerClient, ServerFailure


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


class ChatClient(ServerClient):
    """Asks one server for answers. Every method raises ServerFailure."""

    def answer(self, messages: Sequence[dict[str, str]], **options: Any) -> Generator[TextPiece | Figures, None, None]:
        """Give the answer to a conversation, piece by piece. Closing the generator cancels it.

        `options` are parameters of the request; those that are None are left out.
        """
        body = {"messages": list(messages), "stream": True}
        body |= {name: value for name, value in options.items() if value is not None}
        with closing(self.open()) as connection:
            response = self.request(connection, "POST", "/v1/chat/completions", json.dumps(body).encode())
            yield from _read_stream(response)


def _read_stream(response: HTTPResponse) -> Iterator[TextPiece | Figures]:
    try:
        for line in response:
            if line.startswith(b"data: {"):
                yield from _parse_chunk(json.loads(line.removeprefix(b"data: ")))
    except (OSError, HTTPException) as error:
        raise ServerFailure(f"The answer broke off: {error}") from None


def _parse_chunk(chunk: dict[str, Any]) -> Iterator[TextPiece | Figures]:
    if error := chunk.get("error"):
        raise ServerFailure(str(error.get("message")))
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
