"""OpenAI's Responses: the tools that a model may use, and by which names it knows them."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from pydantic import Field

from app.dto.openai import custom_tools
from app.dto.openai.custom_tools import CustomFormat
from app.dto.shared.base import Typed
from app.services.errors import InvalidRequest


class ResponsesTool(Typed):
    """A tool that the model may use, or a namespace of tools; those of other types are left out."""

    kinds: ClassVar = frozenset({"function", "custom", "namespace"})

    type: str = Field(
        examples=["function"], description="function, custom or namespace; tools of other types are left out"
    )
    name: str | None = Field(
        default=None, min_length=1, max_length=256, description="name of the tool, or of the namespace"
    )
    description: str = Field(default="", description="what the tool does, for the model")
    parameters: dict[str, Any] = Field(default_factory=dict, description="JSON schema of a function's arguments")
    strict: bool = Field(default=False, description="enforce the schema of the arguments")
    format: CustomFormat | None = Field(
        default=None, description="of a custom tool: text, or a grammar, which is shown to the model and not enforced"
    )
    tools: "list[ResponsesTool]" = Field(default_factory=list, description="the tools of a namespace")

    def echo(self) -> dict[str, Any]:
        """Give the tool as the response repeats it."""
        if not self.is_ours:
            return {"type": self.type} | self.fields
        if self.type == "namespace":
            return self.model_dump(mode="json", include={"type", "name", "description"}) | {
                "tools": [tool.echo() for tool in self.tools]
            }
        if self.type == "custom":
            form = {"type": self.format.type} | self.format.fields if self.format else {"type": "text"}
            return self.model_dump(mode="json", include={"type", "name", "description"}) | {"format": form}
        return self.model_dump(mode="json", exclude={"format", "tools"})


@dataclass(frozen=True, slots=True)
class OfferedTool:
    """A function or a custom tool, by the name that the model knows it by."""

    name: str
    tool: ResponsesTool
    where: str  # in the request
    namespace: str | None = None
    preface: str = ""  # what the first tool of a namespace says of all of it

    @property
    def is_custom(self) -> bool:
        """Whether it is called with free text."""
        return self.tool.type == "custom"

    def to_template(self) -> dict[str, Any]:
        """Give the tool as chat templates read it."""
        tool = self.tool
        description = "\n\n".join(text for text in (self.preface, tool.description) if text)
        if self.is_custom:
            return custom_tools.to_function(self.name, description, tool.format)
        function = {"name": self.name, "description": description, "parameters": tool.parameters}
        return {"type": "function", "function": function}


def flat_name(namespace: str | None, name: str) -> str:
    """Give the name by which a model knows a tool of a namespace."""
    if not namespace:
        return name
    return f"{namespace}{name}" if namespace.endswith(("_", ".", "-", "/")) else f"{namespace}__{name}"


def flat_tools(tools: Iterable[ResponsesTool]) -> list[OfferedTool]:
    """Give what the model may call, in order. Raises InvalidRequest for a tool without a name."""
    return [inner for index, tool in enumerate(tools) for inner in _flat(tool, f"tools.{index}")]


def _flat(tool: ResponsesTool, where: str) -> Iterator[OfferedTool]:
    if not tool.is_ours:
        return
    name = _name(tool, where)
    if tool.type != "namespace":
        yield OfferedTool(name, tool, where)
        return
    preface = tool.description
    for index, inner in enumerate(tool.tools):
        if inner.is_ours and inner.type != "namespace":
            inner_where = f"{where}.tools.{index}"
            yield OfferedTool(flat_name(name, _name(inner, inner_where)), inner, inner_where, name, preface)
            preface = ""


def _name(tool: ResponsesTool, where: str) -> str:
    if tool.name is None:
        raise InvalidRequest(f"a {tool.type} needs 'name'", param=f"{where}.name")
    return tool.name


def flat_choice(choice: str | dict[str, Any], tools: Iterable[OfferedTool]) -> str | dict[str, Any]:
    """Translate a choice of tools to the names that the model knows them by."""
    if not isinstance(choice, dict):
        return choice
    names = _Names(tools)
    if choice.get("type") != "allowed_tools":
        return names.flat(choice)[0]
    inside = choice.get("allowed_tools", choice)
    if not isinstance(inside, dict) or not isinstance(inside.get("tools"), list):
        return choice
    entries = [entry for tool in inside["tools"] for entry in names.flat(tool)]
    return {"type": "allowed_tools", "mode": inside.get("mode", "auto"), "tools": entries}


class _Names:
    """The names of tools, by those that a choice may have for them."""

    def __init__(self, tools: Iterable[OfferedTool]) -> None:
        self._flat: set[str] = set()
        self._spaces: dict[str, list[str]] = {}
        self._bare: dict[str, list[str]] = {}
        for tool in tools:
            self._flat.add(tool.name)
            if tool.namespace is not None:
                self._spaces.setdefault(tool.namespace, []).append(tool.name)
                self._bare.setdefault(tool.tool.name or "", []).append(tool.name)

    def flat(self, entry: Any) -> list[dict[str, Any]]:
        """A namespace is all of its tools; a tool that only one namespace has may be named without it."""
        if not isinstance(entry, dict) or not isinstance(name := entry.get("name"), str):
            return [entry]
        if entry.get("type") == "namespace" and name in self._spaces:
            return [{"type": "function", "name": inner} for inner in self._spaces[name]]
        namespace = entry.get("namespace")
        flat = flat_name(namespace if isinstance(namespace, str) else None, name)
        alike = self._bare.get(name, [])
        if flat not in self._flat and len(alike) == 1:
            flat = alike[0]
        return [entry | {"name": flat}]
