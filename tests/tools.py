"""Tools in the words of each dialect."""

from typing import Any

SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 8}, "days": {"type": "integer", "minimum": 0, "maximum": 9}},
    "required": ["city"],
    "additionalProperties": False,
}

NAMES = ("get_weather", "get_time")

CHAT_TOOLS = [{"type": "function", "function": {"name": name, "parameters": SCHEMA}} for name in NAMES]

RESPONSES_TOOLS = [{"type": "function", "name": name, "parameters": SCHEMA} for name in NAMES]

MESSAGES_TOOLS = [{"name": name, "input_schema": SCHEMA} for name in NAMES]


def pieced(chunks: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """The calls of a stream, put together as clients do."""
    whole: list[tuple[str, str]] = []
    for chunk in chunks:
        for delta in [choice["delta"] for choice in chunk["choices"]]:
            for call in delta.get("tool_calls", []):
                if "id" in call:
                    assert call["type"] == "function"
                    whole.append((call["function"]["name"], ""))
                assert call["index"] == len(whole) - 1
                name, arguments = whole[-1]
                whole[-1] = (name, arguments + call["function"]["arguments"])
    return whole
