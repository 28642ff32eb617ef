"""What a request and its answer are read from and written to, around uvicorn's request-response cycle."""

import asyncio
from collections.abc import Callable

from uvicorn._types import ASGIReceiveEvent, ASGISendEvent
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from app.services.errors import AppError


class LingeringTransport:
    """The transport of one answer. To close it waits for the client."""

    def __init__(self, transport: asyncio.Transport, linger: Callable[[], None]) -> None:
        self._linger = linger
        self.write = transport.write
        self.is_closing = transport.is_closing

    def close(self) -> None:
        """Hang up soon."""
        self._linger()


class BreakableBody:
    """What is received of one request; it raises what broke it off."""

    def __init__(self, cycle: RequestResponseCycle) -> None:
        self._receive = cycle.receive
        self._event = cycle.message_event
        self._error: AppError | None = None

    async def receive(self) -> ASGIReceiveEvent:
        """Receive a message of ASGI."""
        message = await self._receive()
        if self._error is not None:
            raise self._error
        return message

    def end(self, error: AppError) -> None:
        """Raise this from now on."""
        self._error = error
        self._event.set()


class UnchunkedSender:
    """Sends to a client of HTTP/1.0, which knows no chunks: an answer whose length is not known ends with the
    connection."""

    def __init__(self, cycle: RequestResponseCycle) -> None:
        self._cycle = cycle
        self._send = cycle.send
        self._endless = False

    async def send(self, message: ASGISendEvent) -> None:
        """Send a message of ASGI."""
        if message["type"] == "http.response.start":
            self._endless = all(name.lower() != b"content-length" for name, _ in message["headers"])
            self._cycle.chunked_encoding = False if self._endless else None
        elif self._endless and message["type"] == "http.response.body":
            self._cycle.expected_content_length = len(message["body"])
        await self._send(message)
