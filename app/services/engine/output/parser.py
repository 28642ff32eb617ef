"""Text to events: reasoning, tool calls and stop strings, whatever the chunks it comes in."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from app.services.engine.output.call_in_reasoning import Rehearsal
from app.services.engine.output.markup import CLOSE, NORMAL, OPEN, PLAIN, REASONING, TOOL, Markup
from app.services.engine.output.parts import OutputPart, TextPiece
from app.services.engine.output.stop_strings import StopStringFinder, StopStrings
from app.services.engine.output.tool_calls import CallReader, Heard

_MOST_RETRIES = 16  # of texts that began like a call and did not end: what they hold is looked through for others


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
        thinking: bool = False,
        continues: bool = False,  # goes on with text that is there, so that white space at its beginning counts
        one_call: bool = False,  # the answer is over once a call is whole
        may_think: bool = True,  # a thought can begin the answer
        has_grammar: bool = False,  # a grammar holds for the answer
        plain: bool = False,  # no mark means anything in it, but for calls at its beginning
        stop_strings: StopStrings | None = None,  # instead of `stop`, compiled before
    ) -> None:
        self.stop_string: str | None = None
        self.complete_calls = 0
        self._markup = markup
        self._tools = tools
        self._one_call = one_call
        self._has_grammar = has_grammar
        self._plain = plain
        self._finders = markup.finders(tools=bool(tools), split_reasoning=split_reasoning)
        stop_strings = stop_strings or (StopStrings(tuple(stop)) if stop else None)
        self._stop_finder = StopStringFinder(stop_strings) if stop_strings else None
        self._reader: CallReader | None = None  # of the region of calls that the model is in
        self._rehearsal: Rehearsal | None = None  # of a call that stands in the thoughts
        self._begun = 0  # calls
        self._held = ""  # what may be a part of a mark, or blank before the answer is known to begin
        self._blank: set[str] = set()  # states whose leading white space is dropped
        self._may_think = may_think and split_reasoning and not continues
        if thinking and not continues:
            self._blank.add(REASONING)
        headed = markup.initial if split_reasoning and not has_grammar else None  # a grammar lets no header be written
        self._state = headed or self._begin()
        if thinking and split_reasoning:
            self._state = REASONING

    @property
    def in_reasoning(self) -> bool:
        """Whether the model is in its reasoning now."""
        return self._state == REASONING

    @property
    def in_answer(self) -> bool:
        """Whether what comes may be of the answer: not in its reasoning, not in a call, not in the blank after them."""
        if self._reader is not None:
            return not self._reader.begun
        return self._state in (OPEN, NORMAL, PLAIN) and (NORMAL not in self._blank or bool(self._held.strip()))

    @property
    def in_call(self) -> bool:
        """Whether the model is in a call, or in what may become one."""
        return self._reader is not None

    @property
    def over(self) -> bool:
        """Whether nothing more is to be said: a stop string came, or the one call that may be made is whole."""
        return self.stop_string is not None or (self._one_call and self.complete_calls > 0)

    def skip_reasoning(self) -> None:
        """Know that the answer begins without a thought."""
        self._may_think = False
        if self._state == OPEN:
            self._state = self._begin()

    def feed(self, text: str) -> list[OutputPart]:
        """Take in text and give what is certain now. What follows a stop string is dropped."""
        said: list[OutputPart] = []
        while text and not self.over:
            if self._rehearsal is not None:
                more, text = self._think_on(self._rehearsal, text)
            elif self._reader is not None:
                more, text = self._call(self._reader, text)
            elif self._state == OPEN:
                more, text = self._start(text)
            else:
                more, text = self._hear(text)
            said += more
        return said

    def finish(self) -> list[OutputPart]:
        """Give what was held back. A call that cannot be told from what there is of it becomes text."""
        said: list[OutputPart] = []
        retries = 0
        while not self.over and (self._rehearsal or self._reader or self._held):
            if self._rehearsal is not None:
                said += self._never_closed(self._rehearsal)
            elif self._reader is not None:
                reader, self._reader = self._reader, None
                more, rest = self._after(reader, reader.finish())
                said += more
                retries += 1
                if retries > _MOST_RETRIES:
                    self._state = REASONING if self.in_reasoning else PLAIN
                said += self.feed(rest)
            else:
                held, self._held = self._held, ""
                if self._state == OPEN:
                    self._state = PLAIN if self._plain else NORMAL
                said += self._piece(held)
        return said + self._stop_end()

    def _begin(self) -> str:
        """The state in which an answer begins, if it is not a thought's."""
        opens = self._finders[OPEN].edges
        if self._may_think and REASONING in opens.values():
            return OPEN
        if self._plain:
            return OPEN if TOOL in opens.values() else PLAIN
        return NORMAL

    def _start(self, text: str) -> tuple[list[OutputPart], str]:
        """Wait for what tells whether the answer begins with a mark: it can only stand there, behind blanks."""
        text, self._held = self._held + text, ""
        begin, end = self._finders[OPEN](text)
        before, mark = text[:begin], text[begin:end]
        to = self._finders[OPEN].edges.get(mark, NORMAL)
        if to == REASONING and not self._may_think:
            before = mark  # is text
        if before.strip():
            self._state = PLAIN if self._plain else NORMAL
            return [], text
        if not mark:
            self._held = text
            return [], ""
        if to in (OPEN, NORMAL):  # a mark of the structure
            return [], before + text[end:]
        said = [] if to == REASONING else self._piece(before)
        return said + self._cross(to, mark), text[end:]

    def _hear(self, text: str) -> tuple[list[OutputPart], str]:
        """Take text up to a mark; what follows it is returned."""
        finder = self._finders[self._state]
        text, self._held = self._held + text, ""
        begin, end = finder(text)
        said = self._piece(text[:begin])
        if begin == end:
            self._held = text[begin:]
            return said, ""
        mark = text[begin:end]
        if self.stop_string is None:
            said += self._cross(finder.edges[mark], mark)
        return said, text[end:]

    def _cross(self, to: str, mark: str) -> list[OutputPart]:
        """Go on in another state."""
        if to == TOOL:
            assert self._markup.calls is not None
            if self._state == REASONING:
                self._rehearsal = self._rehearse(mark)
            else:
                how: dict[str, Any] = {"start": mark, "one_call": self._one_call, "well_formed": self._has_grammar}
                self._reader = CallReader(self._markup.calls, self._tools, self._begun, **how)
            return []
        if to == REASONING:
            self._blank = {REASONING}
        elif self._state == REASONING:
            self._blank = {NORMAL}
            self._may_think = False
            to = self._begin() if to == NORMAL else to
        self._state = to
        return []

    def _piece(self, text: str) -> list[OutputPart]:
        """Say text of the state that the model is in; other states are headers, between what is said."""
        state = NORMAL if self._state in (OPEN, PLAIN) else self._state
        if state in self._blank:
            text = text.lstrip()
        if not text or state not in (NORMAL, REASONING):
            return []
        self._blank.discard(state)
        return [TextPiece(text, reasoning=True)] if state == REASONING else self._say(text)

    def _say(self, text: str) -> list[OutputPart]:
        """Say text of the answer up to a stop string."""
        if self._stop_finder is None:
            return [TextPiece(text)]
        text = self._stop_finder.feed(text)
        self.stop_string = self._stop_finder.match
        return [TextPiece(text)] if text else []

    def _stop_end(self) -> list[OutputPart]:
        """Say what was held back for a stop string that might have come."""
        rest = self._stop_finder.flush() if self._stop_finder else ""
        return [TextPiece(rest)] if rest else []

    def _call(self, reader: CallReader, text: str) -> tuple[list[OutputPart], str]:
        """Read the text of calls; what follows them is returned."""
        heard = reader.feed(text)
        if not reader.over:
            return self._told(reader, heard), ""
        self._reader = None
        return self._after(reader, heard)

    def _after(self, reader: CallReader, heard: Sequence[Heard]) -> tuple[list[OutputPart], str]:
        said = self._told(reader, heard)
        if reader.begun:
            self._blank = {NORMAL}  # the empty line between two calls is nothing to say
            self._state = NORMAL
        elif self._state != REASONING:
            self._state = PLAIN if self._plain else NORMAL
        self._begun = reader.index
        return said, reader.rest

    def _told(self, reader: CallReader, heard: Iterable[Heard]) -> list[OutputPart]:
        told: list[OutputPart] = []
        for part in heard:
            told += self._piece(part) if isinstance(part, str) else [*self._stop_end(), part]
        self.complete_calls += reader.take_complete()
        return told

    def _rehearse(self, mark: str) -> Rehearsal:
        """Begin to read a call in the thoughts."""
        options: dict[str, Any] = {"tools": self._tools, "one_call": self._one_call, "may_think": False}
        return Rehearsal(OutputParser(self._markup, **options), self._finders[CLOSE], mark)

    def _think_on(self, rehearsal: Rehearsal, text: str) -> tuple[list[OutputPart], str]:
        """Read on in a thought that seems to hold a call; what follows it, or was no call, is returned."""
        mark, rest = rehearsal.feed(text)
        if mark:
            self._rehearsal = None
            return self._piece(rehearsal.text) + self._cross(self._finders[CLOSE].edges[mark], mark), rest
        if rehearsal.is_call:
            return [], ""
        self._rehearsal = None
        return self._piece(rehearsal.mark), rehearsal.text.removeprefix(rehearsal.mark) + rest

    def _never_closed(self, rehearsal: Rehearsal) -> list[OutputPart]:
        """Make the calls of a thought that the answer ended in."""
        self._rehearsal = None
        said: list[OutputPart] = []
        for part in rehearsal.finish():
            if self.stop_string is not None:
                break
            if not isinstance(part, TextPiece):
                self._state = NORMAL
            said += self._piece(part.text) if isinstance(part, TextPiece) else [part]
        self.complete_calls += rehearsal.complete_calls
        return said
