"""One MCP server: its process, and what of the protocol its tools need, JSON-RPC in lines."""

import asyncio
import itertools
import json
import os
import signal
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from app import __version__
from app.services import atomic
from app.services.mcp.config import McpServer

log = structlog.get_logger()

_VERSION = "2025-06-18"  # of the protocol; a server may answer with an older one
_MOST_LINE = 16 * 2**20  # bytes
_MOST_PAGES = 64  # of a list of tools
_END_SECONDS = 2.0  # that a server gets to end by itself, and then after SIGTERM
# What the protocol's own clients let a server see of the environment: no keys.
_INHERITED = ("HOME", "LANG", "LOGNAME", "PATH", "SHELL", "TERM", "TMPDIR", "USER")
_UNKNOWN_METHOD = -32601


class McpError(Exception):
    """Why a server has no answer; the message is for people."""


@dataclass(frozen=True, slots=True)
class McpTool:
    """A tool of a server."""

    server: str
    name: str
    description: str
    schema: Mapping[str, Any]  # of its arguments

    @property
    def full_name(self) -> str:
        """The name by which the Web UI calls it, as with llama-server."""
        return f"{self.server}_{self.name}"


class McpClient:
    """Starts a server when it is needed, again if it has ended, and ends it. On the event loop."""

    def __init__(self, server: McpServer, log_path: Path) -> None:
        self.server = server
        self._log_path = log_path  # of what it writes to standard error
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self._replies: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._ids = itertools.count(1)
        self._tools: tuple[McpTool, ...] | None = None
        self._starting = asyncio.Lock()

    async def tools(self) -> tuple[McpTool, ...]:
        """List its tools. Raises McpError."""
        await self._ensure_started()
        if self._tools is None:
            self._tools = await self._list_tools()
        return self._tools

    async def call(self, tool: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Call a tool and give the protocol's result. Raises McpError. To cancel this tells the server."""
        await self._ensure_started()
        return await self._request("tools/call", {"name": tool, "arguments": arguments})

    async def stop(self) -> None:
        """End the server: by closing its input, as the protocol says, then by signals."""
        process, self._process = self._process, None
        if process is None:
            return
        if process.stdin is not None:
            process.stdin.close()
        for number in (None, signal.SIGTERM, signal.SIGKILL):
            if number is not None:
                _signal_group(process, number)
            with suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), _END_SECONDS)
                break
        _signal_group(process, signal.SIGKILL)  # what it has started itself
        if self._reader is not None:
            self._reader.cancel()
            with suppress(asyncio.CancelledError):
                await self._reader

    async def _ensure_started(self) -> None:
        async with self._starting:
            if self._process is not None and self._process.returncode is None and not self._is_silent:
                return
            await self.stop()
            self._tools = None
            await self._start()

    @property
    def _is_silent(self) -> bool:
        """Whether nothing more will come from the process."""
        return self._reader is None or self._reader.done()

    async def _start(self) -> None:
        server = self.server
        env = {name: os.environ[name] for name in _INHERITED if name in os.environ} | dict(server.env)
        try:
            atomic.private_folder(self._log_path.parent)
            with atomic.private_file(self._log_path) as errors:
                process = await asyncio.create_subprocess_exec(
                    server.command,
                    *server.args,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=errors,
                    cwd=server.cwd,
                    env=env,
                    limit=_MOST_LINE,
                    start_new_session=True,
                )
        except OSError as error:
            raise McpError(f"{server.name} cannot be started: {error.strerror or error}") from None
        self._process, self._reader = process, asyncio.create_task(self._read(process))
        client = {"name": "tiles-server", "version": __version__}
        try:
            await self._request("initialize", {"protocolVersion": _VERSION, "capabilities": {}, "clientInfo": client})
            self._send({"method": "notifications/initialized"})
        except BaseException:
            await self.stop()
            raise
        log.info("MCP server started", server=server.name, process=process.pid)

    async def _list_tools(self) -> tuple[McpTool, ...]:
        tools: list[McpTool] = []
        parameters: dict[str, Any] = {}
        for _ in range(_MOST_PAGES):
            page = await self._request("tools/list", parameters)
            tools += [tool for one in page.get("tools", []) if (tool := self._tool(one))]
            if not (cursor := page.get("nextCursor")):
                break
            parameters = {"cursor": cursor}
        return tuple(tools)

    def _tool(self, facts: Any) -> McpTool | None:
        if not isinstance(facts, dict) or not isinstance(facts.get("name"), str) or not facts["name"]:
            return None
        schema = facts.get("inputSchema")
        description = facts.get("description")
        return McpTool(
            self.server.name,
            facts["name"],
            description if isinstance(description, str) else "",
            schema if isinstance(schema, dict) else {},
        )

    async def _request(self, method: str, parameters: dict[str, Any]) -> dict[str, Any]:
        number = next(self._ids)
        reply = self._replies[number] = asyncio.get_running_loop().create_future()
        try:
            self._send({"id": number, "method": method, "params": parameters})
            message = await asyncio.wait_for(reply, self.server.timeout)
        except TimeoutError:
            self._cancel(number, method)
            raise McpError(f"{self.server.name} has not answered within {self.server.timeout:g} seconds") from None
        except asyncio.CancelledError:
            self._cancel(number, method)
            raise
        finally:
            self._replies.pop(number, None)
        if isinstance(error := message.get("error"), dict):
            raise McpError(str(error.get("message", "unknown error")))
        result = message.get("result")
        return result if isinstance(result, dict) else {}

    def _cancel(self, number: int, method: str) -> None:
        if method != "initialize":  # which may not be cancelled
            with suppress(McpError):
                self._send({"method": "notifications/cancelled", "params": {"requestId": number}})

    def _send(self, message: dict[str, Any]) -> None:
        process = self._process
        if process is None or process.stdin is None or process.stdin.is_closing():
            raise McpError(f"{self.server.name} has ended: see {self._log_path}")
        process.stdin.write(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        """Take what the server says, until it ends."""
        assert process.stdout is not None
        try:
            while line := await process.stdout.readline():
                with suppress(ValueError, RecursionError):  # what is no JSON is no message
                    self._take(json.loads(line))
        except (ValueError, OSError):  # a line without end
            log.warning("MCP server sends what is no message", server=self.server.name)
        finally:
            error = McpError(f"{self.server.name} has ended: see {self._log_path}")
            for reply in self._replies.values():
                if not reply.done():
                    reply.set_exception(error)

    def _take(self, message: Any) -> None:
        if not isinstance(message, dict):
            return
        number, method = message.get("id"), message.get("method")
        if method is None:
            reply = self._replies.get(number) if isinstance(number, int) else None
            if reply is not None and not reply.done():
                reply.set_result(message)
        elif number is not None:  # it asks something of the client, which can do nothing but be there
            answer = {"result": {}} if method == "ping" else {"error": {"code": _UNKNOWN_METHOD, "message": "unknown"}}
            with suppress(McpError):
                self._send({"id": number, **answer})
        elif method == "notifications/tools/list_changed":
            self._tools = None


def _signal_group(process: asyncio.subprocess.Process, number: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)
