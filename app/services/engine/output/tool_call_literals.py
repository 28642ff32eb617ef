"""Calls in a notation with strings, as Gemma and Python have them."""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import regex

from app.services.engine.output.tool_call_syntax import Call, Tools, behind_blank
from app.services.engine.output.tool_call_values import called, properties, typed, written


@dataclass(frozen=True, slots=True)
class Written:
    """Calls in a notation with strings: a region ends at the first mark outside of one.

    `parse` gives the calls of a whole region, and raises ValueError for what is none. `string` matches a whole string,
    `quote` what begins one.
    """

    closer: str
    begin: regex.Pattern[str]
    string: re.Pattern[str]
    quote: re.Pattern[str]
    parse: Callable[[str, Tools], list[Call]]
    starts: tuple[str, ...] = ()

    def begins(self, text: str, tools: Tools, *, known_only: bool) -> bool | None:
        """Whether a text begins as calls do; None while that cannot be told."""
        match = self.begin.match(text, partial=True)
        return None if match is not None and match.partial else match is not None

    def read(self, text: str, tools: Tools, *, at_end: bool) -> tuple[list[Call], int] | None:
        """Give the calls of a region and its length; none of them for what is no region. None: it is not whole yet."""
        places = [found.start() for found in re.finditer(re.escape(self.closer), text)]
        for place in places:
            if not self.quote.search(self.string.sub("", text[:place])):
                return self._parsed(text[:place], tools), place + len(self.closer)
        if not at_end:
            return None
        for place in places:  # a string that never closes
            if calls := self._parsed(text[:place], tools):
                return calls, place + len(self.closer)
        return self._parsed(text, tools), len(text)

    def _parsed(self, text: str, tools: Tools) -> list[Call]:
        try:
            return self.parse(text, tools)
        except (ValueError, SyntaxError, TypeError, LookupError, AttributeError, RecursionError, MemoryError):
            return []


def whole(parse: Callable[[str, list[Any]], Any], closer: str, begin: str = "") -> Written:
    """A region of a family that only a parser of mlx-lm's can read."""

    def calls(text: str, tools: Tools) -> list[Call]:
        return _several(parse(text, list(tools)))

    return Written(closer, regex.compile(begin), re.compile(r"(?!)"), re.compile(r"(?!)"), calls)


def gemma(delimiter: str, closer: str) -> Written:
    """`call:name{key:value}`, where strings stand between delimiters."""
    escaped = re.escape(delimiter)
    return Written(
        closer,
        regex.compile(r"\s*+call:\s*+[\w.-]++\s*+\{"),
        re.compile(rf"{escaped}.*?{escaped}", re.DOTALL),
        re.compile(escaped),
        lambda text, tools: _GemmaCalls(text, delimiter, tools).read(),
    )


class _GemmaCalls:
    """Reads calls of Gemma's. Raises ValueError or LookupError for what is none."""

    _HEAD = re.compile(r"\s*call:\s*([\w.-]+)\s*(?=\{)")
    _BARE = re.compile(r"[^,}\]]*")

    def __init__(self, text: str, delimiter: str, tools: Tools) -> None:
        self._text = text
        self._place = 0
        self._delimiter = delimiter
        self._tools = tools

    def read(self) -> list[Call]:
        """Read all of them."""
        calls: list[Call] = []
        while self._text[self._place :].strip():
            head = self._HEAD.match(self._text, self._place)
            if head is None:
                raise ValueError("no call")
            self._place = head.end()
            calls.append(("", head[1], self._object(properties(self._tools, head[1]))))
        return calls

    def _value(self, schema: Any) -> str:
        self._place = behind_blank(self._text, self._place)
        if self._text.startswith(self._delimiter, self._place):
            return written(self._string())
        character = self._text[self._place]
        if character == "{":
            return self._object(schema.get("properties") if isinstance(schema, dict) else None)
        if character == "[":
            return self._list(schema.get("items") if isinstance(schema, dict) else None)
        if character == '"':
            value, self._place = json.JSONDecoder(strict=False).raw_decode(self._text, self._place)
            return written(value)
        bare = self._BARE.match(self._text, self._place)
        assert bare is not None
        self._place = bare.end()
        return typed(bare[0].strip(), schema, untyped_is_text=False)

    def _string(self) -> str:
        begin = self._place + len(self._delimiter)
        end = self._text.index(self._delimiter, begin)
        self._place = end + len(self._delimiter)
        return self._text[begin:end]

    def _object(self, schemas: Any) -> str:
        members = {}
        for _ in self._members("}"):
            key = self._key()
            members[key] = self._value(schemas.get(key) if isinstance(schemas, dict) else None)
        return f"{{{', '.join(f'{written(key)}: {value}' for key, value in members.items())}}}"

    def _list(self, schema: Any) -> str:
        items = [self._value(schema) for _ in self._members("]")]
        return f"[{', '.join(items)}]"

    def _members(self, closer: str) -> Iterator[None]:
        """Stop at each member of what opens here, and then behind what closes it."""
        self._place = behind_blank(self._text, self._place + 1)
        while self._text[self._place] != closer:
            yield
            self._place = behind_blank(self._text, self._place)
            if self._text[self._place] not in (",", closer):
                raise ValueError("neither a comma nor an end")
            self._place = behind_blank(self._text, self._place + (self._text[self._place] == ","))
        self._place += 1

    def _key(self) -> str:
        self._place = behind_blank(self._text, self._place)
        if self._text.startswith(self._delimiter, self._place):
            key = self._string()
            self._place = self._text.index(":", self._place) + 1
            return key
        end = self._text.index(":", self._place)
        key = self._text[self._place : end].strip().strip("\"'")
        self._place = end + 1
        return key


def pythonic(parse: Callable[[str, list[Any]], Any]) -> Written:
    """Calls in a list, as Python writes them."""
    string = re.compile(r'"(?:[^"\\]|\\.)*"|\'(?:[^\'\\]|\\.)*\'', re.DOTALL)

    def calls(text: str, tools: Tools) -> list[Call]:
        text = string.sub(lambda quoted: quoted[0].replace("\n", "\\n"), text.strip())
        return _several(parse(text if text.startswith("[") else f"[{text}]", list(tools)))

    begin = regex.compile(r"\s*+\[?+\s*+[\w.]++\s*+\(")
    return Written("<|tool_call_end|>", begin, string, re.compile("[\"']"), calls)


def _several(parsed: Any) -> list[Call]:
    """The calls that a parser of mlx-lm's gives; none of them if one is none."""
    calls = [called(call) for call in (parsed if isinstance(parsed, list) else [parsed])]
    return [call for call in calls if call is not None] if None not in calls else []
