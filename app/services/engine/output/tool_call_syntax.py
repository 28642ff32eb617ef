"""What a syntax of tool calls has to offer where a call's arguments are not JSON."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

Tools = Sequence[Mapping[str, Any]]
Call = tuple[str, str, str]  # its id, or nothing, its name, the JSON text of its arguments


class CallSyntax(Protocol):
    """How the calls of a region are written. A region is the text between the start and the end marker.

    `starts` are markers that may begin a call where that of the family is missing; they are a part of the call. A
    region does not end without its `closer`.
    """

    @property
    def starts(self) -> tuple[str, ...]:
        """Start markers besides that of the family."""

    @property
    def closer(self) -> str:
        """Text without which no region ends."""

    def begins(self, text: str, tools: Tools, *, known_only: bool) -> bool | None:
        """Whether a text begins as calls do, `known_only`: of tools in the list; None while that is undecided."""

    def parse(self, text: str, tools: Tools, *, at_end: bool) -> tuple[list[Call], int] | None:
        """Give the calls of a region and its length; no calls where it is no region; None while it is incomplete.

        `at_end`: nothing follows the text.
        """


def skip_blank(text: str, position: int) -> int:
    """Give the position of the first character that is no white space, from a position on."""
    while position < len(text) and text[position].isspace():
        position += 1
    return position
