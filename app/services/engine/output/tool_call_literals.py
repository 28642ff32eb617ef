"""Tool calls in a notation with quoted strings: Gemma's objects, Python's function calls."""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import regex

from app.services.engine.output.tool_call_syntax import Call, Tools, skip_blank
from app.services.engine.output.tool_call_values import coerce, parse_call, properties, to_json


@dataclass(frozen=True, slots=True)
class LiteralSyntax:
    """Calls with quoted strings: a region ends at the first end marker outside of a string.

    `parse_calls` gives the calls of a complete region, and raises ValueError for what is none. `string` matches a
    complete string, `quote` what begins one.
    """

    closer: str
    begin: regex.Pattern[str]
    string: re.Pattern[str]
    quote: re.Pattern[str]
    parse_calls: Callable[[str, Tools], list[Call]]
    starts: tuple[str, ...] = ()

    def begins(self, text: str, tools: Tools, *, known_only: bool) -> bool | None:
        """Whether a text begins as calls do; None while that is undecided."""
        match = self.begin.match(text, partial=True)
        return None if match is not None and match.partial else match is not None

    def parse(self, text: str, tools: Tools, *, at_end: bool) -> tuple[list[Call], int] | None:
        """Give the calls of a region and its length; no calls where it is no region; None while it is incomplete."""
        ends = [match.start() for match in re.finditer(re.escape(self.closer), text)]
        for end in ends:
            if not self.quote.search(self.string.sub("", text[:end])):
                return self._calls(text[:end], tools), end + len(self.closer)
        if not at_end:
            return None
        for end in ends:  # a string that never closes
            if calls := self._calls(text[:end], tools):
                return calls, end + len(self.closer)
        return self._calls(text, tools), len(text)

    def _calls(self, text: str, tools: Tools) -> list[Call]:
        try:
            return self.parse_calls(text, tools)
        except (ValueError, SyntaxError, TypeError, LookupError, AttributeError, RecursionError, MemoryError):
            return []


def parser_syntax(parse: Callable[[str, list[Any]], Any], closer: str, begin: str = "") -> LiteralSyntax:
    """Give the syntax of a family that only mlx-lm's own parser can read."""

    def parse_calls(text: str, tools: Tools) -> list[Call]:
        return _to_calls(parse(text, list(tools)))

    return LiteralSyntax(closer, regex.compile(begin), re.compile(r"(?!)"), re.compile(r"(?!)"), parse_calls)


def gemma_syntax(delimiter: str, closer: str) -> LiteralSyntax:
    """Give Gemma's syntax: `call:name{key:value}`, where strings stand between delimiters."""
    escaped = re.escape(delimiter)
    return LiteralSyntax(
        closer,
        regex.compile(r"\s*+call:\s*+[\w.-]++\s*+\{"),
        re.compile(rf"{escaped}.*?{escaped}", re.DOTALL),
        re.compile(escaped),
        lambda text, tools: _GemmaCalls(text, delimiter, tools).parse(),
    )


class _GemmaCalls:
    """Parses calls of Gemma's. Raises ValueError or LookupError for what is none."""

    _HEAD = re.compile(r"\s*call:\s*([\w.-]+)\s*(?=\{)")
    _BARE = re.compile(r"[^,}\]]*")

    def __init__(self, text: str, delimiter: str, tools: Tools) -> None:
        self._text = text
        self._position = 0
        self._delimiter = delimiter
        self._tools = tools

    def parse(self) -> list[Call]:
        """Parse all of them."""
        calls: list[Call] = []
        while self._text[self._position :].strip():
            head = self._HEAD.match(self._text, self._position)
            if head is None:
                raise ValueError("no call")
            self._position = head.end()
            calls.append(("", head[1], self._object(properties(self._tools, head[1]))))
        return calls

    def _value(self, schema: Any) -> str:
        self._position = skip_blank(self._text, self._position)
        if self._text.startswith(self._delimiter, self._position):
            return to_json(self._string())
        character = self._text[self._position]
        if character == "{":
            return self._object(schema.get("properties") if isinstance(schema, dict) else None)
        if character == "[":
            return self._list(schema.get("items") if isinstance(schema, dict) else None)
        if character == '"':
            value, self._position = json.JSONDecoder(strict=False).raw_decode(self._text, self._position)
            return to_json(value)
        bare = self._BARE.match(self._text, self._position)
        assert bare is not None
        self._position = bare.end()
        return coerce(bare[0].strip(), schema, untyped_is_text=False)

    def _string(self) -> str:
        begin = self._position + len(self._delimiter)
        end = self._text.index(self._delimiter, begin)
        self._position = end + len(self._delimiter)
        return self._text[begin:end]

    def _object(self, schemas: Any) -> str:
        members = {}
        for _ in self._members("}"):
            key = self._key()
            members[key] = self._value(schemas.get(key) if isinstance(schemas, dict) else None)
        return f"{{{', '.join(f'{to_json(key)}: {value}' for key, value in members.items())}}}"

    def _list(self, schema: Any) -> str:
        items = [self._value(schema) for _ in self._members("]")]
        return f"[{', '.join(items)}]"

    def _members(self, closer: str) -> Iterator[None]:
        """Stop at each member of the object or list that opens here, and in the end behind what closes it."""
        self._position = skip_blank(self._text, self._position + 1)
        while self._text[self._position] != closer:
            yield
            self._position = skip_blank(self._text, self._position)
            if self._text[self._position] not in (",", closer):
                raise ValueError("neither a comma nor an end")
            self._position = skip_blank(self._text, self._position + (self._text[self._position] == ","))
        self._position += 1

    def _key(self) -> str:
        self._position = skip_blank(self._text, self._position)
        if self._text.startswith(self._delimiter, self._position):
            key = self._string()
            self._position = self._text.index(":", self._position) + 1
            return key
        end = self._text.index(":", self._position)
        key = self._text[self._position : end].strip().strip("\"'")
        self._position = end + 1
        return key


def pythonic_syntax(parse: Callable[[str, list[Any]], Any]) -> LiteralSyntax:
    """Give the syntax of calls in a Python list."""
    string = re.compile(r'"(?:[^"\\]|\\.)*"|\'(?:[^\'\\]|\\.)*\'', re.DOTALL)

    def parse_calls(text: str, tools: Tools) -> list[Call]:
        text = string.sub(lambda quoted: quoted[0].replace("\n", "\\n"), text.strip())
        return _to_calls(parse(text if text.startswith("[") else f"[{text}]", list(tools)))

    begin = regex.compile(r"\s*+\[?+\s*+[\w.]++\s*+\(")
    return LiteralSyntax("<|tool_call_end|>", begin, string, re.compile("[\"']"), parse_calls)


def _to_calls(result: Any) -> list[Call]:
    """Take the calls that a parser of mlx-lm gives; none of them if one is invalid."""
    calls = [parse_call(call) for call in (result if isinstance(result, list) else [result])]
    return [call for call in calls if call is not None] if None not in calls else []
