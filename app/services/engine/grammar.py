"""Grammars that bind an answer: llguidance says which tokens may come next, MLX applies it on any back end."""

import threading
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, cast

import llguidance.hf
import numpy as np
from llguidance import LLMatcher, LLTokenizer

from app.services.engine.call_formats import CallFormat
from app.services.engine.call_grammar import WRITTEN, WantedTool, call_grammar, enforced, json_rule
from app.services.errors import InvalidRequest
from app.services.generation import Constraint, GenerationRequest

if TYPE_CHECKING:
    from llguidance._lib import JsonCompileOptions

_JSON = cast("JsonCompileOptions", WRITTEN)

Mask = Any  # numpy bool (vocabulary,)


class Grammars:
    """Compiles grammars for one model. The tables of its vocabulary are made once, by whoever comes first."""

    def __init__(self, tokenizer: Any, vocabulary: int, end_tokens: frozenset[int]) -> None:
        self._tokenizer = tokenizer  # mlx-lm's TokenizerWrapper
        self._vocabulary = vocabulary
        self._end_tokens = end_tokens
        self._tables: LLTokenizer | None = None
        self._lock = threading.Lock()

    def warm_up(self) -> None:
        """Make the tables of the vocabulary: seconds where it is large."""
        with self._lock:
            if self._tables is None:
                backend = self._tokenizer._tokenizer
                ends = sorted(self._end_tokens)
                self._tables = llguidance.hf.from_tokenizer(backend, n_vocab=self._vocabulary, eos_token=ends)

    def matcher(self, request: GenerationRequest, form: CallFormat | None) -> LLMatcher | None:
        """Make the matcher of a request, None if its answer is free. Raises InvalidRequest that says what is wrong."""
        if not (tools := enforced(request, form)):
            return self.compile(request.constraint) if request.constraint else None
        assert form is not None
        constraint = call_grammar(tools, form, request, self._special())
        try:
            return self.compile(constraint)
        except InvalidRequest as error:
            raise self._blamed(tools, constraint) or error from None

    def _blamed(self, tools: Iterable[WantedTool], constraint: Constraint) -> InvalidRequest | None:
        """Find the tool whose schema does not go, and say so."""
        for tool in tools:
            rule = f"%llguidance {{}}\nstart: {json_rule(tool.schema)}"
            try:
                self.compile(Constraint("lark", rule, f"the schema of '{tool.name[:64]}'"))
            except InvalidRequest as error:
                return InvalidRequest(error.message, param=constraint.param)
        return None

    def _special(self) -> dict[str, int]:
        """Give the tokens that no text can spell, by what they say."""
        self.warm_up()
        assert self._tables is not None
        added = self._tokenizer.added_tokens_decoder.items()
        return {
            entry.content: int(token)
            for token, entry in added
            if int(token) < self._vocabulary and self._tables.is_special_token(int(token))
        }

    def compile(self, constraint: Constraint) -> LLMatcher:
        """Make the matcher of a constraint. Raises InvalidRequest that says what the grammar does wrong."""
        self.warm_up()
        assert self._tables is not None
        try:
            grammar = _grammar(constraint)
        except ValueError as error:
            raise _refused(constraint, str(error)) from None
        failed, messages = LLMatcher.validate_grammar_with_warnings(grammar, self._tables)
        if failed:
            raise _refused(constraint, messages[0] if messages else "it cannot be compiled")
        matcher = LLMatcher(self._tables, grammar, log_level=0)
        if matcher.is_error():
            raise _refused(constraint, matcher.get_error())
        return matcher


class Bound:
    """The grammar of one row. It binds once the reasoning is over; whether that comes at all, the model decides.

    `blank` are tokens of empty lines, two of which may stand between the reasoning and the answer. The reasoning itself
    may not end the answer: without its end token nothing would have been said that the grammar holds for.
    """

    def __init__(
        self,
        matcher: LLMatcher,
        vocabulary: int,
        *,
        think_start: Sequence[int],
        think_end: Sequence[int],
        blank: Sequence[int],
        end_tokens: Iterable[int],
        thinking: bool,
        may_think: bool,
    ) -> None:
        self._matcher = matcher.deep_copy()
        self._vocabulary = vocabulary
        self._think_start = list(think_start)
        self._think_end = list(think_end)
        self._armed = not thinking
        self._may_think = may_think and len(think_start) == 1 and not thinking  # as its very first token
        self._tail: list[int] = []
        self._blank = list(blank)
        self._blanks_left = 0
        self._accepted = 0  # tokens
        self._thought = np.ones(vocabulary, dtype=bool)  # what may come within the reasoning
        self._thought[[token for token in end_tokens if token < vocabulary]] = False
        self._first = (matcher, self._armed, self._may_think)  # to begin anew from

    def mask(self) -> Mask:
        """Say which tokens may come next, (vocabulary,) bool."""
        if not self._armed:
            return self._thought
        bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        allowed = np.unpackbits(bits, bitorder="little")[: self._vocabulary].astype(bool)
        if self._may_think:
            allowed[self._think_start[0]] = True
        if self._blanks_left:
            allowed[self._blank] = True
        return allowed

    def catch_up(self, answer: Sequence[int]) -> None:
        """Note the tokens of an answer that were drawn and not noted yet; forget one that was noted and then lost."""
        if self._accepted > len(answer):
            self._begin_anew()
        for token in answer[self._accepted :]:
            self.accept(token)

    def _begin_anew(self) -> None:
        matcher, self._armed, self._may_think = self._first
        self._matcher, self._tail, self._blanks_left, self._accepted = matcher.deep_copy(), [], 0, 0

    def accept(self, token: int) -> None:
        """Note the token that was drawn."""
        self._accepted += 1
        if not self._armed:
            self._tail = [*self._tail, token][-len(self._think_end) :]
            self._armed = self._tail == self._think_end
            self._blanks_left = 2 if self._armed else 0
        elif self._may_think and token == self._think_start[0]:
            self._armed = False
        elif self._blanks_left and token in self._blank:
            self._blanks_left -= 1
        elif not self._matcher.is_stopped():
            self._matcher.consume_token(token)
            self._blanks_left = 0
        self._may_think = False


def _grammar(constraint: Constraint) -> str:
    if constraint.kind == "json_schema":
        return str(LLMatcher.grammar_from_json_schema(constraint.text, overrides=_JSON))
    return str(llguidance.grammar_from(constraint.kind, constraint.text))


def _refused(constraint: Constraint, why: str) -> InvalidRequest:
    line = (why.strip().splitlines() or ["it cannot be compiled"])[0][:300]
    return InvalidRequest(f"{constraint.param} cannot be enforced: {line}", param=constraint.param)
