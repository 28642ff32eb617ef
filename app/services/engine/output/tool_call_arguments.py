"""The arguments of a tool call as an object, whatever a model or a client sent."""

import json
from collections.abc import Iterable
from typing import Any

_MOST_DIGITS = 4000  # of an integer; Python reads and writes no more than 4,300
_DEEPEST = 64  # levels of arguments; templates recurse
_MOST_OF_DEEP = 1000  # characters of what nests deeper, which nobody reads
_BROKEN = "INVALID_JSON"  # as Anthropic tells clients to give back arguments that cannot be read


def parse_arguments(text: str) -> dict[str, Any]:
    """Parse the arguments of a call, whatever a model or a client sent.

    Empty text and null give an empty object. What is no JSON object becomes one with a single member, the text itself;
    of what nests too deep for a template, the first 1,000 characters.
    """
    if not text.strip():
        return {}
    try:
        value = json.loads(text, parse_int=_integer)
        if isinstance(value, str):  # some clients write JSON as JSON once more
            value = json.loads(value, parse_int=_integer)
    except RecursionError:
        return {_BROKEN: text[:_MOST_OF_DEEP]}
    except ValueError:
        return {_BROKEN: text}
    if value is None:
        return {}
    if _too_deep(value):
        return {_BROKEN: text[:_MOST_OF_DEEP]}
    return value if isinstance(value, dict) else {_BROKEN: text}


def _integer(digits: str) -> int | str:
    return int(digits) if len(digits) <= _MOST_DIGITS else digits


def _too_deep(value: Any) -> bool:
    level = [value]
    for _ in range(_DEEPEST):
        level = [child for parent in level for child in _children(parent)]
        if not level:
            return False
    return True


def _children(value: Any) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
