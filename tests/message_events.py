"""The events of Anthropic's stream, and the content blocks that they make."""

import json
from typing import Any


def events(text: str) -> list[dict[str, Any]]:
    """Parse a stream as a strict client does: every event has its name on the line before its data."""
    said = []
    for block in text.removesuffix("\n\n").split("\n\n"):
        name, data = block.split("\n")
        said.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {said[-1]['type']}"
    return said


def blocks(said: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Put a stream's blocks together."""
    content: list[dict[str, Any]] = []
    for event in said:
        if event["type"] == "content_block_start":
            assert event["index"] == len(content)
            content.append(event["content_block"])
            written = ""
        elif event["type"] == "content_block_delta":
            assert event["index"] == len(content) - 1
            kind = event["delta"]["type"].removesuffix("_delta")
            if kind == "input_json":
                written += event["delta"]["partial_json"]
            else:
                content[-1][kind] += event["delta"][kind]
        elif event["type"] == "content_block_stop" and content[-1]["type"] == "tool_use":
            content[-1]["input"] = parsed(written or "{}")
    return content


def parsed(arguments: str) -> dict[str, Any]:
    """The input of a call; one that the answer's end has cut short comes as text."""
    try:
        return dict(json.loads(arguments))
    except ValueError:
        return {"arguments": arguments}
