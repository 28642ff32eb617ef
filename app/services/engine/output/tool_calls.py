"""Parses a model's tool calls: streamed where their arguments are JSON, else given when they are complete."""

import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app.services.engine.output.json_reader import ObjectReader
from app.services.engine.output.parts import CallStart
from app.services.engine.output.template_clues import call_parser, template_text
from app.services.engine.output.tool_call_families import call_syntax, tag_syntax
from app.services.engine.output.tool_call_formats import CallFormat, call_format, inner_markers
from app.services.engine.output.tool_call_notations import CallNotation, call_notation
from app.services.engine.output.tool_call_syntax import Call, CallSyntax
from app.services.engine.output.tool_call_values import parse_call, parse_json
from app.services.generation import ToolArguments, ToolCall

_KNOWN_ONLY = {"command_r", "glm47", "laguna"}  # families in which plain words between the markers look like a call
_MOST_ATTEMPTS = 64  # for the end of a region, before they become rare: a value may be full of what may end it
_LOOK_BEHIND = 64  # characters behind what may end a region, in which it shows whether it does

CallPart = ToolCall | ToolArguments | str  # a string is no call after all


@dataclass(frozen=True, slots=True)
class CallMarkup:
    """How a model writes calls: the markers around them, their format where arguments are JSON, else their syntax."""

    start: str
    end: str
    inner: tuple[str, ...] = ()
    known_only: bool = False  # a call of a tool that is not in the request is text
    format: CallFormat | None = None
    syntax: CallSyntax | None = None
    notation: CallNotation | None = None  # how a grammar has them written

    @classmethod
    def of(cls, tokenizer: Any) -> "CallMarkup | None":
        """Read it off mlx-lm's tokenizer wrapper and its chat template. None: this model calls no tools."""
        parser, module = call_parser(tokenizer)
        template = template_text(tokenizer)
        form = call_format(parser, template)
        if parser is None:
            return cls(form.start, form.end, known_only=True, format=form, notation=form) if form else None
        syntax = None
        if module and (form is None or form.starts):
            syntax = call_syntax(parser, module.parse_tool_call, module.tool_call_end)
        start, end = (module.tool_call_start, module.tool_call_end) if module else ("", "")
        if form is not None:
            start, end = form.start, form.end
        elif tags := tag_syntax(parser, template):
            start, end, syntax = tags.start, tags.closer, tags
        return cls(
            start=start,
            end=end,
            inner=inner_markers(parser),
            known_only=parser in _KNOWN_ONLY,
            format=form,
            syntax=syntax,
            notation=form or call_notation(parser, template),
        )

    @property
    def starts(self) -> tuple[str, ...]:
        """Every marker with which a call may begin."""
        reading = self.format or self.syntax
        others = reading.starts if reading else ()
        return tuple(dict.fromkeys((self.start, *others)))

    def is_part_of_call(self, start: str) -> bool:
        """Whether the marker that begins a call is a part of it."""
        reading = self.format or self.syntax
        return start in (reading.starts if reading else ()) or bool(self.format and self.format.starts_call)

    def without_tail(self, text: str) -> str:
        """Leave out what only ends a call, at the beginning of a text."""
        tail = self.format.tail.match(text) if self.format else None
        return text[tail.end() :].lstrip(", ") if tail else text


class CallReader:
    """Reads a region of calls, from behind its start marker. `over`: it has ended, and `rest` is what follows it.

    What was given out cannot be taken back. So a call is given out only once its name is certain and its arguments are
    an object so far, which is repaired as it comes and is valid JSON wherever it ends. If the region ends without a
    call, the marker was only quoted: it is text, and what stands behind it is `rest`.
    """

    def __init__(
        self,
        markup: CallMarkup,
        tools: Iterable[Mapping[str, Any]],
        index: int = 0,
        *,
        start: str | None = None,  # the start marker, where it is not that of the family
        one_call: bool = False,  # the region ends with its first complete call
        well_formed: bool = False,  # a grammar sees to it that the JSON is valid
        known_only: bool = False,  # calls of other tools are text
    ) -> None:
        self.over = False
        self.rest = ""
        self.index = index  # of the next call
        self.has_calls = False  # one was given out
        self._complete = 0  # calls that take_complete has yet to count
        self._markup = markup
        self._tools = list(tools)
        self._start = start or markup.start
        self._known_only = known_only or markup.known_only or self._start != markup.start
        self._one_call = one_call
        self._well_formed = well_formed
        self._arguments: ObjectReader | None = None
        self._value: ObjectReader | None = None  # of a call that is an object in another order than its format's
        self._json = ""  # of that value so far
        self._is_new = True  # nobody has taken its start yet
        self._begun: CallStart | None = None  # the arguments that have just begun
        self._pending = self._start if markup.is_part_of_call(self._start) else ""
        self._raw = ""  # the same as the model wrote it
        self._scanned = 0  # characters of a region in which its closer was looked for
        self._attempts = self._next_attempt = 0  # to parse it: how many, and its length before the next one
        self._closer_end = -1  # the position behind the last closer
        self._step: Callable[[], list[CallPart] | None] = self._read_head if markup.format else self._read_region_head

    def feed(self, text: str) -> list[CallPart]:
        """Take in text and give what is certain now."""
        self._pending += text
        parts: list[CallPart] = []
        while self._pending and not self.over:
            more = self._step()
            if more is None:
                break
            parts += more
        return parts

    def take_start(self) -> CallStart | None:
        """Give, once, that a region, also a next one where regions have no end, or arguments have begun just now."""
        form, self._well_formed = self._markup.format, False
        is_new, self._is_new = self._is_new, False
        begun, self._begun = self._begun, None
        if self._arguments is not None:
            return begun
        if form is not None and form.certain is not None:
            match = form.certain.match(self._pending) if self._step == self._read_head else None
            name = _parse_name(match["name"]) if match is not None else ""
            return CallStart(self._pending[match.end() :], tool=name) if match is not None and name else None
        if is_new:
            return CallStart(self._pending.removeprefix(self._start), self._start)
        start, is_head = self._markup.start, self._step == self._read_head and self.has_calls
        rest = self._markup.without_tail(self._pending) if is_head else ""
        return CallStart(rest.removeprefix(start), start) if rest.startswith(start) else None

    def trust(self) -> None:
        """Note that a grammar holds what comes, until `take_start` is called again."""
        self._well_formed = True
        if self._arguments is not None:
            self._arguments.well_formed = True

    def take_complete(self) -> int:
        """Give how many calls have become complete since the last time."""
        count, self._complete = self._complete, 0
        return count

    def finish(self) -> list[CallPart]:
        """Give what is left when the answer ends within the region."""
        parts: list[CallPart] = []
        if self._arguments:
            parts += self._emit_arguments(self._arguments, self._arguments.finish())
            if self._arguments:  # still incomplete
                self._pending = ""
        elif self._value:
            self._json += self._value.finish()
            parts += self._finish_value(self._value)
        parts += self.feed("")
        if not self.over and self._step == self._read_region:
            parts += self._parse_region(at_end=True) or []
        if not self.over:
            rest = (
                self._raw
                if self._value
                else self._markup.without_tail(self._pending)
                if self.has_calls
                else self._pending
            )
            parts += self._reject("" if self.has_calls and self._markup.end.startswith(rest.strip()) else rest)
        return parts

    # A format whose arguments are JSON.

    def _read_head(self) -> list[CallPart] | None:
        """Read up to the arguments of the next call, or to the end of the region."""
        form = self._markup.format
        assert form is not None
        match = form.head.match(self._pending, partial=True)
        if match is not None and match.partial:
            return None
        groups = match.groupdict() if match is not None else {}
        if match is not None and groups.get("end") and self.has_calls:
            return self._end(self._pending[match.end() :])
        name = _parse_name(groups.get("name") or "")
        if match is None or not self._is_callable(name):
            return self._try_other()
        self._pending = self._pending[match.end() - 1 :]
        self._begun = None if self._well_formed else CallStart(self._pending, tool=name)
        self._arguments, self._step = ObjectReader(well_formed=self._well_formed), self._read_arguments
        return [self._begin_call(groups.get("id") or "", name)]

    def _begin_call(self, identity: str, name: str, arguments: str = "") -> ToolCall:
        self.has_calls = True
        self.index += 1
        new_id = self._markup.format.new_id if self._markup.format else _new_id
        return ToolCall(self.index - 1, identity.strip('"') or new_id(), name, arguments)

    def _read_arguments(self) -> list[CallPart]:
        reader = self._arguments
        assert reader is not None
        text, self._pending = self._pending, ""
        return self._emit_arguments(reader, reader.feed(text))

    def _emit_arguments(self, reader: ObjectReader, piece: str) -> list[CallPart]:
        if reader.over:
            self._arguments, self._step, self._pending = None, self._read_head, reader.rest
            self._complete += 1
            if self._one_call:
                self._end(self._pending)
        return [ToolArguments(self.index - 1, piece)] if piece else []

    def _is_callable(self, name: str) -> bool:
        names = (tool["function"]["name"] for tool in self._tools)
        return bool(name.strip()) and (not self._known_only or name.strip() in names)

    def _try_other(self) -> list[CallPart]:
        """Go on with what does not begin as the format says: members in another order, or another notation."""
        self._pending = self._markup.without_tail(self._pending) if self.has_calls else self._pending
        if self._pending.lstrip().startswith(("{", "[")):
            self._value, self._step = ObjectReader("{["), self._read_value
            self._json = self._raw = ""
            return []
        if self._markup.syntax and not self.has_calls:
            self._step = self._read_region_head
            return []
        return self._reject(self._pending)

    def _reject(self, text: str) -> list[CallPart]:
        """End a region without a further call. The start marker is text; what follows it may hold a call."""
        if self.has_calls:
            return self._end(text)
        is_part = self._markup.is_part_of_call(self._start)
        self._end(text.removeprefix(self._start) if is_part else text)
        return [self._start]

    # A call that is one JSON value, its members in any order.

    def _read_value(self) -> list[CallPart] | None:
        reader = self._value
        assert reader is not None
        self._raw += self._pending
        text, self._pending = self._pending.lstrip() if not self._json else self._pending, ""
        self._json += reader.feed(text)
        return self._finish_value(reader)

    def _finish_value(self, reader: ObjectReader) -> list[CallPart]:
        if reader.invalid or reader.ambiguous:
            return self._reject(self._raw)
        if not reader.over:
            return []
        calls = _parse_calls(self._json, has_arguments=self._markup.is_part_of_call(self._markup.start))
        if not calls or not all(self._is_callable(name) for _, name, _ in calls):
            return self._reject(self._raw)
        self._value, self._pending = None, reader.rest
        self._step = self._read_head if self._markup.format else self._skip_end
        return self._emit_calls(calls)

    def _skip_end(self) -> list[CallPart] | None:
        """Skip the end marker of the region."""
        text, end = self._pending.lstrip(), self._markup.end
        return None if end.startswith(text) and text != end else self._end(text.removeprefix(end))

    def _emit_calls(self, calls: Sequence[Call]) -> list[CallPart]:
        calls = calls[:1] if self._one_call else calls
        self._complete += len(calls)
        parts: list[CallPart] = [self._begin_call(*call) for call in calls]
        if self._one_call:
            self._end(self._pending)
        return parts

    # A region whose calls are given once it is complete.

    def _read_region_head(self) -> list[CallPart] | None:
        syntax = self._markup.syntax
        if syntax is None:
            return self._reject(self._pending)
        begins = syntax.begins(self._pending, self._tools, known_only=self._known_only)
        if begins is None:
            return None
        if begins:
            self._step = self._read_region
            return []
        return self._try_other() if self._pending.lstrip().startswith(("{", "[")) else self._reject(self._pending)

    def _read_region(self) -> list[CallPart] | None:
        """Try to parse the region whenever it may have ended."""
        assert self._markup.syntax is not None
        closer = self._markup.syntax.closer
        position = self._pending.rfind(closer, max(0, self._scanned - len(closer) + 1))
        self._scanned = len(self._pending)
        if position >= 0:
            self._closer_end = position + len(closer)
        elif self._closer_end < 0 or len(self._pending) - self._closer_end > _LOOK_BEHIND:
            return None
        if self._attempts > _MOST_ATTEMPTS and len(self._pending) < self._next_attempt:
            return None
        self._attempts += 1
        self._next_attempt = len(self._pending) * 9 // 8
        return self._parse_region(at_end=False)

    def _parse_region(self, *, at_end: bool) -> list[CallPart] | None:
        assert self._markup.syntax is not None
        result = self._markup.syntax.parse(self._pending, self._tools, at_end=at_end)
        if result is None:
            return None
        calls, length = result
        if not calls or not all(self._is_callable(name) for _, name, _ in calls):
            return self._reject(self._pending)
        self._pending = self._pending[length:]
        parts = self._emit_calls(calls)
        self._end(self._pending)
        return parts

    def _end(self, rest: str) -> list[CallPart]:
        self.over, self.rest = True, rest
        return []


def _new_id() -> str:
    return f"call_{secrets.token_hex(12)}"


def _parse_name(text: str) -> str:
    """Parse a name, quoted or not; empty where it is none."""
    try:
        return str(parse_json(text) if text.startswith('"') else text).strip()
    except ValueError:
        return ""


def _parse_calls(text: str, *, has_arguments: bool) -> list[Call]:
    """Parse calls from JSON; none of them where one is invalid."""
    try:
        value = parse_json(text)
        values = value if isinstance(value, list) else [value]
        calls = [parse_call(value, has_arguments=has_arguments) for value in values]
    except (ValueError, RecursionError):
        return []
    return [call for call in calls if call is not None] if None not in calls else []
