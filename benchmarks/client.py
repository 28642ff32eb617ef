"""A client that costs the server's cores little: bytes are kept with their time and understood when all is over."""

import asyncio
import json
import time
from collections.abc import Iterator
from typing import Any, cast

from benchmarks.errors import BenchmarkError
from benchmarks.reply import Reply

HOST = "127.0.0.1"
SECONDS = 180.0  # that a request may take


class Exchange(asyncio.Protocol):
    """A request on a socket of its own, until one side closes it."""

    def __init__(self, request: bytes) -> None:
        self.sent = time.perf_counter()
        self.pieces: list[tuple[float, bytes]] = []
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._request = request
        self._transport: asyncio.WriteTransport | None = None
        self._wanted = 0
        self._heard: asyncio.Future[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.WriteTransport", transport)  # uvloop's is none by inheritance
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self.pieces.append((time.perf_counter(), data))
        if self._heard is not None and len(self.pieces) >= self._wanted and not self._heard.done():
            self._heard.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.closed.done():
            self.closed.set_result(None)

    async def heard(self, pieces: int) -> None:
        """Wait until so many pieces have come. Raises BenchmarkError where the answer ends before."""
        if len(self.pieces) >= pieces:
            return
        self._wanted, self._heard = pieces, asyncio.get_running_loop().create_future()
        await asyncio.wait({self._heard, self.closed}, return_when=asyncio.FIRST_COMPLETED)
        if not self._heard.done():
            raise BenchmarkError(f"an answer ended after {len(self.pieces)} pieces: {self.said()[:1000]!r}")

    def close(self) -> None:
        """Hang up."""
        if self._transport is not None:
            self._transport.close()

    @property
    def status(self) -> int:
        """The status of the answer, 0 where there is none."""
        words = self.pieces[0][1].split(maxsplit=2) if self.pieces else []
        return int(words[1]) if len(words) > 1 else 0

    def said(self) -> bytes:
        """Everything that came."""
        return b"".join(data for _, data in self.pieces)

    def lines(self) -> Iterator[tuple[float, bytes]]:
        """Whole lines, each with the time its last byte came."""
        begun = b""
        for moment, data in self.pieces:
            *whole, begun = (begun + data).split(b"\n")
            for line in whole:
                yield moment, line
        if begun:
            yield self.pieces[-1][0], begun

    def events(self) -> Iterator[tuple[float, dict[str, Any]]]:
        """Server-sent events. Each server writes one whole, so none is split over chunks of the transfer encoding."""
        for moment, line in self.lines():
            if line.startswith(b"data: {"):
                event = json.loads(line[6:])
                if "error" in event:
                    raise BenchmarkError(f"failed: {event['error']}")
                yield moment, event


async def opened(port: int, method: str, path: str, body: bytes = b"", *, keep: bool = False) -> Exchange:
    """Send a request, whose connection is kept after the answer if `keep`. Raises OSError where nobody listens."""
    head = f"{method} {path} HTTP/1.1\r\nHost: {HOST}:{port}\r\nContent-Type: application/json\r\n"
    how = "keep-alive" if keep else "close"
    request = f"{head}Connection: {how}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
    loop = asyncio.get_running_loop()
    _, protocol = await loop.create_connection(lambda: Exchange(request), HOST, port)
    return protocol


async def silent(port: int) -> Exchange:
    """Connect and say nothing."""
    _, protocol = await asyncio.get_running_loop().create_connection(lambda: Exchange(b""), HOST, port)
    return protocol


async def exchange(port: int, method: str, path: str, body: bytes = b"", *, seconds: float = SECONDS) -> Exchange:
    """Send one request and take the whole answer. Raises OSError where nobody listens, TimeoutError."""
    async with asyncio.timeout(seconds):
        done = await opened(port, method, path, body)
        try:
            await done.closed
        finally:
            done.close()
    return done


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
        raise BenchmarkError(f"refused: {done.said()[:1000]!r}")
    return _understood(sent, done)


def _understood(sent: float, done: Exchange) -> Reply:
    usage: dict[str, Any] = {}
    engine_seconds: float | None = None
    shown: list[tuple[float, str]] = []
    for moment, event in done.events():
        usage = event.get("usage") or usage
        engine_seconds = event.get("metrics", {}).get("total_latency_s", engine_seconds)
        for choice in event.get("choices", ()):
            content = said_in(choice)
            # A token that is part of a character shows nothing: then the end is what is seen first.
            if content or (choice.get("finish_reason") and not shown):
                shown.append((moment, content))
    if not shown or not usage:
        raise BenchmarkError(f"an answer without {'text' if usage else 'usage'}: {done.said()[-500:]!r}")
    return Reply(
        sent=sent,
        times=[moment for moment, _ in shown],
        ended=done.pieces[-1][0],
        prompt_tokens=usage["prompt_tokens"],
        cached_tokens=(usage.get("prompt_tokens_details") or {}).get("cached_tokens", 0),
        completion_tokens=usage["completion_tokens"],
        text="".join(content for _, content in shown),
        engine_seconds=engine_seconds,
    )


def said_in(choice: dict[str, Any]) -> str:
    """mlx_lm.server takes all that a model with think tokens says for reasoning until the thought is closed."""
    delta = choice["delta"]
    return "".join(delta.get(name) or "" for name in ("content", "reasoning", "reasoning_content"))
