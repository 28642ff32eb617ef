"""Parses an answer that consists of messages with headers, as in OpenAI's harmony format."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from app.services.engine.output import harmony
from app.services.engine.output.answer_text import AnswerText
from app.services.engine.output.detokenizer import CONTROL
from app.services.engine.output.harmony import Header, MessageCall
from app.services.engine.output.markup import NORMAL, REASONING, MarkerFinder
from app.services.engine.output.parts import CallStart, OutputPart, TextPiece
from app.services.engine.output.stop_strings import StopStrings
from app.services.generation import ToolCall

_SKIPPED = "skipped"  # a message whose text is no part of the answer, or what follows the arguments of a call
_SEAM = "\n\n"  # between two messages that are shown as one text
_FIND = MarkerFinder((harmony.control(token), token) for token in harmony.TOKENS)


class MessageParser:
    """Parses the text of one answer, as it comes: what `OutputParser` is to formats with markers.

    Markers are control tokens, which the text has behind CONTROL: what is only spelled like them is text.
    """

    def __init__(
        self,
        *,
        stop: Iterable[str] = (),
        tools: Sequence[Mapping[str, Any]] = (),
        split_reasoning: bool = True,  # else messages of reasoning are text, with their markers
        thinking: bool = False,  # the prompt ends within the reasoning
        continues: bool = False,  # the prompt ends within a message, so that white space at the beginning counts
        one_call: bool = False,  # the answer is over once a call is complete
        has_grammar: bool = False,  # the answer follows a grammar
        known_only: bool = False,  # calls of other functions are none
        raw: bool = False,  # all of the answer is text
        stop_strings: StopStrings | None = None,  # instead of `stop`, compiled
    ) -> None:
        self.stop_string: str | None = None
        self.complete_calls = 0
        self._tools = tools
        self._split_reasoning = split_reasoning
        self._one_call = one_call
        self._known_only = known_only
        self._raw = raw
        self._answer_text = AnswerText(None, stop_strings, tuple(stop))
        in_message = raw or thinking or continues
        self.reader = self  # of calls
        self._header: str | None = None if in_message else ""  # the header that the answer is in, so far
        self._state = REASONING if thinking and split_reasoning else NORMAL  # of the message that it is in
        self._call: MessageCall | None = None  # that the message is
        self._call_index = 0  # of the next call
        self._is_held = has_grammar  # a grammar holds what comes
        self._has_new_call = False  # the message has begun with what came last
        self._is_quoted = thinking and not split_reasoning  # the message is reasoning within the text
        self._trims = not (raw or continues)  # white space at the beginning of the message is dropped
        self._states: set[str] = set()  # of which text has been given
        self._pending = ""  # text that may be a part of a marker

    @property
    def in_reasoning(self) -> bool:
        """Whether the answer is in its reasoning."""
        return self._header is None and self._call is None and self._state == REASONING

    @property
    def in_answer(self) -> bool:
        """Whether text that comes may be shown: not in reasoning, not in a call, nor in the blank after them."""
        return self._header is None and self._call is None and self._state == NORMAL and not self._trims

    @property
    def over(self) -> bool:
        """Whether the answer has ended: by a stop string, or because its only call is complete."""
        return self.stop_string is not None or (self._one_call and self.complete_calls > 0)

    def take_start(self) -> CallStart | None:
        """Give, once, that a call has begun with what came last."""
        self._is_held = False
        is_new, self._has_new_call = self._has_new_call, False
        if self._call is not None:
            return CallStart(self._call.text, tool=self._call.header.function or "") if is_new else None
        _, recipient, name = (self._header or "").rpartition(harmony.RECIPIENT)
        return CallStart(name, recipient) if recipient and CONTROL not in name else None

    def trust(self) -> None:
        """Note that a grammar holds the call that the answer is in, until `take_start` is called again."""
        self._is_held = True
        if self._call is not None:
            self._call.trust()

    def skip_reasoning(self) -> None:
        """Note that the answer begins without reasoning: here its headers say so."""

    def feed(self, text: str) -> list[OutputPart]:
        """Take in text and give what is certain now. What follows a stop string is dropped."""
        if self._raw:
            return [] if self.over else self._emit(text.replace(CONTROL, ""))
        parts: list[OutputPart] = []
        text, self._pending = self._pending + text, ""
        while text and not self.over:
            begin, end = _FIND(text)
            parts += self._take(text[:begin])
            if begin == end:
                self._pending = text[begin:]
                break
            if not self.over:
                parts += self._take_token(_FIND.edges[text[begin:end]])
            text = text[end:]
        return parts

    def finish(self, *, ended: bool = False) -> list[OutputPart]:
        """Give what was held back. `ended`: the model has ended the answer; it was not cut off."""
        parts: list[OutputPart] = []
        if self._header is not None and ended and CONTROL not in self._header:  # there was none
            parts += self._begin_text(self._header)
        if not self.over:
            parts += self._leave(ended=ended)
        return parts + self._flush_answer_text()

    def _take(self, text: str) -> list[OutputPart]:
        """Take in text between two control tokens."""
        if self._header is not None:
            self._header += text
            return [] if harmony.may_be_header(self._header) else self._begin_text(self._header)
        return self._emit(text) if self._call is None else self._take_arguments(self._call, text)

    def _take_token(self, token: str) -> list[OutputPart]:
        """Take in a control token."""
        if token == harmony.MESSAGE:
            if self._header is None:
                return []
            return self._begin(Header.parse(self._header, self._tools, known_only=self._known_only))
        if self._header is not None and token in (harmony.CHANNEL, harmony.CONSTRAIN):
            return self._take(harmony.control(token))
        if token == harmony.CONSTRAIN:
            return []
        parts = self._leave(ended=token != harmony.CHANNEL)
        if self._is_quoted and self._header is None and token == harmony.END:
            parts += self._emit(token)
        self._header = harmony.control(token) if token in (harmony.START, harmony.CHANNEL) else ""
        return parts

    def _begin(self, header: Header) -> list[OutputPart]:
        """Begin a message."""
        self._header, self._trims = None, True
        self._state = _state(header)
        if self._is_quoted:
            self._is_quoted = False
            self._states.discard(NORMAL)  # no seam behind a marker
        if header.function is not None:
            self._has_new_call = not self._is_held
            self._call = MessageCall(header, self._call_index, well_formed=self._is_held)
        elif self._state == REASONING and not self._split_reasoning:
            self._state, self._is_quoted = NORMAL, True
            return self._emit(harmony.ANALYSIS)
        return []

    def _begin_text(self, text: str) -> list[OutputPart]:
        """Begin a message without a header: `text` is no header after all."""
        return self._begin(Header()) + self._emit(harmony.text_of(text))

    def _take_arguments(self, call: MessageCall, text: str) -> list[OutputPart]:
        parts = self._emit_call(call, call.feed(text))
        if call.is_text:
            self._call = None
            return self._emit(call.text)
        return parts

    def _emit_call(self, call: MessageCall, call_parts: Sequence[OutputPart]) -> list[OutputPart]:
        parts: list[OutputPart] = []
        if call_parts and isinstance(call_parts[0], ToolCall):
            parts += self._flush_answer_text()
            self._call_index += 1
        if call.is_complete:
            self.complete_calls += 1
            self._call, self._state = None, _SKIPPED
        return [*parts, *call_parts]

    def _leave(self, *, ended: bool) -> list[OutputPart]:
        """Leave the message."""
        call, self._call = self._call, None
        return self._emit_call(call, call.finish(ended=ended)) if call else []

    def _emit(self, text: str) -> list[OutputPart]:
        """Give text of the message, that of the answer up to a stop string."""
        text = text.lstrip() if self._trims else text
        if not text or self._state == _SKIPPED:
            return []
        if self._trims and self._state in self._states:
            text = _SEAM + text
        self._trims = False
        self._states.add(self._state)
        if self._state == REASONING:
            return [TextPiece(text, reasoning=True)]
        text = self._answer_text.feed(text)
        self.stop_string = self._answer_text.stop_string
        return [TextPiece(text)] if text else []

    def _flush_answer_text(self) -> list[OutputPart]:
        rest = self._answer_text.flush()
        return [TextPiece(rest)] if rest else []


def _state(header: Header) -> str:
    if not header.is_own:
        return _SKIPPED
    return REASONING if header.is_reasoning else NORMAL
