"""Tools that the server runs for the Web UI, as llama-server spells them."""

from collections.abc import Iterable
from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, UnsetType
from pydantic import Field

from app.dto.shared.base import Body, Reply
from app.services.mcp.client import McpTool


class ToolFunction(Reply, kw_only=True):
    """What a model has to know of a tool."""

    name: Annotated[str, Meta(description="name of the server and of the tool")]
    description: Annotated[str, Meta(description="what it does, in its server's words")]
    parameters: Annotated[dict[str, Any], Meta(description="JSON schema of its arguments")]


class ToolDefinition(Reply, kw_only=True):
    """A tool as chat completions take it."""

    type: Literal["function"] = "function"
    function: Annotated[ToolFunction, Meta(description="the tool")]


class ToolReply(Reply, kw_only=True):
    """A tool of the server."""

    display_name: Annotated[str, Meta(description="name to show")]
    tool: Annotated[str, Meta(description="name to call it by")]
    type: Literal["mcp"] = "mcp"
    permissions: Annotated[dict[str, bool], Meta(description="what it may do; write is always false, as it is unknown")]
    uses_cwd: Annotated[bool, Meta(description="whether it works in a folder that the page chooses; always false")] = (
        False
    )
    definition: Annotated[ToolDefinition, Meta(description="the tool as chat completions take it")]

    @classmethod
    def all(cls, tools: Iterable[McpTool]) -> "list[ToolReply]":
        """Translate them."""
        return [
            cls(
                display_name=tool.full_name,
                tool=tool.full_name,
                permissions={"write": False},
                definition=ToolDefinition(
                    function=ToolFunction(
                        name=tool.full_name, description=tool.description, parameters=dict(tool.schema)
                    )
                ),
            )
            for tool in tools
        ]


class ToolCallRequest(Body):
    """A call of a tool."""

    tool: str = Field(min_length=1, max_length=256, description="name of the tool", examples=["files_read"])
    params: dict[str, Any] = Field(default_factory=dict, description="its arguments", examples=[{"path": "notes.txt"}])
    stream: bool = Field(default=False, description="is refused when true: no tool here streams what it does")


class ToolResult(Reply, kw_only=True):
    """What a tool answers: a text, or an error."""

    plain_text_response: Annotated[str | UnsetType, Meta(description="the text of its result")] = UNSET
    error: Annotated[str | UnsetType, Meta(description="why there is none")] = UNSET

    @classmethod
    def of(cls, text: str, *, is_error: bool) -> "ToolResult":
        """Translate a result."""
        return cls(error=text) if is_error else cls(plain_text_response=text)
