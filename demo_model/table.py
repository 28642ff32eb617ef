"""Tables written as text: a row a line, cells apart by `##`, choices within a cell by bars."""

from functools import cache


def choices(text: str) -> list[str]:
    """The choices of a text, apart by bars or line ends; an empty one is a choice too."""
    return text.replace("\n", "|").split("|")


@cache
def rows(table: str) -> list[list[str]]:
    """The rows of a table as their cells; an indented line goes on with the one before it."""
    lines = table.strip().replace("\n  ", " ").split("\n")
    return [[cell.strip() for cell in line.split("##")] for line in lines]
