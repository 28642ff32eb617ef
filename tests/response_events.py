"""The events of a stream of Responses."""

from typing import Any

from tests import message_events


def events(text: str) -> list[dict[str, Any]]:
    """Parse a stream as a strict client does: its events are named as those of Messages are, and numbered."""
    parsed = message_events.events(text)
    assert [event["sequence_number"] for event in parsed] == list(range(len(parsed)))
    return parsed
