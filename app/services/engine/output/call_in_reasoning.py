"""A tool call that a model writes within its reasoning."""

from typing import Protocol

from app.services.engine.output.markup import Finder
from app.services.engine.output.parts import OutputPart, TextPiece


class AnswerParser(Protocol):
    """What parses text from the call on as an answer, an `OutputParser`."""

    complete_calls: int

    @property
    def in_call(self) -> bool:
        """Whether the model is in a call, or in what may become one."""

    def feed(self, text: str) -> list[OutputPart]:
        """Take in text and give what is certain now."""

    def finish(self) -> list[OutputPart]:
        """Give what was held back."""


class Rehearsal:
    """A call within a thought. It counts only where the thought never closes; where it does, it was thought of.

    So nothing of it, and of what follows it, can be told before one of the two has come.
    """

    def __init__(self, parser: AnswerParser, close: Finder, mark: str) -> None:
        self.mark = mark  # that begins the call
        self.text = mark  # all of it so far
        self._parser = parser  # reads it as an answer
        self._close = close
        self._parts = parser.feed(mark)
        self._held = ""  # what may be a part of the mark that closes the thought

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
        """Calls that are whole."""
        return self._parser.complete_calls

    def feed(self, text: str) -> tuple[str, str]:
        """Take in text. Gives the mark that closes the thought and what follows it; no mark, and what is no call."""
        text, self._held = self._held + text, ""
        begin, end = self._close(text)
        self.text += text[:begin]
        if begin < end:
            return text[begin:end], text[end:]
        self._parts += self._parser.feed(text[:begin])
        if not self.is_call:
            return "", text[begin:]
        self._held = text[begin:]
        return "", ""

    def finish(self) -> list[OutputPart]:
        """Give all of it, when the answer ends in it."""
        return self._parts + self._parser.feed(self._held) + self._parser.finish()
