"""Tool choice, as OpenAI's dialects spell it."""

from collections.abc import Collection, Mapping
from typing import Any

import app.services.generation as gen
from app.services.errors import InvalidRequest

OpenAIToolChoice = str | dict[str, Any]

DESCRIPTION = "auto, none, required, a function by name, or allowed_tools with a mode and a list of functions"


def openai_choice(
    choice: OpenAIToolChoice, tools: Collection[str], *, strict: Mapping[str, str], parallel: bool = True
) -> gen.ToolChoice:
    """Translate a choice. `strict` gives the parameter that makes a tool strict, by the tool. Raises InvalidRequest."""
    if isinstance(choice, str):
        return tool_choice(choice, tools, strict=strict, parallel=parallel)
    kind = choice.get("type", "function")
    match kind:
        case "auto" | "none" | "required":
            return tool_choice(kind, tools, strict=strict, parallel=parallel)
        case "function" | "custom":
            return tool_choice("required", tools, names=[_name(choice)], strict=strict, parallel=False)
        case "allowed_tools":
            allowed = choice.get("allowed_tools", choice)
            if isinstance(allowed, dict) and isinstance(allowed.get("tools"), list):
                return _among(allowed["tools"], str(allowed.get("mode", "auto")), tools, strict, parallel)
    raise _no_choice(str(kind))


def _among(
    allowed: list[Any], mode: str, tools: Collection[str], strict: Mapping[str, str], parallel: bool
) -> gen.ToolChoice:
    """Choose among some tools; those of types that are left out do not count, and where no other is, none is called."""
    names = [_name(tool) for tool in allowed if not _is_left_out(tool)]
    if allowed and not names:
        if mode == "required":
            raise InvalidRequest(
                "tool_choice asks for a call of tools that this server leaves out", param="tool_choice"
            )
        return tool_choice("none", tools, strict=strict, parallel=parallel)
    return tool_choice(mode, tools, names=names, strict=strict, parallel=parallel)


def _is_left_out(tool: Any) -> bool:
    return isinstance(tool, dict) and tool.get("type", "function") not in ("function", "custom")


def tool_choice(
    mode: str,
    tools: Collection[str],
    *,
    names: Collection[str] = (),
    strict: Mapping[str, str] | None = None,
    parallel: bool = True,
) -> gen.ToolChoice:
    """Check a choice against the tools that there are. Raises InvalidRequest."""
    if mode not in ("auto", "none", "required"):
        raise _no_choice(mode)
    if mode == "required" and not tools:
        raise InvalidRequest("tool_choice asks for a call, but there are no tools to call", param="tool_choice")
    available = frozenset(tools)
    for name in names:
        if name not in available:
            raise InvalidRequest(f"tool_choice names '{name[:64]}', which is none of the tools", param="tool_choice")
    strict_params = dict(strict or {})
    by_choice = mode == "required" or names or not strict_params
    return gen.ToolChoice(
        mode=mode,  # type: ignore[arg-type]
        names=tuple(names),
        strict=frozenset(strict_params),
        parallel=parallel,
        param="tool_choice" if by_choice else next(iter(strict_params.values())),
    )


def _name(choice: Any) -> str:
    """Read a function's name, which chat completions and Responses have in different places."""
    if isinstance(choice, dict):
        function = choice.get("function") or choice.get("custom") or choice
        name = function.get("name") if isinstance(function, dict) else None
        if isinstance(name, str) and name:
            return name
    raise InvalidRequest("tool_choice does not name a function", param="tool_choice")


def _no_choice(choice: str) -> InvalidRequest:
    return InvalidRequest(
        f"tool_choice '{choice[:64]}' is none that this server knows: {DESCRIPTION}", param="tool_choice"
    )
