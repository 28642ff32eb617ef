"""The markers with which a model structures its output: of its reasoning, and of its tool calls."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from app.services.engine.output.tool_calls import CallMarkup

# The states. An answer is `open` while it has not begun and a mark may come that can stand at its beginning alone.
# Where it is `plain`, no mark means anything. A thought in which a call has begun is looked at for its `close` alone.
OPEN, NORMAL, PLAIN, REASONING, CLOSE, TOOL = "open", "normal", "plain", "reasoning", "close", "tool"


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


def _table(markup: Markup, tools: bool, split_reasoning: bool) -> dict[str, list[tuple[str, str]]]:
    """The marks of each state, with the state that follows."""
    table: dict[str, list[tuple[str, str]]] = {NORMAL: [], REASONING: []}
    thought: list[tuple[str, str]] = []
    if split_reasoning:
        for state, edges in markup.transitions.items():
            table.setdefault(state, []).extend((text, to) for text, to in edges if tools or to != TOOL)
        table[NORMAL] += [(marker, NORMAL) for marker in markup.structural]
        if markup.think_start and markup.think_end:
            thought = [(markup.think_start, REASONING)]
            table[REASONING].append((markup.think_end, NORMAL))
    close = list(table[REASONING])
    if tools and markup.calls and not any(to == TOOL for edges in table.values() for _, to in edges):
        starts = [(start, TOOL) for start in markup.calls.starts]
        table[NORMAL] += starts
        if close and not (markup.calls.format and markup.calls.format.starts_call):  # some call before they close it
            table[REASONING] += starts
    return table | {OPEN: [*table[NORMAL], *thought], PLAIN: [], CLOSE: close}
