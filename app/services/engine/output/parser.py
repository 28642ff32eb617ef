"""Parses an answer's text into reasoning, text and tool calls, whatever the pieces it comes in."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from app.services.engine.output.answer_text import AnswerText
from app.services.engine.output.call_in_reasoning import CallInReasoning
from app.services.engine.output.markup import CLOSE, NORMAL, OPEN, PLAIN, REASONING, TOOL, Markup
from app.services.engine.output.parts import OutputPart, TextPiece
from app.services.engine.output.stop_strings import StopStrings
from app.services.engine.output.tool_calls import CallPart, CallReader

_MOST_RETRIES = 16  # of texts that began like a call and were none: what they contain is parsed again


class OutputParser:
    """Parses the text of one answer, as it comes, into text, reasoning and tool calls.

    `stop_string` is what ended it; `complete_calls` counts the calls of which all has come. Stop strings
    are looked for in the text of the answer alone: not in the reasoning, not in markers, not in calls.
    """

    def __init__(
        self,
        markup: Markup,
        *,
        stop: Iterable[str] = (),
        tools: Sequence[Mapping[str, Any]] = (),
        split_reasoning: bool = True,
        thinking: bool = False,  # the prompt ends within the reasoning
        continues: bool = False,  # the answer continues a text, so that white space at its beginning counts
        one_call: bool = False,  # the answer is over once a call is complete
        may_think: bool = True,  # the answer may begin with reasoning
        has_grammar: bool = False,  # the answer follows a grammar
        known_only: bool = False,  # calls of other tools are text
        plain: bool = False,  # markers are text, but for calls at the beginning
        stop_strings: StopStrings | None = None,  # instead of `stop`, compiled
    ) -> None:
        self.stop_string: str | None = None
        self.complete_calls = 0
        self._markup = markup
        self._tools = tools
        self._one_call = one_call
        self._call_options: dict[str, Any] = {"one_call": one_call, "known_only": known_only}
        self._reader_options = {"well_formed": has_grammar, **self._call_options}
        self._plain = plain
        self._finders = markup.finders(tools=bool(tools), split_reasoning=split_reasoning)
        self._answer_text = AnswerText(markup.frame if split_reasoning else None, stop_strings, tuple(stop))
        self.reader: CallReader | None = None  # of the region of calls that the answer is in
        self._reasoning_call: CallInReasoning | None = None  # the call in the reasoning that the answer is in
        self._call_index = 0  # of the next call
        self._pending = ""  # text that may be a part of a marker, or white space before anything else has come
        # States whose leading white space is dropped.
        self._trimmed_states = {REASONING} if thinking and not continues else set[str]()
        self._may_think = may_think and split_reasoning and not continues
        header = markup.initial if split_reasoning and not (has_grammar or continues) else None  # neither has a header
        self._state = REASONING if thinking and split_reasoning else header or self._initial_state()

    @property
    def in_reasoning(self) -> bool:
        """Whether the answer is in its reasoning."""
        return self._state == REASONING

    @property
    def in_answer(self) -> bool:
        """Whether text that comes may be shown: not in reasoning, not in a call, nor in the blank after them."""
        if self.reader is not None:
            return not self.reader.has_calls
        return self._state in (OPEN, NORMAL, PLAIN) and (
            NORMAL not in self._trimmed_states or bool(self._pending.strip())
        )

    @property
    def in_call(self) -> bool:
        """Whether the answer is in a call, or in what may become one."""
        return self.reader is not None

    @property
    def over(self) -> bool:
        """Whether the answer has ended: by a stop string, or because its only call is complete."""
        return self.stop_string is not None or (self._one_call and self.complete_calls > 0)

    def skip_reasoning(self) -> None:
        """Note that the answer begins without reasoning."""
        self._may_think = False
        if self._state == OPEN:
            self._state = self._initial_state()

    def feed(self, text: str) -> list[OutputPart]:
        """Take in text and give what is certain now. What follows a stop string is dropped."""
        parts: list[OutputPart] = []
        while text and not self.over:
            if self._reasoning_call is not None:
                more, text = self._parse_reasoning_call(self._reasoning_call, text)
            elif self.reader is not None:
                more, text = self._parse_call(self.reader, text)
            elif self._state == OPEN:
                more, text = self._parse_opening(text)
            else:
                more, text = self._parse_text(text)
            parts += more
        return parts

    def finish(self, *, ended: bool = False) -> list[OutputPart]:
        """Give what was held back. An incomplete call becomes text, whether or not the model has `ended`."""
        parts: list[OutputPart] = []
        retries = 0
        while not self.over and (self._reasoning_call or self.reader or self._pending):
            if self._reasoning_call is not None:
                parts += self._finish_reasoning_call(self._reasoning_call)
            elif self.reader is not None:
                reader, self.reader = self.reader, None
                more, rest = self._end_call(reader, reader.finish())
                parts += more
                retries += 1
                if retries > _MOST_RETRIES:
                    self._state = REASONING if self.in_reasoning else PLAIN
                parts += self.feed(rest)
            else:
                text, self._pending = self._pending, ""
                if self._state == OPEN:
                    self._state = PLAIN if self._plain else NORMAL
                parts += self._emit_text(text)
        return parts + self._flush_answer_text()

    def _initial_state(self) -> str:
        """The state in which an answer begins outside of reasoning."""
        opens = self._finders[OPEN].edges
        if self._may_think and REASONING in opens.values():
            return OPEN
        if self._plain:
            return OPEN if TOOL in opens.values() else PLAIN
        return NORMAL

    def _parse_opening(self, text: str) -> tuple[list[OutputPart], str]:
        """Wait until it is certain whether the answer begins with a marker that is one only there, behind blanks."""
        text, self._pending = self._pending + text, ""
        begin, end = self._finders[OPEN](text)
        before, marker = text[:begin], text[begin:end]
        to = self._finders[OPEN].edges.get(marker, NORMAL)
        if to == REASONING and not self._may_think:
            before = marker  # it is text
        if before.strip():
            self._state = PLAIN if self._plain else NORMAL
            return [], text
        if not marker:
            self._pending = text
            return [], ""
        if to in (OPEN, NORMAL):  # a structural marker
            return [], before + text[end:]
        parts = [] if to == REASONING else self._emit_text(before)
        self._enter(to, marker)
        return parts, text[end:]

    def _parse_text(self, text: str) -> tuple[list[OutputPart], str]:
        """Parse text up to a marker; what follows it is returned."""
        finder = self._finders[self._state]
        text, self._pending = self._pending + text, ""
        begin, end = finder(text)
        parts = self._emit_text(text[:begin])
        if begin == end:
            self._pending = text[begin:]
            return parts, ""
        marker = text[begin:end]
        if self.stop_string is None:
            self._enter(finder.edges[marker], marker)
        return parts, text[end:]

    def _enter(self, to: str, marker: str) -> None:
        """Enter a state, or a call, at its marker."""
        if to == TOOL:
            assert self._markup.calls is not None
            if self._state == REASONING:
                parser = OutputParser(self._markup, tools=self._tools, may_think=False, **self._call_options)
                self._reasoning_call = CallInReasoning(parser, self._finders[CLOSE], marker)
            else:
                self.reader = CallReader(
                    self._markup.calls, self._tools, self._call_index, start=marker, **self._reader_options
                )
            return
        if to == REASONING:
            self._trimmed_states = {REASONING}
        elif self._state == REASONING:
            self._trimmed_states = {NORMAL}
            self._may_think = False
            to = self._initial_state() if to == NORMAL else to
        self._state = to

    def _emit_text(self, text: str) -> list[OutputPart]:
        """Give text of the present state, up to a stop string if it is the answer's. Text of headers is dropped."""
        state = NORMAL if self._state in (OPEN, PLAIN) else self._state
        if state in self._trimmed_states:
            text = text.lstrip()
        if not text or state not in (NORMAL, REASONING):
            return []
        self._trimmed_states.discard(state)
        if state == REASONING:
            return [TextPiece(text, reasoning=True)]
        text = self._answer_text.feed(text)
        self.stop_string = self._answer_text.stop_string
        return [TextPiece(text)] if text else []

    def _flush_answer_text(self) -> list[OutputPart]:
        """Give what was held back for what might have followed it."""
        rest = self._answer_text.flush()
        self.stop_string = self._answer_text.stop_string
        return [TextPiece(rest)] if rest else []

    def _parse_call(self, reader: CallReader, text: str) -> tuple[list[OutputPart], str]:
        """Parse the text of calls; what follows them is returned."""
        call_parts = reader.feed(text)
        if not reader.over:
            return self._emit_call_parts(reader, call_parts), ""
        self.reader = None
        return self._end_call(reader, call_parts)

    def _end_call(self, reader: CallReader, call_parts: Iterable[CallPart]) -> tuple[list[OutputPart], str]:
        """Leave a region of calls; the second value is the text that follows it."""
        parts = self._emit_call_parts(reader, call_parts)
        if reader.has_calls:
            self._trimmed_states = {NORMAL}  # the empty line between two calls is no text
            self._state = NORMAL
        elif self._state != REASONING:
            self._state = PLAIN if self._plain else NORMAL
        self._call_index = reader.index
        return parts, reader.rest

    def _emit_call_parts(self, reader: CallReader, call_parts: Iterable[CallPart]) -> list[OutputPart]:
        parts: list[OutputPart] = []
        for part in call_parts:
            parts += self._emit_text(part) if isinstance(part, str) else self._flush_answer_text()
            if self.stop_string is not None:
                return parts
            parts += [] if isinstance(part, str) else [part]
        self.complete_calls += reader.take_complete()
        return parts

    def _parse_reasoning_call(self, call: CallInReasoning, text: str) -> tuple[list[OutputPart], str]:
        """Parse reasoning that seems to contain a call; what follows it, or was no call, is returned."""
        marker, rest = call.feed(text)
        if marker:
            self._reasoning_call = None
            parts = self._emit_text(call.text)
            self._enter(self._finders[CLOSE].edges[marker], marker)
            return parts, rest
        if call.is_call:
            return [], ""
        self._reasoning_call = None
        return self._emit_text(call.marker), call.text.removeprefix(call.marker) + rest

    def _finish_reasoning_call(self, call: CallInReasoning) -> list[OutputPart]:
        """Give the calls of a reasoning that the answer ended in."""
        self._reasoning_call = None
        parts: list[OutputPart] = []
        for part in call.finish():
            if self.stop_string is not None:
                break
            if not isinstance(part, TextPiece):
                self._state = NORMAL
            parts += self._emit_text(part.text) if isinstance(part, TextPiece) else [part]
        self.complete_calls += call.complete_calls
        return parts
