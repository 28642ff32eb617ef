"""The events of a stream of Responses."""

import json
from typing import Any


def events(text: str) -> list[dict[str, Any]]:
    """Parse a stream as a strict client does: every event has its name on the line before its data."""
    said = []
    for block in text.removesuffix("\n\n").split("\n\n"):
        name, data = block.split("\n")
        said.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {said[-1]['type']}"
    assert [event["sequence_number"] for event in said] == list(range(len(said)))
    return said
