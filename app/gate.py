"""The outermost layer of every request: its id, its log line, access rules and CORS, unknown routes included."""

import asyncio
import secrets
import string
import time
from collections.abc import Callable, Mapping
from typing import Any, cast

import msgspec
import structlog
from litestar.enums import HttpMethod, ScopeType
from litestar.handlers import BaseRouteHandler
from litestar.types import ASGIApp, HTTPDisconnectEvent, HTTPScope, Message, Receive, Scope, Send, WebSocketScope

from app.access import Access
from app.dto.shared.errors import error_reply, is_anthropics
from app.request_context import log_fields_of, refusal_of
from app.request_timer import RequestTimer
from app.request_usage import RequestUsage
from app.services.caller import Caller, arrival, caller
from app.services.errors import AppError, ShuttingDown, Unavailable
from app.services.recent_timings import RecentTimings
from app.services.traces import Traces
from app.services.usage_ledger import UsageLedger, client_name

log = structlog.get_logger()

_ID_CHARACTERS = frozenset(string.ascii_letters + string.digits + "-_.:")
_QUIET = frozenset({"/ping", "/health", "/v1/health", "/v1/activity"})  # polled every few seconds
_LONGEST_ROUTE = 200  # characters of it in the log
_EXPOSED = b"X-Request-Id, X-Tiles-Ignored, Retry-After"


class Gate:
    """An ASGI layer; Litestar's own middleware would not see unknown routes."""

    def __init__(
        self,
        app: ASGIApp,
        access: Access,
        count: Callable[[str, int], None],
        methods: Mapping[str, str],
        require_open: Callable[[], None],
        ledger: UsageLedger,
        timings: RecentTimings,
        traces: Traces | None = None,
    ) -> None:
        self._app = app
        self._access = access
        self._count = count  # called with the dialect and the status of every response
        self._methods = methods  # path template to the value of its Allow header
        self._ledger = ledger
        self._timings = timings
        self._traces = traces
        self._require_open = require_open  # raises AppError once the server shuts down

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request, or refuse it."""
        if scope["type"] == ScopeType.WEBSOCKET:
            await self._serve_socket(scope, receive, send)
        else:
            await self._serve(scope, receive, send)

    async def _serve(self, scope: HTTPScope, receive: Receive, send: Send) -> None:
        headers = _headers(scope)
        exchange = _Exchange(scope, send, headers, self._access)
        usage = self._follow_usage(scope, headers)
        timer = self._follow_time(scope, exchange.request_id, headers)
        with structlog.contextvars.bound_contextvars(request_id=exchange.request_id):
            try:
                if (refusal := refusal_of(scope)) is not None:
                    raise refusal
                self._access.check(scope["method"], scope["path"], headers)
                self._require_open()
            except AppError as error:
                await exchange.refuse(error)
            else:
                await self._forward_or_end(scope, receive, exchange)
            finally:
                exchange.log()
                timer.end_answer(log_fields_of(scope))
                self._count(exchange.dialect, exchange.status)
                usage.end_request(log_fields_of(scope), scope["method"], exchange.dialect, exchange.status)

    def _follow_usage(self, scope: Scope, headers: Mapping[str, str]) -> RequestUsage:
        """Begin to count what this request uses, under its client's name and that of its key."""
        client = client_name(headers.get("user-agent", ""))
        usage = RequestUsage(self._ledger, client, self._access.key_name(headers))
        scope["state"]["usage"] = usage
        return usage

    def _follow_time(self, scope: Scope, request_id: str, headers: Mapping[str, str]) -> RequestTimer:
        """Have kept where the time of this request went."""
        timer = RequestTimer(self._timings, self._traces, request_id, scope["path"], headers)
        scope["state"]["timer"] = timer
        return timer

    async def _serve_socket(self, scope: WebSocketScope, receive: Receive, send: Send) -> None:
        """Serve a WebSocket, or refuse to open it by the rules of every request.

        Browsers let any page open one, and have its Origin sent.
        """
        headers = _headers(scope)
        handshake = cast("HTTPScope", {**scope, "type": "http", "method": "GET"})  # with the same state
        exchange = _Exchange(handshake, _handshake_send(send), headers, self._access)
        self._follow_usage(scope, headers)
        self._follow_time(scope, exchange.request_id, headers)
        with structlog.contextvars.bound_contextvars(request_id=exchange.request_id):
            try:
                self._access.check("GET", scope["path"], headers)
                self._require_open()
            except AppError as error:
                await exchange.refuse(error)
            else:
                exchange.status = 101
                await self._app(scope, receive, send)
            finally:
                exchange.dialect = _dialect(scope)
                exchange.log()
                self._count(exchange.dialect, exchange.status)

    async def _forward_or_end(self, scope: HTTPScope, receive: Receive, exchange: "_Exchange") -> None:
        try:
            await self._forward(scope, receive, exchange)
        except asyncio.CancelledError:  # the server ends and does not wait any longer
            if not exchange.status:
                await exchange.refuse(ShuttingDown())

    async def _forward(self, scope: HTTPScope, receive: Receive, exchange: "_Exchange") -> None:
        if exchange.is_preflight:
            await exchange.respond(200, b"", [(b"allow", _METHODS)])
            return
        if scope["method"] == "OPTIONS":
            await self._app(scope, receive, self._with_allow_header(scope, exchange))
            return
        if scope["method"] == "HEAD":
            scope = {**scope, "method": HttpMethod.GET}  # a copy: `_Exchange` drops the body
            receive = exchange.receive_end
        try:
            await self._app(scope, receive, exchange.send)
        finally:
            exchange.dialect = _dialect(scope)

    def _with_allow_header(self, scope: HTTPScope, exchange: "_Exchange") -> Send:
        async def send(message: Message) -> None:
            if message["type"] == "http.response.start" and (
                methods := self._methods.get(scope.get("path_template", ""))
            ):
                others = [(name, value) for name, value in message["headers"] if name != b"allow"]
                message["headers"] = [*others, (b"allow", methods.encode())]
            await exchange.send(message)

        return send


def _handshake_send(send: Send) -> Send:
    """Give what sends a response in the place of an open socket."""

    async def respond(message: Any) -> None:
        await send(cast("Message", {**message, "type": f"websocket.{message['type']}"}))

    return respond


def _dialect(scope: Scope) -> str:
    """Whose clients call the route that answered; a path without a route has none."""
    handler = scope.get("route_handler")
    return str(handler.opt.get("dialect", "none")) if isinstance(handler, BaseRouteHandler) else "none"


def _headers(scope: Scope) -> dict[str, str]:
    """Names in lower case; one that comes twice holds both values, so that neither slips through."""
    headers: dict[str, str] = {}
    for raw_name, raw_value in scope["headers"]:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers


def _caller(scope: HTTPScope, headers: dict[str, str]) -> Caller:
    host, port = scope["client"] or ("", 0)
    key = headers.get("authorization") or headers.get("x-api-key", "")
    return Caller((key, host, headers.get("user-agent", "")), port, "x-conversation-id" in headers)


# Of a preflight, whose response a browser caches for the whole path; a plain OPTIONS is answered by the route itself.
_METHODS = b"GET, HEAD, POST, DELETE, OPTIONS"


class _Exchange:
    """One request and its response."""

    def __init__(self, scope: HTTPScope, send: Send, headers: dict[str, str], access: Access) -> None:
        self.dialect = "none"  # until a route has answered
        self.request_id = _request_id(headers.get("x-request-id", ""))
        self._began = time.perf_counter()
        self._method, self._path = scope["method"], scope["path"]
        self._scope, self._send, self._request_headers = scope, send, headers
        scope["state"]["request_id"] = self.request_id
        self.status = 0
        self._head_is_sent = asyncio.Event()
        origin = headers.get("origin")
        self.is_preflight = self._method == "OPTIONS" and "access-control-request-method" in headers
        caller.set(_caller(scope, headers))
        arrival.set(self._began)
        self._headers = [(b"x-request-id", self.request_id.encode()), (b"vary", b"Origin")]
        if is_anthropics(self._path, headers):
            self._headers.append((b"request-id", self.request_id.encode()))
        if origin is not None and access.allows_origin(origin, headers.get("host", "")):
            self._headers += _cors(origin, headers, preflight=self._method == "OPTIONS")

    async def send(self, message: Message) -> None:
        """Pass an ASGI message on, with the headers of every response and without a body for HEAD."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = [*message["headers"], *self._headers]
        if self._method != "HEAD":
            await self._send(message)
        elif message["type"] == "http.response.start":
            await self._send(message)
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})
            self._head_is_sent.set()

    async def receive_end(self) -> HTTPDisconnectEvent:
        """Tell the route of a HEAD that its client is gone once the head is sent: a stream may have no end."""
        await self._head_is_sent.wait()
        return {"type": "http.disconnect"}

    async def respond(self, status: int, body: bytes, headers: list[tuple[bytes, bytes]]) -> None:
        """Send a whole response that no route made."""
        length = (b"content-length", str(len(body)).encode())
        await self.send({"type": "http.response.start", "status": status, "headers": [length, *headers]})
        await self.send({"type": "http.response.body", "body": body, "more_body": False})

    async def refuse(self, error: AppError) -> None:
        """Send an error in its envelope. A 503 closes the connection, so that the client comes back on a new one."""
        body = msgspec.json.encode(error_reply(self._path, self._request_headers, error, self.request_id))
        headers = [(b"content-type", b"application/json")]
        if isinstance(error, Unavailable):
            headers += [(b"connection", b"close"), (b"retry-after", str(error.retry_after).encode())]
        await self.respond(error.status, body, headers)

    def log(self) -> None:
        """Write the log line of this request, with nothing of its content."""
        line = log.debug if self._path in _QUIET or self._scope["state"].get("quiet") else log.info
        milliseconds = round((time.perf_counter() - self._began) * 1000, 1)
        line(
            "request",
            method=self._method,
            route=self._path[:_LONGEST_ROUTE],
            status=self.status,
            ms=milliseconds,
            **log_fields_of(self._scope),
        )


def _request_id(header: str) -> str:
    """Give the client's own id where it can stand in a log line, else a new one."""
    is_usable = 0 < len(header) <= 128 and _ID_CHARACTERS.issuperset(header)
    return header if is_usable else f"req_{secrets.token_hex(8)}"


def _cors(origin: str, headers: dict[str, str], *, preflight: bool) -> list[tuple[bytes, bytes]]:
    cors = [
        (b"access-control-allow-origin", origin.encode("latin-1")),
        (b"access-control-expose-headers", _EXPOSED),
    ]
    if not preflight:
        return cors
    requested = headers.get("access-control-request-headers", "authorization, content-type, x-api-key")
    cors += [
        (b"access-control-allow-methods", _METHODS),
        (b"access-control-allow-headers", requested.encode("latin-1")),
        (b"access-control-max-age", b"600"),
    ]
    if headers.get("access-control-request-private-network") == "true":
        cors.append((b"access-control-allow-private-network", b"true"))
    return cors
