"""How the calls between two marks are written where their arguments are no JSON."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

Tools = Sequence[Mapping[str, Any]]
Call = tuple[str, str, str]  # its id, or nothing, its name, the JSON text of its arguments


class Region(Protocol):
    """How the calls between two marks are written.

    `starts` are marks that may begin a call where that of the family is missing; they are a part of it. A region does
    not end without its `closer`.
    """

    @property
    def starts(self) -> tuple[str, ...]:
        """Marks besides that of the family."""

    @property
    def closer(self) -> str:
        """Text without which no region ends."""

    def begins(self, text: str, tools: Tools, *, known_only: bool) -> bool | None:
        """Whether a text begins as calls do, or as calls of tools that there are; None while that cannot be told."""

    def read(self, text: str, tools: Tools, *, at_end: bool) -> tuple[list[Call], int] | None:
        """Give the calls of a region and its length; none of them for what is no region. None: it is not whole yet.

        `at_end`: nothing follows the text.
        """


def behind_blank(text: str, place: int) -> int:
    """Give the index of the first character that is no white space, from an index on."""
    while place < len(text) and text[place].isspace():
        place += 1
    return place
