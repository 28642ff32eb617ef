"""A tool call that a model writes within its reasoning."""

from typing import Protocol

from app.services.engine.output.markup import MarkerFinder
from app.services.engine.output.parts import OutputPart, TextPiece


class AnswerParser(Protocol):
    """What parses the text from the call on as if it were an answer: an `OutputParser`."""

    complete_calls: int

    @property
    def in_call(self) -> bool:
        """Whether the text is in a call, or in what may become one."""

    def feed(self, text: str) -> list[OutputPart]:
        """Take in text and give what is certain now."""

    def finish(self) -> list[OutputPart]:
        """Give what was held back."""


class CallInReasoning:
    """A call within reasoning. It is made only if the answer ends without closing the reasoning; else it is reasoning.

    So nothing of it, nor of what follows it, can be given out before either has happened.
    """

    def __init__(self, parser: AnswerParser, close: MarkerFinder, marker: str) -> None:
        self.marker = marker  # the start marker of the call
        self.text = marker  # all text so far
        self._parser = parser
        self._close = close
        self._parts = parser.feed(marker)
        self._pending = ""  # what may be a part of the marker that closes the reasoning

    @property
    def is_call(self) -> bool:
        """Whether it is a call, or may become one."""
        return (
            self._parser.in_call
            or self._parser.complete_calls > 0
            or any(not isinstance(part, TextPiece) for part in self._parts)
        )

    @property
    def complete_calls(self) -> int:
        """Calls of which all has come."""
        return self._parser.complete_calls

    def feed(self, text: str) -> tuple[str, str]:
        """Returns the marker that closes the reasoning and what follows it; or "", and what is no call."""
        text, self._pending = self._pending + text, ""
        begin, end = self._close(text)
        self.text += text[:begin]
        if begin < end:
            return text[begin:end], text[end:]
        self._parts += self._parser.feed(text[:begin])
        if not self.is_call:
            return "", text[begin:]
        self._pending = text[begin:]
        return "", ""

    def finish(self) -> list[OutputPart]:
        """Give all of it as parts of an answer: the answer has ended in it."""
        return self._parts + self._parser.feed(self._pending) + self._parser.finish()
