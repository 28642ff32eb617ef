"""Calls that are told when all of a region is there: tags around values, Python's calls, and Gemma's objects."""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, Protocol

import regex

from app.services.engine.output.tool_call_values import arguments_text, called, properties, typed, written

Tools = Sequence[Mapping[str, Any]]
Pair = tuple[str | None, str, str | None]  # key, value, and a type where the call itself says it
Closing = Literal["balanced", "first", "absent"]  # how what closes a value is found
Call = tuple[str, str, str]  # its id, or nothing, its name, the JSON text of its arguments

_NAME = r"""(?:"(?P<name>[^"<>]{1,200})"|'(?P<name>[^'<>]{1,200})'|(?P<name>[^\s"'<>]{1,200}))"""
_KEY = r"""(?:"(?P<key>[^"<>]{1,200})"|'(?P<key>[^'<>]{1,200})'|(?P<key>[^\s"'<>]{1,200}))"""
_OTHERS = r'(?:[\w:-]++="[^"<>]*+"\s++)*?'  # attributes before the one that counts


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


@dataclass(frozen=True, kw_only=True)
class Tags:
    """Tags around values: `call` with its name, `argument` with its key, and what closes each, as patterns.

    A value ends where what closes it is followed by another argument or by the end of the call, and a region ends where
    no mark follows that closes anything. So values may hold marks, and whole calls.
    """

    start: str  # the mark of the family
    call: str
    argument: str  # one without a key holds all arguments as JSON
    argument_end: str
    call_end: str
    region_end: str = ""  # nothing where each call has marks of its own
    closer: str
    starts: tuple[str, ...] = ()
    line_by_line: bool = False  # values stand in lines of their own
    untyped_is_text: bool = True
    value: Callable[[str], str] = lambda text: text

    @cached_property
    def _patterns(self) -> "_TagPatterns":
        return _TagPatterns.of(self)

    def begins(self, text: str, tools: Tools, *, known_only: bool) -> bool | None:
        """Whether a text begins as calls do; None while that cannot be told."""
        match = self._patterns.begin.match(text, partial=True)
        if match is not None and match.partial:
            return None
        return match is not None and (not known_only or _is_known(match["name"], tools))

    def read(self, text: str, tools: Tools, *, at_end: bool) -> tuple[list[Call], int] | None:
        """Give the calls of a region and its length; none of them for what is no region. None: it is not whole yet."""
        readings: list[tuple[bool, tuple[Closing, ...]]] = [(self.line_by_line, ("balanced", "first"))]
        if at_end:
            readings += [(False, ("balanced", "first"))] if self.line_by_line else []
            readings += [(False, ("absent",))]
        for framed, closings in readings:
            for end in self._ends(text, at_end=at_end):
                for closing in closings:
                    if calls := self._calls(text[:end], tools, closing=closing, framed=framed):
                        return calls, end
        return ([], 0) if at_end else None

    def _ends(self, text: str, *, at_end: bool) -> Iterator[int]:
        """Where the region may end, the likeliest place first."""
        doubtful, followed = [], []
        for match in self._patterns.end.finditer(text):
            end = match.end()
            follows = self._patterns.closing.match(text, _behind_blank(text, end), partial=True)
            if follows is not None and follows.partial and not at_end:
                return  # what follows decides
            if follows is not None and not follows.partial:
                followed.append(end)
                continue
            if self._opened(text[:end]):
                doubtful.append(end)
            else:
                yield end
        if at_end:
            yield from doubtful
            yield len(text)
            yield from reversed(followed)  # what follows closes nothing: a model wrote it once too often

    def _opened(self, text: str) -> bool:
        """Whether regions within the values are still open, as far as one can tell."""
        own = self.start in self.starts
        return text.count(self.start) - own >= len(self._patterns.last.findall(text))

    def _calls(self, region: str, tools: Tools, *, closing: Closing, framed: bool) -> list[Call]:
        """Read all calls of a whole region; none of them where it is not one."""
        calls: list[Call] = []
        place = _behind_blank(region, 0)
        while place < len(region):
            opened = self._patterns.call.match(region, place)
            if opened is None:
                return calls if self._patterns.region_end.fullmatch(region, place) else []
            members = self._members(region, opened.end(), closing=closing, framed=framed)
            if members is None:
                return []
            name, (pairs, place) = opened["name"].strip(), members
            arguments = self._arguments(pairs, properties(tools, name))
            if arguments is None or (closing != "balanced" and len(pairs) > len({key for key, *_ in pairs})):
                return []  # a key that comes twice: a value has taken in an argument
            calls.append(("", name, arguments))
            place = _behind_blank(region, place)
        return calls

    def _arguments(self, pairs: Sequence[Pair], schemas: Mapping[str, Any]) -> str | None:
        """Write the arguments as JSON."""
        if len(pairs) == 1 and pairs[0][0] is None:
            return arguments_text(pairs[0][1].strip())
        members = {}  # the last of those with the same key counts
        for key, text, kind in pairs:
            schema = {"type": kind} if kind else schemas.get(key or "")
            members[written(key or "")] = typed(self.value(text), schema, untyped_is_text=self.untyped_is_text)
        return f"{{{', '.join(f'{key}: {value}' for key, value in members.items())}}}"

    def _members(self, region: str, place: int, *, closing: Closing, framed: bool) -> tuple[list[Pair], int] | None:
        """Read the arguments of a call, and the place behind it. None where it is none."""
        members: list[Pair] = []
        while True:
            place = _behind_blank(region, place)
            argument = self._patterns.argument.match(region, place)
            if argument is None:
                break
            end = self._value_end(region, argument.end(), closing=closing, framed=framed)
            if end is None:
                return None
            read = argument.groupdict()
            key = read["key"].strip() if read["key"] is not None else None
            members.append((key, self._frameless(region[argument.end() : end[0]]), read.get("kind")))
            place = end[1]
        if closed := self._patterns.call_end.match(region, place):
            return members, closed.end()
        # What closes the call may be missing where the region is closed.
        return (members, place) if self._patterns.region_end.fullmatch(region, place) else None

    def _value_end(self, region: str, begin: int, *, closing: Closing, framed: bool) -> tuple[int, int] | None:
        """Find what closes a value; where that is `absent`, what follows the value does."""
        if closing == "absent":
            absent = self._patterns.unclosed.search(region, begin)
            return absent.span() if absent is not None else None
        framed = framed and region.startswith("\n", begin)
        depth = 0
        for match in self._patterns.either.finditer(region, begin):
            if match["open"]:
                depth += closing == "balanced"
            elif depth:
                depth -= 1
            elif framed and region[begin : match.start()].rstrip(" \t")[-1:] != "\n":
                continue
            elif self._patterns.follows.match(region, match.end()):
                return match.start(), match.end()
        return None

    def _frameless(self, value: str) -> str:
        return value.removeprefix("\n").removesuffix("\n") if self.line_by_line else value


@dataclass(frozen=True, slots=True)
class _TagPatterns:
    """What a form of tags looks for."""

    begin: regex.Pattern[str]
    call: regex.Pattern[str]
    argument: regex.Pattern[str]
    call_end: regex.Pattern[str]
    region_end: regex.Pattern[str]
    last: regex.Pattern[str]  # what closes the region
    end: regex.Pattern[str]  # how a region ends
    closing: regex.Pattern[str]  # what cannot follow it
    either: regex.Pattern[str]  # what opens or closes an argument
    follows: regex.Pattern[str]  # what has to follow an argument
    unclosed: regex.Pattern[str]  # where an argument ends that nothing closes

    @classmethod
    def of(cls, tags: Tags) -> "_TagPatterns":
        last = tags.region_end or tags.call_end
        closes = rf"{tags.region_end}\Z|" if tags.region_end else ""
        call = tags.call  # regions that follow each other may be read as one
        if tags.region_end:
            call = rf"(?:(?:{tags.region_end}\s*+)?{regex.escape(tags.start)}\s*+)?{tags.call}"
        inner = rf"(?:\s*+{tags.call_end})?" if tags.region_end else ""
        patterns = {
            "begin": rf"\s*+{tags.call}\s*+(?:{tags.argument}|{tags.call_end}|{last})",
            "call": call,
            "argument": tags.argument,
            "call_end": tags.call_end,
            "region_end": tags.region_end or r"(?!)",
            "last": last,
            "end": rf"(?:{tags.argument_end}{inner}|{tags.call}{inner}|{tags.call_end})\s*+{last}"
            if tags.region_end
            else rf"(?:{tags.argument_end}|{tags.call})\s*+{last}",
            "closing": rf"{tags.argument_end}|{tags.call_end}|{last}",
            "either": rf"(?P<open>{tags.argument})|{tags.argument_end}",
            "follows": rf"\s*+(?:{tags.argument}|{closes}{tags.call_end}\s*+"
            rf"(?:{closes}{call}|\Z))",
            "unclosed": rf"(?:{tags.argument_end})?+(?=\s*+(?:{tags.argument}|{tags.call_end}|{last}))",
        }
        return cls(**{name: regex.compile(pattern, regex.DOTALL) for name, pattern in patterns.items()})


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


def _behind_blank(text: str, place: int) -> int:
    while place < len(text) and text[place].isspace():
        place += 1
    return place


def _is_known(name: str, tools: Tools) -> bool:
    return any(tool["function"]["name"] == name.strip() for tool in tools)


# Families.


def _qwen_coder() -> Tags:
    return Tags(
        start="<tool_call>",
        call=r"<function=\s*+(?P<name>[^\s<>]{1,200}+)(?:\s*+>)?+",
        argument=r"<parameter=\s*+(?P<key>[^<>\n]{1,200}+)(?:>|(?=\n))",
        argument_end="</parameter>",
        call_end="</function>",
        region_end="</tool_call>",
        closer="</tool_call>",
        starts=("<function=",),
        line_by_line=True,
    )


def _minimax() -> Tags:
    return Tags(
        start="<minimax:tool_call>",
        call=rf"<invoke\s++name\s*+=\s*+{_NAME}\s*+>",
        argument=rf"<parameter\s++name\s*+=\s*+{_KEY}\s*+>",
        argument_end="</parameter>",
        call_end="</invoke>",
        region_end="</minimax:tool_call>",
        closer="</minimax:tool_call>",
        starts=("<invoke name=",),
    )


def _minicpm() -> Tags:
    return Tags(
        start="<function name=",
        call=rf"<function\s++name\s*+=\s*+{_NAME}\s*+>",
        argument=rf"<param\s++name\s*+=\s*+{_KEY}\s*+>",
        argument_end="</param>",
        call_end="</function>",
        closer="</function>",
        starts=("<function name=",),
        value=lambda text: text.strip()[9:-3] if re.fullmatch(r"\s*<!\[CDATA\[.*?\]\]>\s*", text, re.DOTALL) else text,
    )


def _muse() -> Tags:
    return Tags(
        start="<atem:function_calls>",
        call=rf"<atem:invoke\s++{_OTHERS}name={_NAME}[^>]*+>",
        argument=rf"<atem:parameter\s++{_OTHERS}name={_KEY}[^>]*+>",
        argument_end="</atem:parameter>",
        call_end="</atem:invoke>",
        region_end="</atem:function_calls>",
        closer="</atem:function_calls>",
        untyped_is_text=False,
    )


def _arg_keys(mark: str) -> Tags:
    return Tags(
        start=f"<{mark}tool_call>",
        call=rf"(?P<name>[^\s<>{{}}\[\]]{{1,200}})\s*+(?=<{mark}arg_key>|</{mark}tool_call>)",
        argument=(rf"<{mark}arg_key>(?P<key>[^<>]{{1,200}})</{mark}arg_key>(?:\\n|\s)*+<{mark}arg_value>"),
        argument_end=f"</{mark}arg_value>",
        call_end=f"</{mark}tool_call>",
        closer=f"</{mark}tool_call>",
        untyped_is_text=False,
    )


def _kimi_k3() -> Tags:
    key = rf'argument\s++{_OTHERS}key="(?P<key>[^"<>]{{1,200}})"(?:\s++type="(?P<kind>\w++)")?'
    return Tags(
        start="<|open|>tools<|sep|>",
        call=rf'<\|open\|>call\s++{_OTHERS}tool="(?P<name>[^"<>]{{1,200}})"[^<>]*+<\|sep\|>',
        argument=rf"<\|open\|>(?:{key}|json)[^<>]*+<\|sep\|>",
        argument_end=r"<\|close\|>(?:argument|json)<\|sep\|>",
        call_end=r"<\|close\|>call<\|sep\|>",
        region_end=r"<\|close\|>tools<\|sep\|>",
        closer="<|close|>tools<|sep|>",
    )


def _gemma(delimiter: str, closer: str) -> Written:
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
        self._place = _behind_blank(self._text, self._place)
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
        self._place = _behind_blank(self._text, self._place + 1)
        while self._text[self._place] != closer:
            yield
            self._place = _behind_blank(self._text, self._place)
            if self._text[self._place] not in (",", closer):
                raise ValueError("neither a comma nor an end")
            self._place = _behind_blank(self._text, self._place + (self._text[self._place] == ","))
        self._place += 1

    def _key(self) -> str:
        self._place = _behind_blank(self._text, self._place)
        if self._text.startswith(self._delimiter, self._place):
            key = self._string()
            self._place = self._text.index(":", self._place) + 1
            return key
        end = self._text.index(":", self._place)
        key = self._text[self._place : end].strip().strip("\"'")
        self._place = end + 1
        return key


def _pythonic(parse: Callable[[str, list[Any]], Any]) -> Written:
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


def region_of(parser: str | None, parse: Callable[[str, list[Any]], Any] | None, end: str) -> Region | None:
    """Tell how the calls of a parser of mlx-lm's are written, where they are not JSON; None: they are."""
    makers: dict[str, Callable[[], Region]] = {
        "qwen3_coder": _qwen_coder,
        "minimax_m2": _minimax,
        "minicpm5": _minicpm,
        "muse_spark": _muse,
        "glm47": lambda: _arg_keys(""),
        "laguna": lambda: _arg_keys(""),
        "longcat": lambda: _arg_keys("longcat_"),
        "kimi_k3": _kimi_k3,
        "gemma4": lambda: _gemma('<|"|>', end),
        "function_gemma": lambda: _gemma("<escape>", end),
    }
    if parser in makers:
        return makers[parser]()
    if parser == "pythonic" and parse is not None:
        return _pythonic(parse)
    if parse is None:
        return None
    return whole(parse, end, r"\s*+<\|tool_call_begin\|>" if parser == "kimi_k2" else "")
