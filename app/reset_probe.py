"""Whether a client that has ended its half of a connection is gone, or waits for its answer."""

import asyncio
import socket

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_LOOK_SECONDS = 0.05  # between two looks
_WRITES = frozenset({0, 20, 200, 2000})  # looks at which it is written to; some clients bear five, some proxies wait


class ResetProbe:
    """Looks for a reset until it is cancelled, and hangs up when one has come.

    A write to a client that is gone is answered with one, so it is written to now and then.
    """

    def __init__(self, protocol: HttpToolsProtocol) -> None:
        self._protocol = protocol
        self._looks = 0
        self._timer: asyncio.TimerHandle
        self._wait()

    def cancel(self) -> None:
        """Look no more."""
        self._timer.cancel()

    def _wait(self) -> None:
        self._timer = self._protocol.loop.call_later(_LOOK_SECONDS, self._look)

    def _look(self) -> None:
        protocol = self._protocol
        if protocol.transport.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            protocol.transport.abort()
            return
        if self._looks in _WRITES and not protocol.pipeline:
            self._write()
        self._looks += 1
        self._wait()

    def _write(self) -> None:
        """Write what changes nothing: an informational answer, or, within a stream, a 0 before a chunk's size."""
        protocol = self._protocol
        if not protocol.cycle.response_started:
            protocol.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        elif protocol.cycle.chunked_encoding and not protocol.cycle.response_complete:
            protocol.transport.write(b"0")
