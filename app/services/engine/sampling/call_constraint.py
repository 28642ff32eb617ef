"""Calls in an answer that is free: from where one begins, a grammar binds it to the tools and their schemas."""

import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from copy import copy
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from app.services.engine.output.harmony import RECIPIENT
from app.services.engine.output.parts import CallStart
from app.services.engine.output.tool_call_notations import CallNotation
from app.services.engine.sampling.bitmask import Mask
from app.services.engine.sampling.literals import Literals
from app.services.engine.sampling.matcher import Matcher
from app.services.engine.sampling.message_grammar import begun_message_grammar
from app.services.engine.sampling.stopwatch import Stopwatch, timed
from app.services.engine.sampling.tool_call_grammar import AllowedTool, begun_call_grammar
from app.services.errors import InvalidRequest
from app.services.generation import Constraint

_MOST_TOOL_SETS = 16
_MARKER_TOKENS = 64  # among which a marker that has just come and what stands before it are


@dataclass(frozen=True, slots=True)
class GrammarTools:
    """What of the compiler is needed to make matchers: for a constraint, and for the tokens of a text."""

    compile: Callable[[Constraint], Matcher]
    tokenize: Callable[[str], list[int]]


class CallGrammars:
    """The grammars of calls of some tools, from wherever they begin. Each is made once, the likeliest ahead.

    A tool whose schema the grammars cannot hold is bound to its name and to plain JSON.
    """

    def __init__(
        self,
        grammars: GrammarTools,
        literals: Callable[[], Literals],
        tools: Sequence[AllowedTool],
        form: CallNotation,
        *,
        parallel: bool,
    ) -> None:
        self._grammars = grammars
        self._make_literals = literals
        self._tools = list({tool.name: tool for tool in reversed(tools)}.values())[::-1]
        self._form = form
        self._parallel = parallel
        self._matchers: dict[CallStart, Future[Matcher | None]] = {}

    def prepare(self) -> None:
        """Make the grammar of calls that begin as the family's do, on a thread: it takes a while with many tools."""
        start = CallStart("", RECIPIENT if self._form.has_headers else self._form.start)
        if start not in self._matchers and self._form.certain is None:
            future = self._matchers[start] = Future()
            threading.Thread(target=self._make, args=(start, future), name="grammar", daemon=True).start()

    def matcher(self, start: CallStart) -> Matcher | None:
        """Give a matcher that has read what has come of a call. None: no call of these tools can begin so."""
        if start.tool and all(tool.name != start.tool for tool in self._tools):
            return None
        key = CallStart("", start.marker, start.tool)
        if key not in self._matchers:
            self._matchers[key] = Future()
            self._make(key, self._matchers[key])
        first = self._matchers[key].result()
        if first is None:
            return None
        is_inside = start.marker not in ("", self._form.start, RECIPIENT)
        text = (start.marker if is_inside else "") + start.text  # that marker is a part of the call
        matcher = first.fork()
        return (
            matcher if matcher.begin_with(list(self._make_literals().tokens(text, self._grammars.tokenize))) else None
        )

    def _make(self, start: CallStart, future: "Future[Matcher | None]") -> None:
        try:
            future.set_result(self._compile(start))
        except BaseException as error:  # whoever waits for it has to hear of it
            future.set_exception(error)

    def _compile(self, start: CallStart) -> Matcher | None:
        if (matcher := self._attempt(start, self._tools)) is not None:
            return matcher
        # No single one need be at fault: together they may be too much.
        alone = [tool if self._attempt(start, [tool]) is not None else tool.without_schema() for tool in self._tools]
        if (matcher := self._attempt(start, alone)) is not None:
            return matcher
        return self._attempt(start, [tool.without_schema() for tool in self._tools])

    def _attempt(self, start: CallStart, tools: Sequence[AllowedTool]) -> Matcher | None:
        if start.tool and all(tool.name != start.tool for tool in tools):
            return None
        literals = self._make_literals()
        try:
            if self._form.has_headers and not start.tool:
                return self._grammars.compile(begun_message_grammar(tools, literals))
            return self._grammars.compile(
                begun_call_grammar(tools, self._form, literals, start, parallel=self._parallel)
            )
        except InvalidRequest:
            return None


class CallGrammarCache:
    """The grammars of the tools of the last requests: agents send the same ones with each turn."""

    def __init__(self) -> None:
        self._entries: OrderedDict[str, CallGrammars] = OrderedDict()

    def get(self, tools: Sequence[AllowedTool], *, parallel: bool, make: Callable[[], CallGrammars]) -> CallGrammars:
        """Give the grammars of tools, which `make` makes where they are new. On one thread only."""
        key = json.dumps([parallel, *([tool.name, tool.schema] for tool in tools)])
        entry = self._entries.pop(key, None) or make()
        self._entries[key] = entry
        if len(self._entries) > _MOST_TOOL_SETS:
            self._entries.popitem(last=False)
        return entry


class Reader(Protocol):
    """What reads calls in an answer."""

    def take_start(self) -> CallStart | None:
        """Give, once, that a call has begun with what came last."""

    def trust(self) -> None:
        """Note that a grammar holds what comes, until `take_start` is called again."""


class CallConstraint:
    """The state of one row's calls: bound from where one begins to its end, else free.

    What a grammar cannot follow is free from there on. `failed` is for grammars of whole answers.
    """

    failed = False

    def __init__(self, grammars: CallGrammars) -> None:
        self.stopwatch = Stopwatch()
        self.accepted_tokens = 0  # of the answer; those of free text are not counted
        self._grammars = grammars
        self._matcher: Matcher | None = None  # of the call that the answer is in
        self._begin: tuple[Matcher, int] | None = None  # where the last call began, and the answer's length then

    @property
    def is_bound(self) -> bool:
        """Whether a grammar decides about the next token."""
        return self._matcher is not None

    @timed
    def watch(self, reader: Reader | None, answer: Sequence[int], piece: Callable[[int], bytes]) -> bool:
        """Bind the call that begins with the last token of an answer. Returns False where none does, or it stays free.

        `reader` is what reads the answer, where it may be in a call, and `piece` gives the bytes of a token.
        """
        if self._matcher is not None or len(answer) < self.accepted_tokens:  # which are read one by one
            return False
        start = reader.take_start() if reader is not None else None
        if start is None or reader is None or _is_quoted(start.marker, b"".join(map(piece, answer[-_MARKER_TOKENS:]))):
            return False
        matcher = self._grammars.matcher(start)
        if matcher is None or matcher.is_stopped:
            return False
        reader.trust()
        self._begin = (matcher, len(answer))
        self._matcher, self.accepted_tokens = matcher.fork(), len(answer)
        return True

    @timed
    def mask(self) -> Mask:
        """Compute which tokens may come next, (vocabulary,) bool."""
        assert self._matcher is not None
        allowed = self._matcher.mask()
        if not self._matcher.is_error:
            return allowed
        self._matcher = None
        return np.ones_like(allowed)

    @timed
    def forced_tokens(self) -> list[int]:
        """Give the tokens of the call that have to come next; none where there is a choice."""
        return self._matcher.forced_tokens() if self._matcher is not None else []

    @timed
    def accept(self, token: int) -> None:
        """Advance by a token of the call."""
        self.accepted_tokens += 1
        if self._matcher is not None and (not self._matcher.consume(token) or self._matcher.is_stopped):
            self._matcher = None

    def fork(self) -> "CallConstraint":
        """Copy it where it is, to try tokens."""
        other = copy(self)
        other._matcher = self._matcher.fork() if self._matcher is not None else None
        return other

    def catch_up(self, answer: Sequence[int]) -> None:
        """Go through the last call again, as far as an answer has it."""
        if self._begin is None:
            return
        matcher, length = self._begin
        self._matcher, self.accepted_tokens = matcher.fork(), length
        for token in answer[length:]:
            self.accept(token)


def _is_quoted(marker: str, text: bytes) -> bool:
    """Whether a marker at the end of a text is one that the text only mentions."""
    return bool(marker) and text.rpartition(marker.encode())[0][-1:] in (b"`", b'"', b"'")
