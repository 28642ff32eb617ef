"""Text to events: reasoning, tool calls and stop strings, whatever the chunks it comes in."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mlx_lm.generate import TextStateMachine

from app.services.engine.calls import CallMarkup, CallReader, Heard
from app.services.generation import ToolArguments, ToolCall

_NORMAL, _REASONING, _TOOL = "normal", "reasoning", "tool"
_STOP = "stop:"  # states that end the answer, each named by its stop string


@dataclass(frozen=True, slots=True)
class Said:
    """A piece of text, of the answer or of the reasoning."""

    text: str
    reasoning: bool = False


Part = Said | ToolCall | ToolArguments


@dataclass(frozen=True, slots=True)
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
        calls = (self.calls.start, self.calls.end, *self.calls.inner) if self.calls else ()
        yield from (marker for marker in (self.think_start, self.think_end, *self.structural, *calls) if marker)
        for edges in self.transitions.values():
            yield from (marker for marker, _ in edges)


class Speech:
    """Turns the text of one answer into what is said and called.

    `stopped` names the stop string that ended it; `called` counts the calls that are whole.
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
        machine: TextStateMachine | None = None,  # made before, from the same arguments
    ) -> None:
        self.stopped: str | None = None
        self.called = 0
        self._markup = markup
        self._tools = tools
        self._one_call = one_call
        self._calls: CallReader | None = None  # of the region of calls that the model is in
        self._begun = 0  # calls
        self._blank: set[str] = set()  # states whose leading white space is dropped
        if thinking and not continued:
            self._blank.add(_REASONING)
        self._stop = tuple(stop)
        self._machine = machine or make_machine(markup, self._stop, bool(tools), split_reasoning)
        initial = _REASONING if thinking and split_reasoning else markup.initial if split_reasoning else None
        self._state = self._machine.make_state(initial or _NORMAL)

    @property
    def thinking(self) -> bool:
        """Whether the model is in its reasoning now."""
        return bool(self._state[0] == _REASONING)

    @property
    def speaking(self) -> bool:
        """Whether the model is in its answer now: not in its reasoning, not in a call, not in the blank after them."""
        return bool(self._state[0] == _NORMAL) and _NORMAL not in self._blank

    @property
    def over(self) -> bool:
        """Whether nothing more is to be said: a stop string came, or the one call that may be made is whole."""
        return self.stopped is not None or (self._one_call and self.called > 0)

    def feed(self, text: str) -> list[Part]:
        """Take in text and give what is certain now. What follows a stop string is dropped."""
        said: list[Part] = []
        while text and not self.over:
            if self._calls:
                more, text = self._call(self._calls, text)
            else:
                more, text = self._speak(text)
            said += more
        return said

    def finish(self) -> list[Part]:
        """Give what was held back. A call that cannot be told from what there is of it becomes text."""
        if self.over:
            return []
        self._state, rest, state = TextStateMachine.flush(self._state)
        said = self._piece(state, rest)
        return said + self._told(self._calls, self._calls.finish()) if self._calls else said

    def _speak(self, text: str) -> tuple[list[Part], str]:
        """Say text up to where a call begins; what follows is returned."""
        before = self._state[0]
        self._state, segments = TextStateMachine.split(self._state, text)
        said: list[Part] = []
        for place, (state, piece) in enumerate(segments):
            if place:
                self._cross(before, state)
                before = state
            if state == _TOOL:  # the last one: nothing but a call leads out of it
                return said, piece
            if state.startswith(_STOP):
                self.stopped = state.removeprefix(_STOP)
                break
            said += self._piece(state, piece)
        return said, ""

    def _piece(self, state: str, text: str) -> list[Part]:
        if state in self._blank:
            text = text.lstrip()
        if not text or state not in (_NORMAL, _REASONING):  # other states are headers, between what is said
            return []
        self._blank.discard(state)
        return [Said(text, reasoning=state == _REASONING)]

    def _cross(self, before: str, after: str) -> None:
        if after == _REASONING:
            self._blank = {_REASONING}
        elif before == _REASONING:
            self._blank = {_NORMAL}
        if after == _TOOL:
            assert self._markup.calls is not None
            self._calls = CallReader(self._markup.calls, self._tools, self._begun, one_call=self._one_call)

    def _call(self, reader: CallReader, text: str) -> tuple[list[Part], str]:
        """Read the text of calls; what follows them is returned."""
        said = self._told(reader, reader.feed(text))
        if not reader.over:
            return said, ""
        if reader.index > self._begun:
            self._blank = {_NORMAL}  # the empty line between two calls is nothing to say
        self._begun = reader.index
        self._calls = None
        self._state = self._machine.make_state(_NORMAL)
        return said, reader.rest

    def _told(self, reader: CallReader, heard: Iterable[Heard]) -> list[Part]:
        told: list[Part] = []
        for part in heard:
            if isinstance(part, str):
                told += self._as_text(part)
            else:
                told.append(part)
        self.called += reader.take_whole()
        return told

    def _as_text(self, text: str) -> list[Part]:
        found = [(text.index(stop) + len(stop), text.index(stop), stop) for stop in self._stop if stop in text]
        if found:
            _, begin, self.stopped = min(found)
            text = text[:begin]
        return self._piece(_NORMAL, text)


def make_machine(markup: Markup, stop: Sequence[str], tools: bool, split_reasoning: bool) -> TextStateMachine:
    """Make what finds markers and stop strings: seconds for megabytes of stop strings, so not on the engine thread."""
    return TextStateMachine(_table(markup, stop, tools, split_reasoning))


def _table(markup: Markup, stop: Sequence[str], tools: bool, split_reasoning: bool) -> dict[str, list[tuple[str, str]]]:
    """States and their transitions (text, next state), as TextStateMachine takes them."""
    table: dict[str, list[tuple[str, str]]] = {_NORMAL: []}
    if split_reasoning:
        for state, edges in markup.transitions.items():
            table.setdefault(state, []).extend((text, to) for text, to in edges if tools or to != _TOOL)
        table[_NORMAL] += [(marker, _NORMAL) for marker in markup.structural]
        if markup.think_start and markup.think_end:
            table[_NORMAL].append((markup.think_start, _REASONING))
            table.setdefault(_REASONING, []).append((markup.think_end, _NORMAL))
    if tools and markup.calls:
        if not any(to == _TOOL for edges in table.values() for _, to in edges):
            table[_NORMAL].append((markup.calls.start, _TOOL))
            if _REASONING in table and markup.calls.parse:  # some call before they close the thought
                table[_REASONING].append((markup.calls.start, _TOOL))
        table[_TOOL] = []  # calls know by themselves where they end
    for state in table:
        if state != _TOOL:
            table[state] += [(text, _STOP + text) for text in stop]
    return table | {_STOP + text: [] for text in stop}
