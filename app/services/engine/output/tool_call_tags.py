"""Tool calls written as XML-like tags around names and values."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import regex

from app.services.engine.output.tool_call_syntax import Call, Tools, skip_blank
from app.services.engine.output.tool_call_values import arguments_json, coerce, properties, to_json

Pair = tuple[str | None, str, str | None]  # key, value, and a type where the call itself says it
Closing = Literal["balanced", "first", "absent"]  # how what closes a value is found


@dataclass(frozen=True, kw_only=True)
class TagSyntax:
    """Tags around values: `call` with its name, `argument` with its key, and the closing tag of each, as patterns.

    A value ends where its closing tag is followed by another argument or by the end of the call; a region ends where
    no closing tag follows. So values may contain tags, even complete calls.
    """

    start: str  # the start marker of the family
    call: str
    argument: str  # one without a key holds all arguments as JSON
    argument_end: str
    call_end: str
    region_end: str = ""  # nothing where each call has markers of its own
    closer: str
    starts: tuple[str, ...] = ()
    line_by_line: bool = False  # values stand in lines of their own
    untyped_is_text: bool = True
    value: Callable[[str], str] = lambda text: text
    kinds: Mapping[str, Any] = field(default_factory=dict)  # schemas by the type in a call, where it is no JSON type
    nested: Callable[[str, Any], str | None] = lambda text, schema: None  # writes as JSON what is itself tags

    @cached_property
    def _patterns(self) -> "_TagPatterns":
        return _TagPatterns.of(self)

    def begins(self, text: str, tools: Tools, *, known_only: bool) -> bool | None:
        """Whether a text begins as calls do; None while that is undecided."""
        match = self._patterns.begin.match(text, partial=True)
        if match is not None and match.partial:
            return None
        return match is not None and (not known_only or _is_known(match["name"], tools))

    def parse(self, text: str, tools: Tools, *, at_end: bool) -> tuple[list[Call], int] | None:
        """Give the calls of a region and its length; no calls where it is no region; None while it is incomplete."""
        readings: list[tuple[bool, tuple[Closing, ...]]] = [(self.line_by_line, ("balanced", "first"))]
        if at_end:
            readings += [(False, ("balanced", "first"))] if self.line_by_line else []
            readings += [(False, ("absent",))]
        for on_own_lines, closings in readings:
            for end in self._ends(text, at_end=at_end):
                for closing in closings:
                    if calls := self._calls(text[:end], tools, closing=closing, on_own_lines=on_own_lines):
                        return calls, end
        return ([], 0) if at_end else None

    def _ends(self, text: str, *, at_end: bool) -> Iterator[int]:
        """Give the positions at which the region may end, the likeliest first."""
        doubtful, unlikely = [], []
        for match in self._patterns.end.finditer(text):
            end = match.end()
            follows = self._patterns.closing.match(text, skip_blank(text, end), partial=True)
            if follows is not None and follows.partial and not at_end:
                return  # what follows decides
            if follows is not None and not follows.partial:
                unlikely.append(end)
                continue
            if self._has_open_region(text[:end]):
                doubtful.append(end)
            else:
                yield end
        if at_end:
            yield from doubtful
            yield len(text)
            yield from reversed(unlikely)  # what follows closes nothing: a model wrote it once too often

    def _has_open_region(self, text: str) -> bool:
        """Whether regions within the values are still open, as far as one can tell."""
        own = self.start in self.starts
        return text.count(self.start) - own >= len(self._patterns.last.findall(text))

    def _calls(self, region: str, tools: Tools, *, closing: Closing, on_own_lines: bool) -> list[Call]:
        """Parse all calls of a complete region; none of them where it is not one."""
        calls: list[Call] = []
        position = skip_blank(region, 0)
        while position < len(region):
            head = self._patterns.call.match(region, position)
            if head is None:
                return calls if self._patterns.region_end.fullmatch(region, position) else []
            members = self._members(region, head.end(), closing=closing, on_own_lines=on_own_lines)
            if members is None:
                return []
            name, (pairs, position) = head["name"].strip(), members
            arguments = self._arguments(pairs, properties(tools, name))
            if arguments is None or (closing != "balanced" and len(pairs) > len({key for key, *_ in pairs})):
                return []  # a key that comes twice: a value has taken in an argument
            calls.append(("", name, arguments))
            position = skip_blank(region, position)
        return calls

    def _arguments(self, pairs: Sequence[Pair], schemas: Mapping[str, Any]) -> str | None:
        """Write the arguments as JSON."""
        if len(pairs) == 1 and pairs[0][0] is None:
            return arguments_json(pairs[0][1].strip())
        members = {}  # the last of those with the same key counts
        for key, text, kind in pairs:
            schema = self.kinds.get(kind, {"type": kind}) if kind else schemas.get(key or "")
            members[to_json(key or "")] = self.nested(text, schema) or coerce(
                self.value(text), schema, untyped_is_text=self.untyped_is_text
            )
        return f"{{{', '.join(f'{key}: {value}' for key, value in members.items())}}}"

    def _members(
        self, region: str, position: int, *, closing: Closing, on_own_lines: bool
    ) -> tuple[list[Pair], int] | None:
        """Parse the arguments of a call; the second value is the position behind it. None where it is no call."""
        members: list[Pair] = []
        while True:
            position = skip_blank(region, position)
            argument = self._patterns.argument.match(region, position)
            if argument is None:
                break
            end = self._value_end(region, argument.end(), closing=closing, on_own_lines=on_own_lines)
            if end is None:
                return None
            groups = argument.groupdict()
            key = groups["key"].strip() if groups["key"] is not None else None
            members.append((key, self._frameless(region[argument.end() : end[0]]), groups.get("kind")))
            position = end[1]
        if call_end := self._patterns.call_end.match(region, position):
            return members, call_end.end()
        # What closes the call may be missing where the region is closed.
        return (members, position) if self._patterns.region_end.fullmatch(region, position) else None

    def _value_end(self, region: str, begin: int, *, closing: Closing, on_own_lines: bool) -> tuple[int, int] | None:
        """Find what closes a value; where that is `absent`, what follows the value does."""
        if closing == "absent":
            end = self._patterns.unclosed.search(region, begin)
            return end.span() if end is not None else None
        on_own_lines = on_own_lines and region.startswith("\n", begin)
        depth = 0
        for match in self._patterns.either.finditer(region, begin):
            if match["open"]:
                depth += closing == "balanced"
            elif depth:
                depth -= 1
            elif on_own_lines and region[begin : match.start()].rstrip(" \t")[-1:] != "\n":
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
    def of(cls, tags: TagSyntax) -> "_TagPatterns":
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


def _is_known(name: str, tools: Tools) -> bool:
    return any(tool["function"]["name"] == name.strip() for tool in tools)
