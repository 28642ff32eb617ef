"""Requests of the Web UI to MCP servers with a URL, which its page cannot reach itself: they allow no other origin."""

from collections.abc import AsyncIterator, Collection, Iterable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import structlog

from app.services.errors import AppError, FeatureForbidden, ProxyFailed, TargetForbidden, UnprocessableBody
from app.services.mcp.config import web_url

if TYPE_CHECKING:  # without --mcp-config it is not needed, and takes time at the start
    import httpx

    from app.services.public_network import PublicTransport

log = structlog.get_logger()

Headers = Iterable[tuple[bytes, bytes]]
Origin = tuple[str, bytes, int | None]  # scheme, host and port

NO_PROXY = FeatureForbidden("This server fetches nothing for web pages: it was started without --mcp-config")
NO_URL = UnprocessableBody("url: give an http or https URL without a password", param="url")
MARK = b"x-llama-server-proxy-header-"  # before the name of a header that is meant for the other server
# What describes a connection or a browser stays here, whatever is marked.
_NEVER = frozenset(
    {
        *(b"connection", b"keep-alive", b"te", b"trailer", b"transfer-encoding", b"upgrade", b"expect"),
        *(b"host", b"content-length", b"accept-encoding"),  # the proxy's own
        *(b"cookie", b"cookie2", b"set-cookie", b"origin", b"referer", b"forwarded", b"via"),
    }
)
_NEVER_PREFIXES = (b"proxy-", b"sec-", b"x-forwarded-", MARK)
# Of an answer; cookies and CORS of the other server mean nothing here.
_ANSWER_HEADERS = ("content-type", "content-encoding", "mcp-protocol-version", "mcp-session-id", "retry-after")
_MOST_BYTES = 256 * 2**20  # of an answer
_SECONDS = 600.0  # without a byte, as with llama-server
_CONNECT_SECONDS = 10.0


class ProxiedAnswer:
    """An answer of another server, read as it comes. To close it ends the connection and writes the line of the log."""

    def __init__(self, reply: "httpx.Response", line: structlog.stdlib.BoundLogger, most_bytes: int) -> None:
        self.status = reply.status_code
        values = ((name, _ascii(reply.headers.get(name))) for name in _ANSWER_HEADERS)
        self.headers = {"content-type": "application/octet-stream"} | {name: value for name, value in values if value}
        self._reply, self._line, self._most_bytes = reply, line, most_bytes
        self._is_closed = False

    async def read(self) -> AsyncIterator[bytes]:
        """Give the bytes. They end early where the other server breaks off, falls silent or sends too many."""
        import httpx

        length, outcome = 0, "broken off"
        try:
            async for chunk in self._reply.aiter_raw():
                if (length := length + len(chunk)) > self._most_bytes:
                    outcome = "too long"
                    return
                yield chunk
            outcome = "ok"
        except httpx.HTTPError as error:
            outcome = type(error).__name__
        finally:
            await self.close(outcome)

    async def close(self, outcome: str = "broken off") -> None:
        """End it, if it has not ended."""
        if not self._is_closed:
            self._is_closed = True
            self._line.info("proxied", status=self.status, outcome=outcome)
            await self._reply.aclose()


class McpProxy:
    """Passes requests on to public addresses, and to the origins that a file names. On the event loop."""

    def __init__(
        self,
        urls: Sequence[str],
        own_keys: Collection[bytes],
        *,
        enabled: bool,
        seconds: float = _SECONDS,
        most_bytes: int = _MOST_BYTES,
    ) -> None:
        self._urls = urls
        self._own_keys = own_keys
        self._enabled = enabled
        self._timeout = dict.fromkeys(("read", "write", "pool"), seconds) | {"connect": min(seconds, _CONNECT_SECONDS)}
        self._most_bytes = most_bytes

    @cached_property
    def _origins(self) -> set[Origin]:
        return {_origin(web_url(url)) for url in self._urls}

    @cached_property
    def _transport(self) -> "PublicTransport":
        from app.services.public_network import PublicTransport

        return PublicTransport()

    def require_enabled(self) -> None:
        """Raise FeatureForbidden where no servers are configured."""
        if not self._enabled:
            raise NO_PROXY

    async def send(self, method: str, url: str, headers: Headers, body: bytes = b"") -> ProxiedAnswer:
        """Pass a request on, with those of its headers that are marked. The answer has to be closed.

        Redirects are not followed, nor given to the page, whose browser would follow them with its headers. Raises
        UnprocessableBody, TargetForbidden, ProxyFailed.
        """
        import httpx

        target = _target(url)
        line = log.bind(method=method, host=target.netloc.decode("ascii"))
        request = httpx.Request(
            method,
            target,
            headers=[*forwarded(headers, self._own_keys), (b"accept-encoding", b"identity")],
            content=body or None,
            extensions={"timeout": self._timeout, "trusted_host": _origin(target) in self._origins},
        )
        outcome = "broken off"
        try:
            reply = await self._reply(request)
            outcome = ""
        except AppError as error:
            outcome = str(error.code)
            raise
        finally:
            if outcome:
                line.info("proxied", status=0, outcome=outcome)
        answer = ProxiedAnswer(reply, line, self._most_bytes)
        if reply.has_redirect_location:
            await answer.close("redirect")
            raise ProxyFailed("The server redirects, which is not followed: give the address that it redirects to")
        return answer

    async def _reply(self, request: "httpx.Request") -> "httpx.Response":
        import httpx

        from app.services.public_network import HostRefused

        try:
            return await self._transport.handle_async_request(request)
        except HostRefused as error:
            raise TargetForbidden(str(error), param="url") from None
        except (httpx.HTTPError, UnicodeError) as error:
            raise ProxyFailed(f"The server does not answer: {type(error).__name__}") from None


def forwarded(headers: Headers, own_keys: Collection[bytes]) -> list[tuple[bytes, bytes]]:
    """Give the headers for the other server: the marked ones, without their mark.

    The Web UI marks this server's own key, too, since it is among the headers of all its requests.
    """
    pairs = ((name.lower(), value) for name, value in headers)
    marked = [(name.removeprefix(MARK), value) for name, value in pairs if name.startswith(MARK)]
    lists = (value.lower().split(b",") for name, value in marked if name == b"connection")
    hop_by_hop = {name.strip() for names in lists for name in names} | _NEVER | {b""}
    return [
        (name, value)
        for name, value in marked
        if name not in hop_by_hop
        and not name.startswith(_NEVER_PREFIXES)
        and not any(key in value for key in own_keys if key)
    ]


def _target(url: str) -> "httpx.URL":
    try:
        return web_url(url)
    except ValueError:
        raise NO_URL from None


def _origin(url: "httpx.URL") -> Origin:
    return url.scheme, url.raw_host.lower(), url.port


def _ascii(value: str | None) -> str:
    """Give a value that can stand in a header, else nothing."""
    return value if value and value.isascii() and value.isprintable() else ""
