"""The text of an answer by itself: without the tags that some models put around it, and up to a stop string."""

from functools import lru_cache

import regex

from app.services.engine.output.stop_strings import StopStringFinder, StopStrings


class AnswerFrame:
    """Takes away a tag that begins the answer and the one that ends it; elsewhere they are text."""

    def __init__(self, start: str, end: str) -> None:
        self._start = start
        self._end = _last(end)
        self._pending = ""
        self._is_framed: bool | None = None  # None: it is not certain yet

    def feed(self, text: str) -> str:
        """Take in text and give what is certain of the answer."""
        text, self._pending = self._pending + text, ""
        if self._is_framed is None:
            begin = text.lstrip()
            if len(begin) < len(self._start) and self._start.startswith(begin):
                self._pending = text
                return ""
            self._is_framed = begin.startswith(self._start)
            text = begin.removeprefix(self._start).lstrip() if self._is_framed else text
            if self._is_framed and not text:
                self._is_framed = None  # blanks may follow
                self._pending = self._start
                return ""
        last = self._end.search(text, partial=True) if self._is_framed else None
        if last is None:
            return text
        self._pending = text[last.start() :]
        return text[: last.start()]

    def flush(self) -> str:
        """Give what was held back, without the tag that ends the answer."""
        rest, self._pending = self._pending, ""
        return "" if self._is_framed and self._end.fullmatch(rest) else rest


@lru_cache
def _last(end: str) -> regex.Pattern[str]:
    return regex.compile(rf"\s*+{regex.escape(end)}\s*+\Z")


class AnswerText:
    """Passes on the text of an answer. `stop_string` is what ended it."""

    def __init__(
        self, frame: tuple[str, str] | None, stop_strings: StopStrings | None, stop: tuple[str, ...] = ()
    ) -> None:
        self.stop_string: str | None = None
        self._frame = AnswerFrame(*frame) if frame else None
        stop_strings = stop_strings or (StopStrings(stop) if stop else None)
        self._stop_finder = StopStringFinder(stop_strings) if stop_strings else None

    def feed(self, text: str) -> str:
        """Take in text and give what is certain now, up to a stop string."""
        return self._until_stop(self._frame.feed(text) if self._frame else text)

    def flush(self) -> str:
        """Give what was held back."""
        text = self._until_stop(self._frame.flush()) if self._frame else ""
        return text + (self._stop_finder.flush() if self._stop_finder else "")

    def _until_stop(self, text: str) -> str:
        if self.stop_string is not None:
            return ""
        if self._stop_finder is not None:
            text = self._stop_finder.feed(text)
            self.stop_string = self._stop_finder.match
        return text
