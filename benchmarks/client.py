"""A client that costs the server's cores little: bytes are kept with their time and understood when all is over."""

import asyncio
import json
import time
from collections.abc import Iterator
from typing import Any, cast

from benchmarks.errors import BenchmarkError
from benchmarks.reply import Reply

HOST = "127.0.0.1"
SECONDS = 300.0  # that a request may take


class Exchange(asyncio.Protocol):
    """One request on a socket of its own, until the server closes it."""

    def __init__(self, request: bytes) -> None:
        self.pieces: list[tuple[float, bytes]] = []
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._request = request

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast("asyncio.WriteTransport", transport).write(self._request)  # uvloop's is none by inheritance

    def data_received(self, data: bytes) -> None:
        self.pieces.append((time.perf_counter(), data))

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.closed.done():
            self.closed.set_result(None)

    @property
    def status(self) -> int:
        """The status of the answer, 0 where there is none."""
        words = self.pieces[0][1].split(maxsplit=2) if self.pieces else []
        return int(words[1]) if len(words) > 1 else 0

    def lines(self) -> Iterator[tuple[float, bytes]]:
        """Whole lines, each with the time its last byte came."""
        begun = b""
        for moment, data in self.pieces:
            *whole, begun = (begun + data).split(b"\n")
            for line in whole:
                yield moment, line
        if begun:
            yield self.pieces[-1][0], begun


async def exchange(port: int, method: str, path: str, body: bytes = b"", *, seconds: float = SECONDS) -> Exchange:
    """Send one request and take the whole answer. Raises OSError where nobody listens, TimeoutError."""
    head = f"{method} {path} HTTP/1.1\r\nHost: {HOST}:{port}\r\nContent-Type: application/json\r\n"
    request = f"{head}Connection: close\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
    async with asyncio.timeout(seconds):
        _, protocol = await asyncio.get_running_loop().create_connection(lambda: Exchange(request), HOST, port)
        await protocol.closed
    return protocol


async def status(port: int, path: str) -> int | None:
    """Give the status of a GET, None while nobody listens."""
    try:
        return (await exchange(port, "GET", path, seconds=5)).status
    except OSError:
        return None


async def stream_chat(port: int, body: dict[str, Any]) -> Reply:
    """Stream a chat completion. Raises BenchmarkError with what the server said instead."""
    sent = time.perf_counter()
    done = await exchange(port, "POST", "/v1/chat/completions", json.dumps(body).encode())
    if done.status != 200:
        raise BenchmarkError(f"refused: {b''.join(data for _, data in done.pieces)[:1000]!r}")
    return _understood(sent, done)


def _understood(sent: float, done: Exchange) -> Reply:
    """Each server writes an event whole, so that no event is split over two chunks of the transfer encoding."""
    usage: dict[str, Any] = {}
    times: list[float] = []
    text: list[str] = []
    for moment, line in done.lines():
        if not line.startswith(b"data: {"):
            continue
        event = json.loads(line[6:])
        if "error" in event:
            raise BenchmarkError(f"failed: {event['error']}")
        usage = event.get("usage") or usage
        for choice in event.get("choices", ()):
            content = _shown(choice["delta"])
            # A token that is part of a character shows nothing: then the end is what is seen first.
            if content or (choice.get("finish_reason") and not times):
                times.append(moment)
                text.append(content or "")
    return _reply(sent, times, done.pieces[-1][0], usage, "".join(text))


def _shown(delta: dict[str, Any]) -> str:
    """mlx_lm.server takes all that a model with think tokens says for reasoning until the thought is closed."""
    return "".join(delta.get(name) or "" for name in ("content", "reasoning", "reasoning_content"))


def _reply(sent: float, times: list[float], ended: float, usage: dict[str, Any], text: str) -> Reply:
    if not usage or not times:
        raise BenchmarkError("an answer came without usage or without an end")
    details = usage.get("prompt_tokens_details") or {}
    return Reply(
        sent=sent,
        first=times[0],
        last=times[-1],
        ended=ended,
        prompt_tokens=usage["prompt_tokens"],
        cached_tokens=details.get("cached_tokens") or 0,
        completion_tokens=usage["completion_tokens"],
        text=text,
    )
