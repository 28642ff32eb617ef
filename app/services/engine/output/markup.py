"""The markers with which a model structures its output: around its reasoning, and around its tool calls."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from app.services.engine.output import harmony
from app.services.engine.output.template_clues import answer_frame, reasoning_markers, structural_markers, transitions
from app.services.engine.output.tool_calls import CallMarkup

# The states of an answer. It is `open` until something but white space has come, while a marker may come that is one
# only at the beginning. In `plain` text there are no markers. `close`: in reasoning that seems to contain a call, only
# the marker that closes the reasoning counts.
OPEN, NORMAL, PLAIN, REASONING, CLOSE, TOOL = "open", "normal", "plain", "reasoning", "close", "tool"


@dataclass(frozen=True)
class Markup:
    """The markers of a model's reasoning and tool calls: what mlx-lm's TokenizerWrapper infers, and more families."""

    think_start: str | None = None
    think_end: str | None = None
    structural: tuple[str, ...] = ()
    frame: tuple[str, str] | None = None  # tags around a whole answer
    transitions: Mapping[str, Sequence[tuple[str, str]]] = field(default_factory=dict)
    initial: str | None = None
    calls: CallMarkup | None = None
    has_headers: bool = False  # answers consist of messages with headers (harmony): `MessageParser` parses them

    @classmethod
    def of(cls, tokenizer: Any) -> "Markup":
        """Take them from mlx-lm's tokenizer wrapper, its chat template and its tokens."""
        calls = CallMarkup.of(tokenizer)
        if calls is not None and calls.format is not None and calls.format.has_headers:
            return cls(think_start=harmony.ANALYSIS, think_end=harmony.END, calls=calls, has_headers=True)
        think_start, think_end = reasoning_markers(tokenizer)
        edges, initial = transitions(tokenizer)
        return cls(
            think_start=think_start,
            think_end=think_end,
            structural=tuple(structural_markers(tokenizer)),
            frame=answer_frame(tokenizer),
            transitions=edges,
            initial=initial,
            calls=calls,
        )

    def markers(self) -> Iterator[str]:
        """Every text that must reach the parser even if it is a control token."""
        if self.has_headers:
            yield from map(harmony.control, harmony.TOKENS)
            return
        calls = (*self.calls.starts, self.calls.end, *self.calls.inner) if self.calls else ()
        yield from (
            marker
            for marker in (self.think_start, self.think_end, *self.structural, *(self.frame or ()), *calls)
            if marker
        )
        for edges in self.transitions.values():
            yield from (marker for marker, _ in edges)

    @property
    def think_closes(self) -> tuple[str, ...]:
        """The texts with which reasoning can be ended from outside; with headers the last of them leaves no choice."""
        if self.has_headers:
            return harmony.NEXT, harmony.NEXT + harmony.FINAL
        return (f"\n{self.think_end}\n\n",) if self.think_end else ()

    def end_tokens(self, tokenizer: Any) -> frozenset[int]:
        """The tokens that end an answer: those that the model's files name, as far as they are right."""
        tokens = frozenset(int(token) for token in tokenizer.eos_token_ids)
        return harmony.end_tokens(tokenizer, tokens) if self.has_headers else tokens

    @cached_property
    def _finders(self) -> dict[tuple[bool, bool], dict[str, "MarkerFinder"]]:
        return {}

    def finders(self, *, tools: bool, split_reasoning: bool) -> Mapping[str, "MarkerFinder"]:
        """Give what finds the markers of each state, with the state that each leads to."""
        key = (tools, split_reasoning)
        if key not in self._finders:
            self._finders[key] = {state: MarkerFinder(edges) for state, edges in _state_edges(self, *key).items()}
        return self._finders[key]


class MarkerFinder:
    """Finds the first of some markers in text that comes in pieces. `edges` maps each to the state it leads to."""

    def __init__(self, edges: Iterable[tuple[str, str]]) -> None:
        self.edges = dict(edges)
        markers = sorted(self.edges, key=len, reverse=True)
        self._any = re.compile("|".join(map(re.escape, markers)) or r"(?!)")
        self._first = re.compile(f"[{re.escape(''.join({marker[0] for marker in markers}))}]" if markers else r"(?!)")
        self._longest = max(map(len, markers), default=0)

    def __call__(self, text: str) -> tuple[int, int]:
        """Give where a marker begins and ends; where there is none, from where on one may begin, twice."""
        if self._first.search(text) is None:
            return len(text), len(text)
        if match := self._any.search(text):
            return match.span()
        for first in self._first.finditer(text, max(0, len(text) - self._longest + 1)):
            tail = text[first.start() :]
            if any(marker.startswith(tail) for marker in self.edges):
                return first.start(), first.start()
        return len(text), len(text)


def _state_edges(markup: Markup, tools: bool, split_reasoning: bool) -> dict[str, list[tuple[str, str]]]:
    """Give the markers of each state, with the state that each leads to."""
    table: dict[str, list[tuple[str, str]]] = {NORMAL: [], REASONING: []}
    think_start: list[tuple[str, str]] = []
    if split_reasoning:
        for state, edges in markup.transitions.items():
            table.setdefault(state, []).extend((text, to) for text, to in edges if tools or to != TOOL)
        table[NORMAL] += [(marker, NORMAL) for marker in markup.structural]
        if markup.think_start and markup.think_end:
            think_start = [(markup.think_start, REASONING)]
            table[REASONING].append((markup.think_end, NORMAL))
    close = list(table[REASONING])
    if tools and markup.calls and not any(to == TOOL for edges in table.values() for _, to in edges):
        # Some models call before they close their reasoning.
        starts = [(start, TOOL) for start in markup.calls.starts]
        table[NORMAL] += starts
        if close and not (
            markup.calls.format and markup.calls.format.starts_call
        ):  # models may call before they close it
            table[REASONING] += starts
    return table | {OPEN: [*table[NORMAL], *think_start], PLAIN: [], CLOSE: close}
