"""The tools of all MCP servers by their names, and their calls."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import structlog

from app.services.errors import FeatureForbidden, NotFound
from app.services.mcp.client import McpClient, McpError, McpTool
from app.services.mcp.config import McpServer

log = structlog.get_logger()

# The Web UI takes tools for absent when it reads a 403, older ones when they read "not found".
NO_TOOLS = FeatureForbidden("Tools of the server were not found: it was started without --mcp-config")


class McpTools:
    """Its methods are for the event loop. All raise FeatureForbidden where no servers are configured."""

    def __init__(self, servers: Sequence[McpServer], log_folder: Path, *, enabled: bool) -> None:
        self._clients = [McpClient(server, log_folder / f"{server.name}.log") for server in servers]
        self._enabled = enabled

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Start the servers, and end them at the end. One that does not start is tried again when it is needed."""
        starting = asyncio.create_task(self._all())
        try:
            yield
        finally:
            starting.cancel()
            await asyncio.gather(starting, return_exceptions=True)
            await asyncio.gather(*(client.stop() for client in self._clients))

    async def list(self) -> list[McpTool]:
        """Give the tools of the servers that answer; of those with one name the first."""
        if not self._enabled:
            raise NO_TOOLS
        return list((await self._all()).values())

    async def call(self, name: str, arguments: Mapping[str, Any]) -> tuple[str, bool]:
        """Call a tool by its full name. Gives its text, and whether that is an error. Raises NotFound."""
        if not self._enabled:
            raise NO_TOOLS
        tool = (await self._all()).get(name)
        if tool is None:
            raise NotFound(f'unknown tool "{name[:128]}"', param="tool")
        client = next(client for client in self._clients if client.server.name == tool.server)
        began, outcome = time.perf_counter(), "broken off"
        try:
            text, is_error = _text(await client.call(tool.name, arguments))
            outcome = "error" if is_error else "ok"
        except McpError as error:
            text, is_error, outcome = str(error), True, "failed"
        finally:
            milliseconds = round((time.perf_counter() - began) * 1000, 1)
            log.info("tool called", server=tool.server, tool=tool.name, outcome=outcome, ms=milliseconds)
        return text, is_error

    async def _all(self) -> dict[str, McpTool]:
        lists = await asyncio.gather(*map(self._list, self._clients))
        tools: dict[str, McpTool] = {}
        for tool in (tool for some in lists for tool in some):
            tools.setdefault(tool.full_name, tool)
        return tools

    async def _list(self, client: McpClient) -> Sequence[McpTool]:
        try:
            return await client.tools()
        except McpError as error:
            log.warning("MCP server does not answer", server=client.server.name, reason=str(error))
            return ()


def _text(result: Mapping[str, Any]) -> tuple[str, bool]:
    """Give the text parts of a result, and whether it is an error."""
    content = result.get("content")
    parts = content if isinstance(content, list) else []
    texts = [part.get("text") for part in parts if isinstance(part, dict) and part.get("type") == "text"]
    text = "\n".join(one for one in texts if isinstance(one, str))
    if result.get("isError") is True:
        return text or "the tool says that it has failed", True
    return text, False
