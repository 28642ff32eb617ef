"""Calls as a model writes them: told piece by piece where their arguments are JSON, else when they are whole."""

import json
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app.services.engine.call_formats import CallFormat, call_format, inner_marks, parser_name
from app.services.engine.json_reader import ObjectReader
from app.services.generation import ToolArguments, ToolCall

_GUESSING = {"glm47"}  # parsers that make a call of any words

Heard = ToolCall | ToolArguments | str  # a string is no call after all


@dataclass(frozen=True, slots=True)
class CallMarkup:
    """How a model writes calls: the marks around them, what parses them, and their format where they are JSON."""

    start: str
    end: str
    parse: Callable[[str, list[Any]], Any] | None = None
    inner: tuple[str, ...] = ()
    guesses: bool = False  # a call of a tool that there is not is none
    format: CallFormat | None = None

    @classmethod
    def of(cls, tokenizer: Any) -> "CallMarkup | None":
        """Read it off mlx-lm's tokenizer wrapper and its template. None: this model calls nothing."""
        parser = parser_name(tokenizer)
        template = tokenizer.chat_template
        form = call_format(parser, template if isinstance(template, str) else "")
        if parser is None:
            return cls(form.start, form.end, guesses=True, format=form) if form else None
        return cls(
            start=tokenizer.tool_call_start,
            end=tokenizer.tool_call_end or "",
            parse=tokenizer.tool_parser,
            inner=inner_marks(parser),
            guesses=parser in _GUESSING,
            format=form,
        )


class CallReader:
    """Reads a region of calls, from behind its start mark. `over`: it has ended, and `rest` is what follows it.

    What has been told stands. So a call is begun only when its name is certain and its arguments are an object so far,
    and its arguments go no further than they are JSON: where they break off they can not be taken for whole ones, and
    the rest is text. A call that was not begun is text, if it does not parse when it ends.
    """

    def __init__(
        self, markup: CallMarkup, tools: Iterable[Mapping[str, Any]], index: int = 0, *, one_call: bool = False
    ) -> None:
        self.over = False
        self.rest = ""
        self.index = index  # of the next call
        self._whole = 0  # calls that have become complete
        self._markup = markup
        self._tools = list(tools)
        self._one_call = one_call  # nothing follows the first that is whole
        self._begun = False
        self._arguments: ObjectReader | None = None
        self._form = markup.format  # None once nothing but the whole region can tell
        self._held = markup.start if markup.format and markup.format.starts_call else ""
        self._looked = 0  # characters in which there is no end mark

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

    def take_whole(self) -> int:
        """Give how many calls have become complete since it was asked last."""
        whole, self._whole = self._whole, 0
        return whole

    def finish(self) -> list[Heard]:
        """Give what is left when the answer ends within the region."""
        self.over = True
        if self._arguments:
            return []
        if not self._begun:
            is_json = self._markup.format is not None or not self._markup.end
            return self._parsed(self._held) if is_json else self._as_text(self._held)
        rest = self._behind()
        return [] if self._markup.end.startswith(rest) else [rest]

    def _step(self) -> list[Heard] | None:
        """Understand some more of what is held. None where there is not enough of it."""
        if self._arguments:
            return self._go_on(self._arguments)
        return self._head(self._form) if self._form else self._collect()

    def _head(self, form: CallFormat) -> list[Heard] | None:
        found = form.head.match(self._held, partial=True)
        if found is not None and found.partial:
            return None
        read = found.groupdict() if found is not None else {}
        if found is not None and read.get("end") and self._begun:
            return self._end(self._held[found.end() :])
        name = self._name(read.get("name") or "")
        if found is None or name is None:
            return self._no_head(form)
        self._held = self._held[found.end() - 1 :]
        self._arguments, self._begun = ObjectReader(), True
        self.index += 1
        identity = (read.get("id") or "").strip('"') or form.new_id()
        return [ToolCall(self.index - 1, identity, name, "")]

    def _no_head(self, form: CallFormat) -> list[Heard]:
        if self._begun:
            return self._end(self._behind())
        if form.starts_call:
            self._end(self._held.removeprefix(self._markup.start))
            return [self._markup.start]
        self._form = None
        return []

    def _behind(self) -> str:
        """What is held, without what only ends a call."""
        assert self._form is not None
        tail = self._form.tail.match(self._held)
        return self._held[tail.end() :].lstrip(", ") if tail else self._held

    def _go_on(self, reader: ObjectReader) -> list[Heard]:
        taken = reader.feed(self._held)
        piece, self._held = self._held[:taken], self._held[taken:]
        if reader.over:
            self._arguments = None
            self._whole += 1
        if reader.broken or (reader.over and self._one_call):
            self._end(self._held)
        return [ToolArguments(self.index - 1, piece)] if piece else []

    def _collect(self) -> list[Heard] | None:
        end = self._markup.end
        place = self._held.find(end, max(0, self._looked - len(end))) if end else -1
        if place < 0:
            self._looked = len(self._held)
            return None
        text, rest = self._held[:place], self._held[place + len(end) :]
        heard = self._parsed(text, end)
        self._end(rest)
        return heard

    def _end(self, rest: str) -> list[Heard]:
        self.over, self.rest = True, rest
        return []

    def _name(self, written: str) -> str | None:
        """Read a name, quoted or not. None for one that cannot be."""
        try:
            name = json.loads(written) if written.startswith('"') else written
        except ValueError:
            return None
        return name if name and (not self._markup.guesses or self._is_known(name)) else None

    def _is_known(self, name: str) -> bool:
        return any(tool["function"]["name"] == name for tool in self._tools)

    def _parsed(self, text: str, end: str = "") -> list[Heard]:
        """Parse a region as a whole. What is no call, whatever a parser raises over it, is text."""
        if self._markup.parse is None:
            return self._as_text(text, end)
        try:
            parsed = self._markup.parse(text, self._tools)
            several: Sequence[Any] = (parsed if isinstance(parsed, list) else [parsed])[: 1 if self._one_call else None]
            calls = [self._call(call, self.index + place) for place, call in enumerate(several)]
        except Exception:
            calls = []
        if not calls:
            return self._as_text(text, end)
        self.index += len(calls)
        self._whole += len(calls)
        return list(calls)

    def _call(self, call: Mapping[str, Any], index: int) -> ToolCall:
        name, arguments = call["name"], call.get("arguments", {})
        if not isinstance(name, str) or not name or (self._markup.guesses and not self._is_known(name)):
            raise ValueError("a call without a name")
        if not isinstance(arguments, str):
            arguments = json.dumps(arguments, ensure_ascii=False)
        new_id = self._markup.format.new_id if self._markup.format else _new_id
        return ToolCall(index, str(call.get("id") or new_id()), name, arguments)

    def _as_text(self, text: str, end: str = "") -> list[Heard]:
        start = "" if self._markup.format and self._markup.format.starts_call else self._markup.start
        return [f"{start}{text}{end}"]


def _new_id() -> str:
    return f"call_{secrets.token_hex(12)}"
