"""HTTP on one connection: uvicorn's, with bounds on all that comes before the gate can judge a request."""

import asyncio
from collections.abc import Iterable
from typing import Any, cast

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from app.connections import Connections, max_connections
from app.request_cycle import BreakableBody, LingeringTransport, UnchunkedSender
from app.request_head import MOST_HEAD_BYTES, MOST_URL_BYTES, RequestHead, head_too_large
from app.reset_probe import ResetProbe
from app.services.errors import AppError, Busy, InvalidHttp, RequestTimeout

_HEAD_SECONDS = 30.0  # for a whole head, from the first byte or the beginning of the connection
_BODY_SECONDS = 60.0  # of silence in the middle of a body
_LAST_SECONDS = 2.0  # in which a client that is still sending can read why it is refused
_LAST_BYTES = 16 * 2**20


class BoundedProtocol(HttpToolsProtocol):
    """What is refused here goes to the gate as a request that has its refusal in its state.

    So it is answered in the one envelope, with an id and a line in the log. Nothing after it is read.
    """

    def __init__(self, connections: Connections, **options: Any) -> None:
        super().__init__(**options)
        self._connections = connections
        self._in_request = False  # a request is being read,
        self._in_body = False  # of which the head has been read
        self._body: BreakableBody | None = None
        self._head = RequestHead()
        self._parsing_body_anew = False  # its head is read a second time
        self._unread_bytes = 0  # since a head or a piece of a body was whole; what they are of is not known yet
        self._deadline: asyncio.TimerHandle | None = None
        self._turned_away = False  # one too many
        self._has_ended = False  # the client has no more to say
        self._probe: ResetProbe | None = None  # then: whether it is still there
        self._refused = False  # nothing more is read,
        self._lingering = False  # and nothing more is written
        self._leaving = False  # the server ends
        self._last_bytes = 0  # that came after the refusal

    # The connection.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection, in the place of an idle one if there are too many."""
        super().connection_made(transport)
        self._connections.mark_idle(self)
        self._expect(_HEAD_SECONDS)
        if len(self.connections) > max_connections():
            self._turned_away = not self._connections.close_longest_idle(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        self._expect(None)
        if self._probe is not None:
            self._probe.cancel()
        self._unset_keepalive_if_required()
        self._connections.mark_busy(self)
        super().connection_lost(exc)

    def close(self) -> None:
        """Hang up."""
        self.transport.close()

    def shutdown(self) -> None:
        """Let the answer under way be the last."""
        self._leaving = True
        super().shutdown()

    def pause_writing(self) -> None:
        """Count a connection whose client does not read as idle."""
        super().pause_writing()
        self._connections.mark_idle(self)

    def resume_writing(self) -> None:
        """It reads again."""
        super().resume_writing()
        if not self._resting():
            self._connections.mark_busy(self)

    def data_received(self, data: bytes) -> None:
        """Read on, unless enough was read."""
        if self._refused:
            self._last_bytes += len(data)
            if self._last_bytes > _LAST_BYTES:
                self.transport.close()
            return
        self._unset_keepalive_if_required()
        self._unread_bytes += len(data)
        try:
            self._feed(data)
            if self._unread_bytes > MOST_HEAD_BYTES:
                raise head_too_large()
        except httptools.HttpParserError as error:
            cause = error.__context__
            self._refuse(cause if isinstance(cause, AppError) else InvalidHttp())
        except AppError as error:
            self._refuse(error)
        else:
            self._wait()

    def _feed(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            try:
                self.parser.feed_data(rest)
                return
            except httptools.HttpParserUpgrade as upgrade:
                rest = self._heed_offer(rest[upgrade.args[0] :])

    def _heed_offer(self, rest: memoryview) -> memoryview:
        """Pass over another protocol's offer, as Java's client makes it; the parser leaves the body that follows."""
        if self._head.framing:
            self.parser = httptools.HttpRequestParser(self)
            self._parsing_body_anew = True
            self.parser.feed_data(b"POST / HTTP/1.1\r\n" + self._head.framing + b"\r\n")
            self._parsing_body_anew = False
        return rest

    def eof_received(self) -> bool:  # type: ignore[override]
        """Go on with the answer for a client that has no more to say, unless it is gone.

        Both look the same, but a write to one that is gone is answered with a reset.
        """
        self._has_ended = True
        if self._lingering or self._resting() or not _can_have_ended_half(self.scope["http_version"], self.transport):
            return False
        self.cycle.keep_alive = False
        self._probe = ResetProbe(self)
        return True

    # What the parser finds.

    def on_message_begin(self) -> None:
        """Begin to count."""
        if self._parsing_body_anew:
            return
        super().on_message_begin()
        self._in_request = True
        self._head = RequestHead()

    def on_url(self, url: bytes) -> None:
        """Take a piece of the URL."""
        if self._parsing_body_anew:
            return
        super().on_url(url)
        self._head.add_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header; a field behind the body is none."""
        if self._in_body:
            return
        self._head.add_header(name, value)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Begin to answer."""
        if self._parsing_body_anew:
            return
        version = self.parser.get_http_version()
        if objection := _objection(version, self.headers, is_one_too_many=self._turned_away):
            self.scope["state"]["refusal"] = objection
        if version == "1.0":
            self.expect_100_continue = False  # which it does not know
        super().on_headers_complete()
        self.cycle.transport = cast("asyncio.Transport", LingeringTransport(self.transport, self._linger))
        self._body = BreakableBody(self.cycle)
        self.cycle.receive = self._body.receive  # type: ignore[method-assign]
        if version == "1.0":
            self.cycle.send = UnchunkedSender(self.cycle).send  # type: ignore[method-assign]
        self._in_body = True
        self._unread_bytes = 0

    def on_body(self, body: bytes) -> None:
        """Take a piece of the body."""
        self._unread_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Be ready for the next request."""
        if self._head.framing and self.parser.should_upgrade():
            return  # its body is still to come
        super().on_message_complete()
        self._in_request = self._in_body = False
        self._unread_bytes = 0

    def on_response_complete(self) -> None:
        """Rest, unless more was asked in the meantime."""
        if self._lingering:
            self.pipeline.clear()
        else:
            super().on_response_complete()
        if self._resting():
            self._connections.mark_idle(self)

    # How long it may take.

    def _resting(self) -> bool:
        """Whether nothing is under way: no whole request is waiting for its answer."""
        return self._in_body or self.cycle is None or self.cycle.response_complete

    def _wait(self) -> None:
        """Give what is still to come its time."""
        if not self._resting():
            self._connections.mark_busy(self)
            self._expect(None)
            return
        self._connections.mark_idle(self)
        if self._in_body:
            self._expect(_BODY_SECONDS)
        elif self._deadline is None:
            self._expect(_HEAD_SECONDS)

    def _expect(self, seconds: float | None) -> None:
        """Set the time until which something has to happen, or none."""
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = None if seconds is None else self.loop.call_later(seconds, self._too_late)

    def _too_late(self) -> None:
        self._deadline = None
        if self._in_body and self.flow.read_paused:  # it is the server that makes the client wait
            self._expect(_BODY_SECONDS)
        elif self._refused or not (self._in_body or self._unread_bytes):
            self.transport.close()
        else:
            self._refuse(RequestTimeout("The request did not come to its end in time"))

    # Refusals.

    def _refuse(self, error: AppError) -> None:
        """Answer the request that is being read with an error, after those before it; the last answer here."""
        self._refused = True
        self._expect(None)
        if not self._in_request:
            self.on_message_begin()  # there is not even a request to refuse
        if self._in_body:
            self._break_off(error)
        else:
            self._turn_away(error)

    def _break_off(self, error: AppError) -> None:
        """Let who reads a body know why there is no more of it."""
        if self.cycle.response_complete:
            self.transport.close()
        elif self._body is not None:
            self.cycle.keep_alive = False
            self._body.end(error)

    def _turn_away(self, error: AppError) -> None:
        """Have a head that was not read to its end answered."""
        has_line, self.url = bool(self.url), plain_url(self.url)
        self.scope = {**self.scope, "state": {**self.app_state, "refusal": error}}
        super().on_headers_complete()
        if not has_line:
            self.scope["method"] = "-"  # the parser knows no word for none
        self.cycle.transport = cast("asyncio.Transport", LingeringTransport(self.transport, self._linger))
        self.cycle.keep_alive = self.cycle.waiting_for_100_continue = self.cycle.more_body = False

    def _linger(self) -> None:
        """Close once the client has had time to read: to close on what it still sends would take the answer from it."""
        if self._leaving or self._has_ended or self.transport.is_closing():
            self.transport.close()
            return
        self._refused = self._lingering = True
        _end_half(self.transport)
        self._expect(_LAST_SECONDS)


def _can_have_ended_half(version: str, transport: asyncio.Transport) -> bool:
    """Whether the other half may go on, and can be written to without harm: not with TLS, nor with HTTP/1.0."""
    return version != "1.0" and transport.can_write_eof()


def _end_half(transport: asyncio.Transport) -> None:
    """Say that nothing more is written, where that can be said: not with TLS."""
    if transport.can_write_eof():
        transport.write_eof()


def plain_url(url: bytes) -> bytes:
    """Give what can be told of a URL that may be torn: its path."""
    try:
        path = httptools.parse_url(url[:MOST_URL_BYTES]).path
        path.decode("ascii")
    except (httptools.HttpParserError, AttributeError, UnicodeDecodeError):
        return b"/"
    return bytes(path)


def _objection(version: str, headers: Iterable[tuple[bytes, bytes]], *, is_one_too_many: bool) -> AppError | None:
    """Say what is wrong with a head that could be read."""
    if version not in {"1.0", "1.1"}:
        return InvalidHttp("This server speaks HTTP/1.1 and HTTP/1.0")
    if version == "1.1" and not any(name == b"host" for name, _ in headers):
        return InvalidHttp("A request of HTTP/1.1 needs a Host header")
    if is_one_too_many:
        return Busy("This server has as many connections as it can hold")
    return None
