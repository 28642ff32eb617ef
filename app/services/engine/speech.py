"""Text to events: reasoning, tool calls and stop strings, whatever the chunks it comes in."""

import json
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlx_lm.generate import TextStateMachine

from app.services.generation import ToolCall

_NORMAL, _REASONING, _TOOL = "normal", "reasoning", "tool"
_STOP = "stop:"  # states that end the answer, each named by its stop string


@dataclass(frozen=True, slots=True)
class Said:
    """A piece of text, of the answer or of the reasoning."""

    text: str
    reasoning: bool = False


@dataclass(frozen=True, slots=True)
class Markup:
    """How a model marks its reasoning and its calls. Source: what mlx-lm's TokenizerWrapper infers."""

    think_start: str | None
    think_end: str | None
    tool_start: str | None
    tool_end: str | None
    structural: tuple[str, ...]
    transitions: Mapping[str, Sequence[tuple[str, str]]]
    initial: str | None
    parse_call: Any

    @classmethod
    def of(cls, tokenizer: Any) -> "Markup":
        """Read the facts off mlx-lm's tokenizer wrapper."""
        return cls(
            think_start=tokenizer.think_start,
            think_end=tokenizer.think_end,
            tool_start=tokenizer.tool_call_start,
            tool_end=tokenizer.tool_call_end,
            structural=tuple(tokenizer.structural_markers or ()),
            transitions=tokenizer.response_transitions,
            initial=tokenizer.response_initial_state,
            parse_call=tokenizer.tool_parser,
        )

    def markers(self) -> Iterator[str]:
        """Every text that must reach the speech even if it is a control token."""
        fixed = (self.think_start, self.think_end, self.tool_start, self.tool_end, *self.structural)
        yield from (marker for marker in fixed if marker)
        for edges in self.transitions.values():
            yield from (marker for marker, _ in edges)


class Speech:
    """Turns the text of one answer into Said and ToolCall; `stopped` names the stop string that ended it."""

    def __init__(
        self,
        markup: Markup,
        *,
        stop: Iterable[str] = (),
        tools: Sequence[Mapping[str, Any]] = (),
        split_reasoning: bool = True,
        thinking: bool = False,
        continued: bool = False,  # goes on with text that is there, so that white space at its beginning counts
        machine: TextStateMachine | None = None,  # made before, from the same arguments
    ) -> None:
        self.stopped: str | None = None
        self._markup = markup
        self._tools = list(tools)
        self._calls = 0
        self._call = ""  # text of the call being written
        self._blank: set[str] = set()  # states whose leading white space is dropped
        if thinking and not continued:
            self._blank.add(_REASONING)
        self._stop = tuple(stop)
        machine = machine or make_machine(markup, self._stop, bool(tools), split_reasoning)
        initial = _REASONING if thinking and split_reasoning else markup.initial if split_reasoning else None
        self._state = machine.make_state(initial or _NORMAL)

    @property
    def thinking(self) -> bool:
        """Whether the model is in its reasoning now."""
        return bool(self._state[0] == _REASONING)

    @property
    def speaking(self) -> bool:
        """Whether the model is in its answer now: not in its reasoning, not in a call, not in the blank after them."""
        return bool(self._state[0] == _NORMAL) and _NORMAL not in self._blank

    def feed(self, text: str) -> list[Said | ToolCall]:
        """Take in text and give what is certain now. What follows a stop string is dropped."""
        if self.stopped is not None or not text:
            return []
        before = self._state[0]
        self._state, segments = TextStateMachine.split(self._state, text)
        said: list[Said | ToolCall] = []
        for place, (state, piece) in enumerate(segments):
            if place:
                said += self._crossed(before, state)
                before = state
            if self.stopped is not None:
                break
            if state.startswith(_STOP):
                self.stopped = state.removeprefix(_STOP)
                break
            said += self._piece(state, piece)
        return said

    def finish(self) -> list[Said | ToolCall]:
        """Give what was held back. A call that was never closed becomes text, where its format has a closing mark."""
        if self.stopped is not None:
            return []
        self._state, rest, state = TextStateMachine.flush(self._state)
        said = self._piece(state, rest)
        if state == _TOOL:
            said += self._close_call() if not self._markup.tool_end else self._as_text(closed=False)
        return said

    def _piece(self, state: str, text: str) -> list[Said | ToolCall]:
        if state == _TOOL:
            self._call += text
            return []
        if state in self._blank:
            text = text.lstrip()
        if not text:
            return []
        self._blank.discard(state)
        return [Said(text, reasoning=state == _REASONING)]

    def _crossed(self, before: str, after: str) -> list[Said | ToolCall]:
        if after == _REASONING:
            self._blank = {_REASONING}
        elif before == _REASONING:
            self._blank = {_NORMAL}
        if before != _TOOL:
            return []
        said = self._close_call()
        if any(isinstance(piece, ToolCall) for piece in said):
            self._blank = {_NORMAL}  # the empty line between two calls is nothing to say
        return said

    def _close_call(self) -> list[Said | ToolCall]:
        try:
            parsed = self._markup.parse_call(self._call, self._tools)
            several = parsed if isinstance(parsed, list) else [parsed]
            calls = [self._tool_call(call, self._calls + place) for place, call in enumerate(several)]
        except Exception:  # whatever a parser raises over a model's words, they are handed over as text
            calls = []
        if not calls:
            return self._as_text(closed=True)
        self._call = ""
        self._calls += len(calls)
        return list(calls)

    def _tool_call(self, call: Mapping[str, Any], index: int) -> ToolCall:
        name, arguments = call["name"], call.get("arguments", {})
        if not isinstance(name, str) or not name:
            raise ValueError("a call without a name")
        if not isinstance(arguments, str):
            arguments = json.dumps(arguments, ensure_ascii=False)
        return ToolCall(index, str(call.get("id") or f"call_{secrets.token_hex(12)}"), name, arguments)

    def _as_text(self, *, closed: bool) -> list[Said | ToolCall]:
        end = self._markup.tool_end or "" if closed else ""
        text, self._call = f"{self._markup.tool_start or ''}{self._call}{end}", ""
        found = [(text.index(stop) + len(stop), text.index(stop), stop) for stop in self._stop if stop in text]
        if found:
            _, begin, self.stopped = min(found)
            text = text[:begin]
        return [Said(text)] if text else []


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
    if tools and markup.tool_start:
        if not any(to == _TOOL for edges in table.values() for _, to in edges):
            table[_NORMAL].append((markup.tool_start, _TOOL))
            if split_reasoning and markup.think_start and markup.think_end:  # some call before they close the thought
                table[_REASONING].append((markup.tool_start, _TOOL))
        table[_TOOL] = [(markup.tool_end, _NORMAL)] if markup.tool_end else []
    for state in table:
        if state != _TOOL:
            table[state] += [(text, _STOP + text) for text in stop]
    return table | {_STOP + text: [] for text in stop}
