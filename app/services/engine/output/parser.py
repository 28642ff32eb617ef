"""Text to events: reasoning, tool calls and stop strings, whatever the chunks it comes in."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from mlx_lm.generate import TextStateMachine

from app.services.engine.output.tool_calls import CallMarkup, CallReader, Heard
from app.services.generation import ToolArguments, ToolCall

# The states. An answer is `open` while it has not begun and a mark may come that can stand at its beginning alone.
# Where it is `plain`, no mark means anything. A thought in which a call has begun is looked at for its `close` alone.
_OPEN, _NORMAL, _PLAIN, _REASONING, _CLOSE, _TOOL = "open", "normal", "plain", "reasoning", "close", "tool"
_STOP = "stop:"  # states that end the answer, each named by its stop string
_MOST_RETRIES = 16  # of texts that began like a call and did not end: what they hold is looked through for others


@dataclass(frozen=True, slots=True)
class TextPiece:
    """A piece of text, of the answer or of the reasoning."""

    text: str
    reasoning: bool = False


OutputPart = TextPiece | ToolCall | ToolArguments


@dataclass(frozen=True)
class Markup:
    """How a model marks its reasoning and its calls. Source: what mlx-lm's TokenizerWrapper infers."""

    think_start: str | None = None
    think_end: str | None = None
    structural: tuple[str, ...] = ()
    transitions: Mapping[str, Sequence[tuple[str, str]]] = field(default_factory=dict)
    initial: str | None = None
    calls: CallMarkup | None = None

    @classmethod
    def of(cls, tokenizer: Any) -> "Markup":
        """Read the facts off mlx-lm's tokenizer wrapper."""
        return cls(
            think_start=tokenizer.think_start,
            think_end=tokenizer.think_end,
            structural=tuple(tokenizer.structural_markers or ()),
            transitions=tokenizer.response_transitions,
            initial=tokenizer.response_initial_state,
            calls=CallMarkup.of(tokenizer),
        )

    def markers(self) -> Iterator[str]:
        """Every text that must reach the speech even if it is a control token."""
        calls = (*self.calls.starts, self.calls.end, *self.calls.inner) if self.calls else ()
        yield from (marker for marker in (self.think_start, self.think_end, *self.structural, *calls) if marker)
        for edges in self.transitions.values():
            yield from (marker for marker, _ in edges)

    @cached_property
    def _tables(self) -> dict[tuple[bool, bool], dict[str, "Finder"]]:
        return {}

    def finders(self, *, tools: bool, split_reasoning: bool) -> Mapping[str, "Finder"]:
        """Give what finds the marks of each state, with the state that each leads to."""
        key = (tools, split_reasoning)
        if key not in self._tables:
            self._tables[key] = {state: Finder(edges) for state, edges in _table(self, *key).items()}
        return self._tables[key]


class Finder:
    """Finds the first of some marks in text that comes in pieces. `edges` tell where each leads."""

    def __init__(self, edges: Iterable[tuple[str, str]]) -> None:
        self.edges = dict(edges)
        marks = sorted(self.edges, key=len, reverse=True)
        self._any = re.compile("|".join(map(re.escape, marks)) or r"(?!)")
        self._first = re.compile(f"[{re.escape(''.join({mark[0] for mark in marks}))}]" if marks else r"(?!)")
        self._longest = max(map(len, marks), default=0)

    def __call__(self, text: str) -> tuple[int, int]:
        """Give where a mark begins and ends; where there is none, from where on one may begin, twice."""
        if self._first.search(text) is None:
            return len(text), len(text)
        if match := self._any.search(text):
            return match.span()
        for first in self._first.finditer(text, max(0, len(text) - self._longest + 1)):
            begun = text[first.start() :]
            if any(mark.startswith(begun) for mark in self.edges):
                return first.start(), first.start()
        return len(text), len(text)


class StopStrings:
    """Makes what finds stop strings: seconds for megabytes of them, so not on the engine thread."""

    def __init__(self, stop: Sequence[str]) -> None:
        self.machine = TextStateMachine(
            {_NORMAL: [(text, _STOP + text) for text in stop]} | {_STOP + text: [] for text in stop}
        )
        self._first = re.compile(f"[{re.escape(''.join({text[0] for text in stop}))}]")

    def may_begin(self, text: str) -> bool:
        """Whether one of them may begin in a text."""
        return self._first.search(text) is not None


class OutputParser:
    """Turns the text of one answer into what is said and called.

    `stopped` names the stop string that ended it; `called` counts the calls that are whole. Stop strings are looked for
    in what is said in the answer: not in thoughts, not in marks, not in calls.
    """

    def __init__(
        self,
        markup: Markup,
        *,
        stop: Iterable[str] = (),
        tools: Sequence[Mapping[str, Any]] = (),
        split_reasoning: bool = True,
        thinking: bool = False,
        continued: bool = False,  # goes on with text that is there, so that white space at its beginning counts
        one_call: bool = False,  # the answer is over once a call is whole
        may_think: bool = True,  # a thought can begin the answer
        bound: bool = False,  # a grammar holds for the answer
        plain: bool = False,  # no mark means anything in it, but for calls at its beginning
        stops: StopStrings | None = None,  # the stop strings, made before
    ) -> None:
        self.stopped: str | None = None
        self.called = 0
        self._markup = markup
        self._tools = tools
        self._one_call = one_call
        self._bound = bound
        self._plain = plain
        self._finders = markup.finders(tools=bool(tools), split_reasoning=split_reasoning)
        self._stops = stops or (StopStrings(tuple(stop)) if stop else None)
        self._stop_state: Any = self._stops.machine.make_state(_NORMAL) if self._stops else None
        self._reader: CallReader | None = None  # of the region of calls that the model is in
        self._rehearsal: Rehearsal | None = None  # of a call that stands in the thoughts
        self._begun = 0  # calls
        self._held = ""  # what may be a part of a mark, or blank before the answer is known to begin
        self._blank: set[str] = set()  # states whose leading white space is dropped
        self._may_think = may_think and split_reasoning and not continued
        if thinking and not continued:
            self._blank.add(_REASONING)
        headed = markup.initial if split_reasoning and not bound else None  # a grammar lets no header be written
        self._state = headed or self._begin()
        if thinking and split_reasoning:
            self._state = _REASONING

    @property
    def thinking(self) -> bool:
        """Whether the model is in its reasoning now."""
        return self._state == _REASONING

    @property
    def speaking(self) -> bool:
        """Whether what comes may be of the answer: not in its reasoning, not in a call, not in the blank after them."""
        if self._reader is not None:
            return not self._reader.begun
        return self._state in (_OPEN, _NORMAL, _PLAIN) and (_NORMAL not in self._blank or bool(self._held.strip()))

    @property
    def reading(self) -> bool:
        """Whether the model is in a call, or in what may become one."""
        return self._reader is not None

    @property
    def over(self) -> bool:
        """Whether nothing more is to be said: a stop string came, or the one call that may be made is whole."""
        return self.stopped is not None or (self._one_call and self.called > 0)

    def answer(self) -> None:
        """Know that the answer begins without a thought."""
        self._may_think = False
        if self._state == _OPEN:
            self._state = self._begin()

    def feed(self, text: str) -> list[OutputPart]:
        """Take in text and give what is certain now. What follows a stop string is dropped."""
        said: list[OutputPart] = []
        while text and not self.over:
            if self._rehearsal is not None:
                more, text = self._think_on(self._rehearsal, text)
            elif self._reader is not None:
                more, text = self._call(self._reader, text)
            elif self._state == _OPEN:
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
                    self._state = _REASONING if self.thinking else _PLAIN
                said += self.feed(rest)
            else:
                held, self._held = self._held, ""
                if self._state == _OPEN:
                    self._state = _PLAIN if self._plain else _NORMAL
                said += self._piece(held)
        return said + self._stop_end()

    def _begin(self) -> str:
        """The state in which an answer begins, if it is not a thought's."""
        opens = self._finders[_OPEN].edges
        if self._may_think and _REASONING in opens.values():
            return _OPEN
        if self._plain:
            return _OPEN if _TOOL in opens.values() else _PLAIN
        return _NORMAL

    def _start(self, text: str) -> tuple[list[OutputPart], str]:
        """Wait for what tells whether the answer begins with a mark: it can only stand there, behind blanks."""
        text, self._held = self._held + text, ""
        begin, end = self._finders[_OPEN](text)
        before, mark = text[:begin], text[begin:end]
        to = self._finders[_OPEN].edges.get(mark, _NORMAL)
        if to == _REASONING and not self._may_think:
            before = mark  # is text
        if before.strip():
            self._state = _PLAIN if self._plain else _NORMAL
            return [], text
        if not mark:
            self._held = text
            return [], ""
        if to in (_OPEN, _NORMAL):  # a mark of the structure
            return [], before + text[end:]
        said = [] if to == _REASONING else self._piece(before)
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
        if self.stopped is None:
            said += self._cross(finder.edges[mark], mark)
        return said, text[end:]

    def _cross(self, to: str, mark: str) -> list[OutputPart]:
        """Go on in another state."""
        if to == _TOOL:
            assert self._markup.calls is not None
            if self._state == _REASONING:
                self._rehearsal = self._rehearse(mark)
            else:
                how: dict[str, Any] = {"start": mark, "one_call": self._one_call, "well_formed": self._bound}
                self._reader = CallReader(self._markup.calls, self._tools, self._begun, **how)
            return []
        if to == _REASONING:
            self._blank = {_REASONING}
        elif self._state == _REASONING:
            self._blank = {_NORMAL}
            self._may_think = False
            to = self._begin() if to == _NORMAL else to
        self._state = to
        return []

    def _piece(self, text: str) -> list[OutputPart]:
        """Say text of the state that the model is in; other states are headers, between what is said."""
        state = _NORMAL if self._state in (_OPEN, _PLAIN) else self._state
        if state in self._blank:
            text = text.lstrip()
        if not text or state not in (_NORMAL, _REASONING):
            return []
        self._blank.discard(state)
        return [TextPiece(text, reasoning=True)] if state == _REASONING else self._say(text)

    def _say(self, text: str) -> list[OutputPart]:
        """Say text of the answer up to a stop string."""
        if self._stops is None or (not self._stop_state[3] and not self._stops.may_begin(text)):
            return [TextPiece(text)]
        self._stop_state, segments = TextStateMachine.split(self._stop_state, text)
        if len(segments) > 1:
            self.stopped = segments[1][0].removeprefix(_STOP)
        return [TextPiece(segments[0][1])] if segments[0][1] else []

    def _stop_end(self) -> list[OutputPart]:
        """Say what was held back for a stop string that might have come."""
        if self._stops is None or self.stopped is not None:
            return []
        self._stop_state, rest, _ = TextStateMachine.flush(self._stop_state)
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
            self._blank = {_NORMAL}  # the empty line between two calls is nothing to say
            self._state = _NORMAL
        elif self._state != _REASONING:
            self._state = _PLAIN if self._plain else _NORMAL
        self._begun = reader.index
        return said, reader.rest

    def _told(self, reader: CallReader, heard: Iterable[Heard]) -> list[OutputPart]:
        told: list[OutputPart] = []
        for part in heard:
            told += self._piece(part) if isinstance(part, str) else [*self._stop_end(), part]
        self.called += reader.take_whole()
        return told

    def _rehearse(self, mark: str) -> "Rehearsal":
        """Begin to read a call in the thoughts."""
        options: dict[str, Any] = {"tools": self._tools, "one_call": self._one_call, "may_think": False}
        return Rehearsal(OutputParser(self._markup, **options), self._finders[_CLOSE], mark)

    def _think_on(self, rehearsal: "Rehearsal", text: str) -> tuple[list[OutputPart], str]:
        """Read on in a thought that seems to hold a call; what follows it, or was no call, is returned."""
        mark, rest = rehearsal.feed(text)
        if mark:
            self._rehearsal = None
            return self._piece(rehearsal.text) + self._cross(self._finders[_CLOSE].edges[mark], mark), rest
        if rehearsal.is_call:
            return [], ""
        self._rehearsal = None
        return self._piece(rehearsal.mark), rehearsal.text.removeprefix(rehearsal.mark) + rest

    def _never_closed(self, rehearsal: "Rehearsal") -> list[OutputPart]:
        """Make the calls of a thought that the answer ended in."""
        self._rehearsal = None
        said: list[OutputPart] = []
        for part in rehearsal.finish():
            if self.stopped is not None:
                break
            if not isinstance(part, TextPiece):
                self._state = _NORMAL
            said += self._piece(part.text) if isinstance(part, TextPiece) else [part]
        self.called += rehearsal.called
        return said


class Rehearsal:
    """A call within a thought. It counts only where the thought never closes; where it does, it was thought of.

    So nothing of it, and of what follows it, can be told before one of the two has come.
    """

    def __init__(self, speech: OutputParser, close: Finder, mark: str) -> None:
        self.mark = mark  # that begins the call
        self.text = mark  # all of it so far
        self._speech = speech  # reads it as an answer
        self._close = close
        self._parts = speech.feed(mark)
        self._held = ""  # what may be a part of the mark that closes the thought

    @property
    def is_call(self) -> bool:
        """Whether it is a call, or may become one."""
        return (
            self._speech.reading
            or self._speech.called > 0
            or any(not isinstance(part, TextPiece) for part in self._parts)
        )

    @property
    def called(self) -> int:
        """Calls that are whole."""
        return self._speech.called

    def feed(self, text: str) -> tuple[str, str]:
        """Take in text. Gives the mark that closes the thought and what follows it; no mark, and what is no call."""
        text, self._held = self._held + text, ""
        begin, end = self._close(text)
        self.text += text[:begin]
        if begin < end:
            return text[begin:end], text[end:]
        self._parts += self._speech.feed(text[:begin])
        if not self.is_call:
            return "", text[begin:]
        self._held = text[begin:]
        return "", ""

    def finish(self) -> list[OutputPart]:
        """Give all of it, when the answer ends in it."""
        return self._parts + self._speech.feed(self._held) + self._speech.finish()


def _table(markup: Markup, tools: bool, split_reasoning: bool) -> dict[str, list[tuple[str, str]]]:
    """The marks of each state, with the state that follows."""
    table: dict[str, list[tuple[str, str]]] = {_NORMAL: [], _REASONING: []}
    thought: list[tuple[str, str]] = []
    if split_reasoning:
        for state, edges in markup.transitions.items():
            table.setdefault(state, []).extend((text, to) for text, to in edges if tools or to != _TOOL)
        table[_NORMAL] += [(marker, _NORMAL) for marker in markup.structural]
        if markup.think_start and markup.think_end:
            thought = [(markup.think_start, _REASONING)]
            table[_REASONING].append((markup.think_end, _NORMAL))
    close = list(table[_REASONING])
    if tools and markup.calls and not any(to == _TOOL for edges in table.values() for _, to in edges):
        starts = [(start, _TOOL) for start in markup.calls.starts]
        table[_NORMAL] += starts
        if close and not (markup.calls.format and markup.calls.format.starts_call):  # some call before they close it
            table[_REASONING] += starts
    return table | {_OPEN: [*table[_NORMAL], *thought], _PLAIN: [], _CLOSE: close}
