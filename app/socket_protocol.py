"""WebSockets: a connection on which HTTP asks for one, and then the socket, which is uvicorn's on websockets."""

import asyncio
from typing import cast

from uvicorn._types import ASGISendEvent
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from app.protocol import BoundedProtocol, plain_url

_PATHS = frozenset({b"/v1/responses", b"/responses"})  # where a WebSocket may be opened


class UpgradingProtocol(BoundedProtocol):
    """HTTP that gives way to a WebSocket where there is one. Any other offer of a protocol is passed over."""

    _has_given_way = False

    def on_headers_complete(self) -> None:
        """Begin to answer, unless a socket is to do that."""
        if self.parser.should_upgrade() and self._should_upgrade():
            HttpToolsProtocol.on_headers_complete(self)
        else:
            super().on_headers_complete()

    def _should_upgrade(self) -> bool:
        """Whether this is a whole request for a socket that there is, with nothing before it that is not answered."""
        is_plain = self.parser.get_method() == b"GET" and self.parser.get_http_version() == "1.1"
        is_bare = not self._head.framing and any(name == b"host" for name, _ in self.headers)
        is_free = not self._turned_away and (self.cycle is None or self.cycle.response_complete)
        return super()._should_upgrade() and is_plain and is_bare and is_free and plain_url(self.url) in _PATHS

    def _heed_offer(self, rest: memoryview) -> memoryview:
        if not self._should_upgrade():
            return super()._heed_offer(rest)
        self._has_given_way = True
        self._expect(None)
        self._connections.mark_busy(self)
        self.handle_websocket_upgrade()
        if rest:
            cast("asyncio.Protocol", self.transport.get_protocol()).data_received(bytes(rest))
        return memoryview(b"")

    def _wait(self) -> None:
        if not self._has_given_way:
            super()._wait()


class SocketProtocol(WebSocketsSansIOProtocol):
    """What the gate refuses to open is answered as HTTP, and that is the whole of it."""

    async def send(self, message: ASGISendEvent) -> None:
        """Send a message of ASGI."""
        await super().send(message)
        if message["type"] == "websocket.http.response.body":
            self.handshake_complete = True  # or uvicorn logs that the handshake was left unfinished
