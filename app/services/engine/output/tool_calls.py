"""Calls as a model writes them: told piece by piece where their arguments are JSON, else when they are whole."""

import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app.services.engine.output.json_reader import ObjectReader
from app.services.engine.output.tool_call_families import region_of
from app.services.engine.output.tool_call_formats import CallFormat, call_format, inner_marks, parser_name
from app.services.engine.output.tool_call_syntax import Call, Region
from app.services.engine.output.tool_call_values import called, loaded
from app.services.generation import ToolArguments, ToolCall

_GUESSING = {"glm47", "laguna"}  # families in which words between the marks look like a call
_MOST_LOOKS = 64  # for the end of a region, before they become rare: a value may be full of what may end it
_LOOK_BEHIND = 64  # characters behind what may end a region, in which it shows whether it does

Heard = ToolCall | ToolArguments | str  # a string is no call after all


@dataclass(frozen=True, slots=True)
class CallMarkup:
    """How a model writes calls: the marks around them, and their format where they are JSON, else their region's."""

    start: str
    end: str
    inner: tuple[str, ...] = ()
    guesses: bool = False  # a call of a tool that there is not is none
    format: CallFormat | None = None
    region: Region | None = None

    @classmethod
    def of(cls, tokenizer: Any) -> "CallMarkup | None":
        """Read it off mlx-lm's tokenizer wrapper and its template. None: this model calls nothing."""
        parser = parser_name(tokenizer)
        template = tokenizer.chat_template
        form = call_format(parser, template if isinstance(template, str) else "")
        if parser is None:
            return cls(form.start, form.end, guesses=True, format=form) if form else None
        start, end = tokenizer.tool_call_start, tokenizer.tool_call_end or ""
        return cls(
            start=start,
            end=end,
            inner=inner_marks(parser),
            guesses=parser in _GUESSING,
            format=form,
            region=region_of(parser, tokenizer.tool_parser, end) if form is None or form.starts else None,
        )

    @property
    def starts(self) -> tuple[str, ...]:
        """Every mark with which a call may begin."""
        reader = self.format or self.region
        others = reader.starts if reader else ()
        return tuple(dict.fromkeys((self.start, *others)))

    def is_part_of_call(self, start: str) -> bool:
        """Whether the mark that begins a call is a part of it."""
        reader = self.format or self.region
        return start in (reader.starts if reader else ()) or bool(self.format and self.format.starts_call)


class CallReader:
    """Reads a region of calls, from behind the mark that begins it. `over`: it has ended, and `rest` is what follows.

    What has been told stands. So a call is begun only when its name is certain and its arguments are an object so far,
    which is mended as it comes and so becomes one whenever it ends. Where nothing has been told, the mark was only
    quoted: it is text, and what stands behind it is `rest`.
    """

    def __init__(
        self,
        markup: CallMarkup,
        tools: Iterable[Mapping[str, Any]],
        index: int = 0,
        *,
        start: str | None = None,  # the mark, where it is not that of the family
        one_call: bool = False,  # nothing follows the first that is whole
        well_formed: bool = False,  # a grammar sees to it
    ) -> None:
        self.over = False
        self.rest = ""
        self.index = index  # of the next call
        self.begun = False  # a call has been told
        self._whole = 0  # calls that have become complete
        self._markup = markup
        self._tools = list(tools)
        self._start = start or markup.start
        self._guesses = markup.guesses or self._start != markup.start  # only tools that there are make a call
        self._one_call = one_call
        self._well_formed = well_formed
        self._arguments: ObjectReader | None = None
        self._value: ObjectReader | None = None  # of a call that is an object in another order than its format's
        self._json = ""  # of that value so far
        self._held = self._start if markup.is_part_of_call(self._start) else ""
        self._raw = ""  # what has been taken out of it without being told
        self._looked = 0  # characters of a region that have been looked at
        self._looks = self._look_at = 0  # how often, and how long it has to be for the next time
        self._closed = -1  # where the last of its closers ended
        self._step: Callable[[], list[Heard] | None] = self._head if markup.format else self._region_head

    def feed(self, text: str) -> list[Heard]:
        """Take in text and give what is certain now."""
        self._held += text
        heard: list[Heard] = []
        while self._held and not self.over:
            more = self._step()
            if more is None:
                break
            heard += more
        return heard

    def take_complete(self) -> int:
        """Give how many calls have become complete since it was asked last."""
        whole, self._whole = self._whole, 0
        return whole

    def finish(self) -> list[Heard]:
        """Give what is left when the answer ends within the region."""
        heard: list[Heard] = []
        if self._arguments:
            heard += self._argued(self._arguments, self._arguments.finish())
            if self._arguments:  # cut off
                self._held = ""
        elif self._value:
            self._json += self._value.finish()
            heard += self._valued(self._value)
        heard += self.feed("")
        if not self.over and self._step == self._region:
            heard += self._regioned(at_end=True) or []
        if not self.over:
            rest = self._raw if self._value else self._behind() if self.begun else self._held
            heard += self._no_call("" if self.begun and self._markup.end.startswith(rest.strip()) else rest)
        return heard

    # A format whose arguments are JSON.

    def _head(self) -> list[Heard] | None:
        """Read up to the arguments of the next call, or to the end of the region."""
        form = self._markup.format
        assert form is not None
        match = form.head.match(self._held, partial=True)
        if match is not None and match.partial:
            return None
        read = match.groupdict() if match is not None else {}
        if match is not None and read.get("end") and self.begun:
            return self._end(self._held[match.end() :])
        name = self._name(read.get("name") or "")
        if match is None or name is None:
            return self._other()
        self._held = self._held[match.end() - 1 :]
        self._arguments, self._step = ObjectReader(well_formed=self._well_formed), self._go_on
        return [self._begin(read.get("id") or "", name)]

    def _begin(self, identity: str, name: str, arguments: str = "") -> ToolCall:
        self.begun = True
        self.index += 1
        new_id = self._markup.format.new_id if self._markup.format else _new_id
        return ToolCall(self.index - 1, identity.strip('"') or new_id(), name, arguments)

    def _go_on(self) -> list[Heard]:
        reader = self._arguments
        assert reader is not None
        text, self._held = self._held, ""
        return self._argued(reader, reader.feed(text))

    def _argued(self, reader: ObjectReader, piece: str) -> list[Heard]:
        if reader.over:
            self._arguments, self._step, self._held = None, self._head, reader.rest
            self._whole += 1
            if self._one_call:
                self._end(self._held)
        return [ToolArguments(self.index - 1, piece)] if piece else []

    def _behind(self) -> str:
        """What is held, without what only ends a call."""
        tail = self._markup.format.tail.match(self._held) if self._markup.format else None
        return self._held[tail.end() :].lstrip(", ") if tail else self._held

    def _name(self, written: str) -> str | None:
        """Read a name, quoted or not. None for one that cannot be."""
        try:
            name = str(loaded(written)) if written.startswith('"') else written
        except ValueError:
            return None
        return name.strip() if name.strip() and self._is_callable(name) else None

    def _is_callable(self, name: str) -> bool:
        if not self._guesses:
            return True
        return any(tool["function"]["name"] == name.strip() for tool in self._tools)

    def _other(self) -> list[Heard]:
        """What is no head may still be a call, in another order or notation."""
        self._held = self._behind() if self.begun else self._held
        if self._held.lstrip().startswith(("{", "[")):
            self._value, self._step = ObjectReader("{["), self._whole_value
            self._json = self._raw = ""
            return []
        if self._markup.region and not self.begun:
            self._step = self._region_head
            return []
        return self._no_call(self._held)

    def _no_call(self, text: str) -> list[Heard]:
        """Nothing more is told of this region: the mark alone is certain to be text, what follows may hold another."""
        if self.begun:
            return self._end(text)
        is_part = self._markup.is_part_of_call(self._start)
        self._end(text.removeprefix(self._start) if is_part else text)
        return [self._start]

    # A call that is one JSON value, of whatever order.

    def _whole_value(self) -> list[Heard] | None:
        reader = self._value
        assert reader is not None
        self._raw += self._held
        text, self._held = self._held.lstrip() if not self._json else self._held, ""
        self._json += reader.feed(text)
        return self._valued(reader)

    def _valued(self, reader: ObjectReader) -> list[Heard]:
        if reader.broken or reader.wild:
            return self._no_call(self._raw)
        if not reader.over:
            return []
        calls = list(self._calls(self._json))
        if not calls:
            return self._no_call(self._raw)
        self._value, self._held = None, reader.rest
        self._step = self._head if self._markup.format else self._after_value
        return self._told(calls)

    def _calls(self, text: str) -> Iterator[Call]:
        """Read calls from JSON; none of them where one is none."""
        try:
            value = loaded(text)
            several = value if isinstance(value, list) else [value]
            calls = [called(call, has_arguments=self._markup.is_part_of_call(self._markup.start)) for call in several]
        except (ValueError, RecursionError):
            return
        if all(call is not None and self._is_callable(call[1]) for call in calls):
            yield from (call for call in calls if call is not None)

    def _after_value(self) -> list[Heard] | None:
        """Pass over the mark that ends the region."""
        text, end = self._held.lstrip(), self._markup.end
        if end.startswith(text) and text != end:
            return None
        return self._end(text.removeprefix(end))

    def _told(self, calls: Sequence[Call]) -> list[Heard]:
        calls = calls[:1] if self._one_call else calls
        self._whole += len(calls)
        told: list[Heard] = [self._begin(*call) for call in calls]
        if self._one_call:
            self._end(self._held)
        return told

    # A region that is told when all of it is there.

    def _region_head(self) -> list[Heard] | None:
        region = self._markup.region
        if region is None:
            return self._no_call(self._held)
        begins = region.begins(self._held, self._tools, known_only=self._guesses)
        if begins is None:
            return None
        if begins:
            self._step = self._region
            return []
        return self._other() if self._held.lstrip().startswith(("{", "[")) else self._no_call(self._held)

    def _region(self) -> list[Heard] | None:
        """Look whenever something may have ended."""
        assert self._markup.region is not None
        closer = self._markup.region.closer
        place = self._held.rfind(closer, max(0, self._looked - len(closer) + 1))
        self._looked = len(self._held)
        if place >= 0:
            self._closed = place + len(closer)
        elif self._closed < 0 or len(self._held) - self._closed > _LOOK_BEHIND:
            return None
        if self._looks > _MOST_LOOKS and len(self._held) < self._look_at:
            return None
        self._looks += 1
        self._look_at = len(self._held) * 9 // 8
        return self._regioned(at_end=False)

    def _regioned(self, *, at_end: bool) -> list[Heard] | None:
        assert self._markup.region is not None
        read = self._markup.region.read(self._held, self._tools, at_end=at_end)
        if read is None:
            return None
        calls, length = read
        if not calls or not all(self._is_callable(name) for _, name, _ in calls):
            return self._no_call(self._held)
        self._held = self._held[length:]
        told = self._told(calls)
        self._end(self._held)
        return told

    def _end(self, rest: str) -> list[Heard]:
        self.over, self.rest = True, rest
        return []


def _new_id() -> str:
    return f"call_{secrets.token_hex(12)}"
