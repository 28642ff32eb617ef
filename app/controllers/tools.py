"""Tools that the server runs for the Web UI."""

from typing import Annotated, Any

from litestar import Controller, Request, get, post
from litestar.di import NamedDependency
from litestar.openapi.spec import Example
from litestar.params import Body

from app.controllers.answer import unless_gone
from app.controllers.openapi import operation
from app.controllers.refusals import body_refusals, refusals
from app.dto.llama.tools import ToolCallRequest, ToolReply, ToolResult
from app.services.errors import NotFound
from app.services.mcp.tools import NO_TOOLS, McpTools

_TOOL = {
    "display_name": "files_read",
    "tool": "files_read",
    "type": "mcp",
    "permissions": {"write": False},
    "uses_cwd": False,
    "definition": {
        "type": "function",
        "function": {
            "name": "files_read",
            "description": "Read a file",
            "parameters": {"type": "object", "properties": {"path": {"type": "string"}}},
        },
    },
}
_CALL = [Example(value={"tool": "files_read", "params": {"path": "notes.txt"}})]
_UNKNOWN = NotFound('unknown tool "files_reed"', param="tool")


class ToolsController(Controller):
    """Tools of MCP servers, with --mcp-config."""

    tags = ["Disabled"]
    opt = {"dialect": "Web UI"}

    @get("/tools", summary="List the server's tools", operation_class=operation([_TOOL]), responses=refusals(NO_TOOLS))
    async def list_tools(self, mcp_tools: NamedDependency[McpTools]) -> list[ToolReply]:
        """List the tools of the MCP servers of --mcp-config; without it, refuse."""
        return ToolReply.all(await mcp_tools.list())

    @post(
        "/tools",
        status_code=200,
        summary="Run a tool of the server",
        operation_class=operation({"plain_text_response": "43 tiles"}),
        responses=body_refusals(NO_TOOLS, _UNKNOWN),
    )
    async def run_tool(
        self,
        data: Annotated[ToolCallRequest, Body(examples=_CALL)],
        request: Request[Any, Any, Any],
        mcp_tools: NamedDependency[McpTools],
    ) -> ToolResult:
        """Call a tool and give its text. What it says has failed stands in `error`, also with status 200."""
        if data.stream:
            raise NotFound(f'tool "{data.tool[:128]}" does not support stream = true', param="stream")
        text, is_error = await unless_gone(mcp_tools.call(data.tool, data.params), request)
        return ToolResult.of(text, is_error=is_error)
