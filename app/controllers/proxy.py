"""A proxy to MCP servers for the Web UI."""

from typing import Annotated, Any

from litestar import Controller, Request, Response, get, post
from litestar.background_tasks import BackgroundTask
from litestar.di import NamedDependency
from litestar.params import QueryParameter
from litestar.response import Stream

from app.controllers.answer import HEADERS, unless_gone
from app.controllers.openapi import operation
from app.controllers.refusals import body_refusals, refusals
from app.services.errors import ProxyFailed, TargetForbidden
from app.services.mcp.proxy import NO_PROXY, NO_URL, McpProxy, ProxiedAnswer

_ERRORS = (
    NO_PROXY,
    NO_URL,
    TargetForbidden("The host is not on the internet, but on this machine or its network", param="url"),
    ProxyFailed("The server does not answer: ConnectError"),
)
_ANSWER = 'event: message\ndata: {"jsonrpc":"2.0","id":1,"result":{"tools":[]}}\n\n'
# Whatever the other server sends: it is no page of this server.
_HEADERS = HEADERS | {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; sandbox",
    "X-Content-Type-Options": "nosniff",
}

Url = Annotated[str, QueryParameter(description="address on the other server, http or https")]


class ProxyController(Controller):
    """Requests to MCP servers that have a URL, with --mcp-config."""

    tags = ["Disabled"]
    opt = {"dialect": "Web UI"}

    @get(
        "/cors-proxy",
        media_type="*/*",
        summary="Fetch through the proxy",
        operation_class=operation(_ANSWER),
        responses=refusals(*_ERRORS),
    )
    async def fetch_through_proxy(
        self, request: Request[Any, Any, Any], mcp_proxy: NamedDependency[McpProxy], url: Url = ""
    ) -> Response[Any]:
        """Send a GET to a server of --mcp-config, or of the internet, and give its answer; without the flag, refuse.

        Of the headers go those whose name begins with `X-Llama-Server-Proxy-Header-`, without that. The answer has the
        other server's status and body, as they come. Redirects are not followed.
        """
        mcp_proxy.require_enabled()
        return _response(await unless_gone(mcp_proxy.send("GET", url, request.scope["headers"]), request))

    @post(
        "/cors-proxy",
        status_code=200,
        media_type="*/*",
        summary="Send through the proxy",
        operation_class=operation(_ANSWER),
        responses=body_refusals(*_ERRORS),
    )
    async def send_through_proxy(
        self, request: Request[Any, Any, Any], mcp_proxy: NamedDependency[McpProxy], url: Url = ""
    ) -> Response[Any]:
        """Send a POST with this body, as GET does."""
        mcp_proxy.require_enabled()
        body = await request.body()
        return _response(await unless_gone(mcp_proxy.send("POST", url, request.scope["headers"], body), request))


def _response(answer: ProxiedAnswer) -> Response[Any]:
    return Stream(
        answer.read(),
        status_code=answer.status,
        headers=_HEADERS | answer.headers,
        background=BackgroundTask(answer.close),  # also of what was never read, since its page left
    )
