"""The outermost layer of every request: its id, its log line, access rules and CORS, unknown routes included."""

import asyncio
import secrets
import string
import time
from collections.abc import Callable, Mapping

import msgspec
import structlog
from litestar.enums import HttpMethod, ScopeType
from litestar.handlers import HTTPRouteHandler
from litestar.types import ASGIApp, HTTPScope, Message, Receive, Scope, Send

from app.access import Access
from app.dto.shared.errors import error_reply, is_anthropics
from app.request_context import log_fields_of, refusal_of
from app.services.caller import Caller, caller
from app.services.errors import AppError, ShuttingDown, Unavailable

log = structlog.get_logger()

_ID_CHARACTERS = frozenset(string.ascii_letters + string.digits + "-_.:")
_QUIET = frozenset({"/ping", "/health", "/v1/health"})  # asked for every few seconds
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
    ) -> None:
        self._app = app
        self._methods = methods  # of each route, for the Allow header, by its path's template
        self._require_open = require_open  # raises AppError once the server is about to end
        self._count = count  # is told the dialect and the status of every answer
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through or refuse it."""
        if scope["type"] == ScopeType.WEBSOCKET:
            await send({"type": "websocket.close", "code": 1008, "reason": None})
            return
        await self._serve(scope, receive, send)

    async def _serve(self, scope: HTTPScope, receive: Receive, send: Send) -> None:
        headers = _headers(scope)
        exchange = _Exchange(scope, send, headers, self._access)
        with structlog.contextvars.bound_contextvars(request_id=exchange.request_id):
            try:
                if (refusal := refusal_of(scope)) is not None:
                    raise refusal
                self._access.check(scope["method"], scope["path"], headers)
                self._require_open()
            except AppError as error:
                await exchange.refuse(error)
            else:
                await self._pass_or_end(scope, receive, exchange)
            finally:
                exchange.log()
                self._count(exchange.dialect, exchange.status)

    async def _pass_or_end(self, scope: HTTPScope, receive: Receive, exchange: "_Exchange") -> None:
        try:
            await self._pass(scope, receive, exchange)
        except asyncio.CancelledError:  # the server ends and does not wait any longer
            if not exchange.status:
                await exchange.refuse(ShuttingDown())

    async def _pass(self, scope: HTTPScope, receive: Receive, exchange: "_Exchange") -> None:
        if exchange.is_preflight:
            await exchange.answer(200, b"", [(b"allow", _METHODS)])
            return
        if scope["method"] == "OPTIONS":
            await self._app(scope, receive, self._tell_methods(scope, exchange))
            return
        if scope["method"] == "HEAD":
            scope = {**scope, "method": HttpMethod.GET}  # a copy: the server still has to know; the body is dropped
        try:
            await self._app(scope, receive, exchange.send)
        finally:
            exchange.dialect = _dialect(scope)

    def _tell_methods(self, scope: HTTPScope, exchange: "_Exchange") -> Send:
        async def send(message: Message) -> None:
            if message["type"] == "http.response.start" and (
                methods := self._methods.get(scope.get("path_template", ""))
            ):
                others = [(name, value) for name, value in message["headers"] if name != b"allow"]
                message["headers"] = [*others, (b"allow", methods.encode())]
            await exchange.send(message)

        return send


def _dialect(scope: HTTPScope) -> str:
    """Whose clients call the route that answered; a path without a route has none."""
    handler = scope.get("route_handler")
    return str(handler.opt.get("dialect", "none")) if isinstance(handler, HTTPRouteHandler) else "none"


def _headers(scope: HTTPScope) -> dict[str, str]:
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


# Of a preflight, whose answer a browser keeps for all of a path; a plain OPTIONS is answered by the route itself.
_METHODS = b"GET, HEAD, POST, DELETE, OPTIONS"


class _Exchange:
    """One request and its answer."""

    def __init__(self, scope: HTTPScope, send: Send, headers: dict[str, str], access: Access) -> None:
        self.dialect = "none"  # until a route has answered
        self.request_id = _request_id(headers.get("x-request-id", ""))
        self._began = time.perf_counter()
        self._method, self._path = scope["method"], scope["path"]
        self._scope, self._send = scope, send
        scope["state"]["request_id"] = self.request_id
        self.status = 0
        origin = headers.get("origin")
        allowed = origin is not None and access.allows_origin(origin, headers.get("host", ""))
        self.is_preflight = self._method == "OPTIONS" and "access-control-request-method" in headers
        caller.set(_caller(scope, headers))
        self._extra = [(b"x-request-id", self.request_id.encode()), (b"vary", b"Origin")]
        if is_anthropics(self._path):
            self._extra.append((b"request-id", self.request_id.encode()))
        if allowed and origin is not None:
            self._extra += _cors(origin, headers, preflight=self._method == "OPTIONS")

    async def send(self, message: Message) -> None:
        """Pass an ASGI message on, with what every answer carries."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = [*message["headers"], *self._extra]
        elif message["type"] == "http.response.body" and self._method == "HEAD":
            message["body"] = b""
        await self._send(message)

    async def answer(self, status: int, body: bytes, headers: list[tuple[bytes, bytes]]) -> None:
        """Answer by itself."""
        length = (b"content-length", str(len(body)).encode())
        await self.send({"type": "http.response.start", "status": status, "headers": [length, *headers]})
        await self.send({"type": "http.response.body", "body": body, "more_body": False})

    async def refuse(self, error: AppError) -> None:
        """Answer with the envelope. Who comes while the server ends has to come back on a new connection."""
        body = msgspec.json.encode(error_reply(self._path, error, self.request_id))
        headers = [(b"content-type", b"application/json")]
        if isinstance(error, Unavailable):
            headers += [(b"connection", b"close"), (b"retry-after", str(error.retry_after).encode())]
        await self.answer(error.status, body, headers)

    def log(self) -> None:
        """Write the line of this request; never what was said in it."""
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


def _request_id(given: str) -> str:
    usable = 0 < len(given) <= 128 and _ID_CHARACTERS.issuperset(given)
    return given if usable else f"req_{secrets.token_hex(8)}"


def _cors(origin: str, headers: dict[str, str], *, preflight: bool) -> list[tuple[bytes, bytes]]:
    echoed = [
        (b"access-control-allow-origin", origin.encode("latin-1")),
        (b"access-control-expose-headers", _EXPOSED),
    ]
    if not preflight:
        return echoed
    wanted = headers.get("access-control-request-headers", "authorization, content-type, x-api-key")
    echoed += [
        (b"access-control-allow-methods", _METHODS),
        (b"access-control-allow-headers", wanted.encode("latin-1")),
        (b"access-control-max-age", b"600"),
    ]
    if headers.get("access-control-request-private-network") == "true":
        echoed.append((b"access-control-allow-private-network", b"true"))
    return echoed
