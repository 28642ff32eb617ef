"""OpenAI's Responses: items that are not made here, such as calls of tools that OpenAI runs, as a model can read them.

What is a call becomes a call, what came of it a tool's result, and other text is somebody's words. So a conversation
that was begun elsewhere goes on here.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import app.services.generation as gen
from app.dto.shared.readable import media_in, read, readable
from app.dto.shared.sealed import unseal

_SUMMARIES = frozenset({"compaction", "compaction_summary", "context_compaction"})
_SUMMARY = "This is your summary of the conversation so far, beside the messages of the user:\n\n"

# They say nothing to a model: only their maker can read them, or they are for a server, or what was found is not there.
_SILENT = {
    *_SUMMARIES,
    *("configuration_update", "additional_tools", "mcp_list_tools", "mcp_approval_request", "mcp_approval_response"),
    *("web_search_call", "image_generation_call"),
}
_TELLERS = {"system", "developer"}
_RESULTS = ("output", "outputs", "results", "result", "error", "tools")


def messages(kind: str, fields: Mapping[str, Any]) -> Iterator[gen.Message]:
    """Translate an item to messages; one without text is none."""
    if summary := summary_of(kind, fields):
        yield gen.Message("user", _SUMMARY + summary)
    if kind in _SILENT:
        return
    call_id = fields.get("call_id") or fields.get("id")
    identity = call_id if isinstance(call_id, str) else ""
    result = _result(fields)
    if kind.endswith("_output"):
        if result:
            yield gen.Message("tool", result, tool_call_id=identity)
    elif kind.endswith("_call") or "call_id" in fields:
        if result or "call_id" in fields:
            yield gen.Message(
                "assistant", tool_calls=(gen.ToolCall(0, identity, _name(kind, fields), _arguments(fields)),)
            )
        if result:
            yield gen.Message("tool", result, tool_call_id=identity)
    elif words := read({name: fields[name] for name in ("text", "content", "summary") if name in fields}):
        role = fields.get("role")
        yield gen.Message("user" if role == "user" else "system" if role in _TELLERS else "assistant", words)


def summary_of(kind: str, fields: Mapping[str, Any]) -> str:
    """Give the summary of a conversation that this server made; none of other items, and of another server's."""
    content = fields.get("encrypted_content")
    return unseal(content) if kind in _SUMMARIES and isinstance(content, str) else ""


def silent(kind: str, fields: Mapping[str, Any]) -> tuple[str, ...]:
    """Name what of an item the model does not get to read."""
    if not any(messages(kind, fields)):
        return (kind,)
    return tuple(f"{kind}.{inner}" for inner in media_in(fields))


def _result(fields: Mapping[str, Any]) -> str:
    return "\n".join(text for name in _RESULTS if (text := read(fields.get(name))))


def _name(kind: str, fields: Mapping[str, Any]) -> str:
    name, server = fields.get("name"), fields.get("server_label")
    if not isinstance(name, str) or not name:
        return kind.removesuffix("_call")
    return f"{server}__{name}" if isinstance(server, str) and server else name


def _arguments(fields: Mapping[str, Any]) -> str:
    """The arguments of a call: its own, or all that it says."""
    own = fields.get("arguments")
    if isinstance(own, str):
        return own
    rest = {name: fields[name] for name in readable(fields) if name not in (*_RESULTS, "environment")}
    return json.dumps(own if own is not None else rest, ensure_ascii=False)
