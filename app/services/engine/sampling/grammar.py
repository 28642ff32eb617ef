"""Constrained decoding: llguidance computes which tokens a grammar allows next; the mask is applied in MLX."""

import re
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import copy
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import llguidance
import numpy as np
from llguidance import LLMatcher, LLParserLimits

from app.services import heap
from app.services.engine.output.template_clues import reasoning_markers
from app.services.engine.output.tool_call_notations import CallNotation
from app.services.engine.sampling.bitmask import Mask
from app.services.engine.sampling.call_constraint import CallGrammarCache, CallGrammars, GrammarTools
from app.services.engine.sampling.literals import JSON_STYLE, Literals
from app.services.engine.sampling.matcher import Matcher
from app.services.engine.sampling.message_grammar import header_grammar, message_grammar
from app.services.engine.sampling.plain_tokenizer import plain_tokenizer
from app.services.engine.sampling.stopwatch import Stopwatch, timed
from app.services.engine.sampling.tool_call_grammar import (
    allowed_tools,
    answer_schema,
    bound_tools,
    not_enforceable,
    tool_call_grammar,
)
from app.services.engine.sampling.vocabulary import Vocabulary
from app.services.errors import InvalidRequest
from app.services.generation import Constraint, GenerationRequest

if TYPE_CHECKING:
    from llguidance._lib import JsonCompileOptions

_STYLE = cast("JsonCompileOptions", JSON_STYLE)
# An object takes four items for each property that may come next; the default limit would stop at 500 properties.
_LIMITS = LLParserLimits(max_items_in_row=50_000)
# JSON that a client has begun may have any style, with bounded white space.
_ANY_STYLE = cast("JsonCompileOptions", {"whitespace_pattern": r"[\x20\x0A\x0D\x09]{1,64}"})
# A token by its name in a Lark grammar, outside of strings, patterns and comments.
_NAMED_TOKEN = re.compile(r'"(?:\\.|[^"\\\n])*"|/(?:\\.|[^/\\\n])+/|//[^\n]*|(<[^<>\[\]\n]+>)')

_TABLE_BYTES = 850  # per token


class GrammarCompiler:
    """Compiles grammars for one model. The tables of its vocabulary are made once, at the first use."""

    def __init__(self, tokenizer: Any, vocabulary: int, end_tokens: frozenset[int]) -> None:
        self._tokenizer = tokenizer  # mlx-lm's TokenizerWrapper
        self._width = vocabulary
        self._end_tokens = end_tokens
        self._vocabulary: Vocabulary | None = None
        self._call_grammars = CallGrammarCache()
        self._lock = threading.Lock()

    @property
    def table_bytes(self) -> int:
        """About how much memory the tables take; measured with a vocabulary of 262,144 tokens."""
        return self._width * _TABLE_BYTES

    def warm_up(self) -> Vocabulary:
        """Make the tables of the vocabulary: seconds where it is large."""
        with self._lock:
            if self._vocabulary is None:
                backend = self._tokenizer._tokenizer
                ends = sorted(self._end_tokens)
                self._vocabulary = Vocabulary(plain_tokenizer(backend, self._width, ends))
                heap.trim()  # making them takes twice what they take
            return self._vocabulary

    def compile_request(
        self, request: GenerationRequest, form: CallNotation | None, *, in_message: bool = False
    ) -> Matcher | None:
        """Make the matcher of a request, None without a constraint. Raises InvalidRequest that says what is wrong.

        `in_message`: the prompt ends within a message of the answer, in formats that have such.
        """
        tools, start = allowed_tools(request, form), self._answer_start(request)
        if request.constraint and self._binds_answer(request, form):
            return self._compile_from(request.constraint, start)
        if form is not None and form.has_headers and (tools or _calls_none(request)):
            return self.compile(message_grammar(tools, request, self._special_tokens(), in_message=in_message))
        if not tools:
            return None
        assert form is not None
        return self.compile(tool_call_grammar(tools, form, request, self._special_tokens()))

    def call_grammars(self, request: GenerationRequest, form: CallNotation | None) -> CallGrammars | None:
        """Give what binds the calls of an answer that is free otherwise; None where they are free too."""
        tools = bound_tools(request, form)
        if not tools or form is None:
            return None
        parallel = request.tool_choice.parallel
        return self._call_grammars.get(
            tools,
            parallel=parallel,
            make=lambda: CallGrammars(
                GrammarTools(self.compile, self._tokenize),
                lambda: Literals(self._special_tokens()),
                tools,
                form,
                parallel=parallel,
            ),
        )

    def compile_header(self, request: GenerationRequest, form: CallNotation, *, in_message: bool) -> Matcher | None:
        """Make the matcher of what comes before an answer that its constraint binds as a whole; None for others."""
        if not self._binds_answer(request, form):
            return None
        return self.compile(header_grammar(request, self._special_tokens(), in_message=in_message))

    def _binds_answer(self, request: GenerationRequest, form: CallNotation | None) -> bool:
        """Whether the request's constraint is all that binds its answer, which has no calls."""
        tools = allowed_tools(request, form)
        required = tools and request.tool_choice.mode == "required"  # the text before a call is free
        start = self._answer_start(request)
        return request.constraint is not None and (not tools or bool(start and not required))

    def _answer_start(self, request: GenerationRequest) -> str:
        """Give the start of the answer that the request continues, without the reasoning; empty where there is none."""
        text = request.messages[-1].content if request.continue_final_message and request.messages else ""
        opening, closing = reasoning_markers(self._tokenizer)
        if opening and closing and text.lstrip().startswith(opening) and closing in text:
            return text.split(closing, 1)[1].lstrip()
        return text

    def _compile_from(self, constraint: Constraint, start: str) -> Matcher:
        """Make the matcher of an answer that starts with a text. Raises InvalidRequest where none can start so."""
        matcher = self.compile(constraint)
        if self._consume(matcher, start):
            return matcher
        if constraint.kind == "json_schema":
            matcher = self.compile(constraint, _ANY_STYLE)
            if self._consume(matcher, start.lstrip()):
                return matcher
        raise InvalidRequest(
            f"The assistant's last message cannot begin an answer that {constraint.param} allows",
            param=constraint.param,
        )

    def _consume(self, matcher: Matcher, text: str) -> bool:
        """Feed a text to a matcher. Returns False where its grammar does not allow it."""
        return matcher.begin_with(self._tokenize(text))

    def _tokenize(self, text: str) -> list[int]:
        return self.warm_up().tables.tokenize_str(text)

    def _special_tokens(self) -> dict[str, int]:
        """Give the ids of the control tokens, by their text."""
        tables = self.warm_up().tables
        added = self._tokenizer.added_tokens_decoder.items()
        return {entry.content: int(token) for token, entry in added if tables.is_special_token(int(token))}

    def compile(self, constraint: Constraint, style: "JsonCompileOptions" = _STYLE) -> Matcher:
        """Make the matcher of a constraint. Raises InvalidRequest that says what is wrong with the grammar."""
        vocabulary = self.warm_up()
        try:
            grammar = self._grammar(constraint, style)
        except ValueError as error:
            raise not_enforceable(constraint, str(error)) from None
        failed, messages = LLMatcher.validate_grammar_with_warnings(grammar, vocabulary.tables)
        if failed:
            raise not_enforceable(constraint, messages[0] if messages else "it cannot be compiled")
        matcher = LLMatcher(vocabulary.tables, grammar, log_level=0, limits=_LIMITS)
        first = matcher.deep_copy()
        first.compute_bitmask()  # reports a grammar that allows no first token
        if first.is_error():
            reason = first.get_error()
            raise not_enforceable(constraint, "no text matches it" if reason.startswith("NoExtension") else reason)
        if (forced := first.compute_ff_tokens()) and not first.consume_token(forced[0]):
            raise not_enforceable(constraint, "what it allows has no end, or is too long")
        return Matcher(matcher, vocabulary)

    def _grammar(self, constraint: Constraint, style: "JsonCompileOptions") -> str:
        if constraint.kind == "json_schema":
            schema = dict(answer_schema(constraint))
            return str(LLMatcher.grammar_from_json_schema(schema, overrides=style))
        if constraint.kind == "lark":
            special = self._special_tokens()
            return str(LLMatcher.grammar_from_lark(_NAMED_TOKEN.sub(partial(_replace_name, special), constraint.text)))
        return str(llguidance.grammar_from(constraint.kind, constraint.text))


def _calls_none(request: GenerationRequest) -> bool:
    """Whether the model must not call the tools that it knows. Where calls have headers, a grammar prevents them."""
    return bool(request.tools) and request.tool_choice.mode == "none" and request.prompt is None


def _replace_name(special: Mapping[str, int], match: re.Match[str]) -> str:
    """Write a token by its id, as llguidance needs it."""
    name = match[1]
    return f"<[{special[name]}]>" if name in special else match[0]


class GrammarConstraint:
    """The state of one row's grammar. It applies after the reasoning, if there is any: that is the model's choice.

    `failed` says that the grammar could not follow the answer, which is not constrained from there on.

    `header` matches what comes before the text that the grammar applies to, in formats whose messages have headers.

    `blank` are tokens of empty lines, two of which may stand between the reasoning and the answer. Within the reasoning
    no end token is allowed, since there would be no answer for the grammar to apply to. A marker of several tokens may
    be written with others as well, which its text tells: `piece` gives the bytes of a token.
    """

    def __init__(
        self,
        matcher: Matcher,
        *,
        think_start: Sequence[int],
        think_end: Sequence[int],
        blank: Sequence[int],
        end_tokens: Iterable[int],
        thinking: bool,
        may_think: bool,
        header: Matcher | None = None,
        piece: Callable[[int], bytes] = lambda token: b"",
    ) -> None:
        self.failed = False
        self.stopwatch = Stopwatch()
        self.accepted_tokens = 0  # of the answer
        self._matcher = matcher.fork()
        self._first_header = header.fork() if header is not None else None
        self._header = self._first_header  # while the answer is in it
        self._think_start = list(think_start)
        self._think_end = list(think_end)
        self._think_end_text = b"".join(map(piece, think_end)) if len(think_end) > 1 else b""
        self._piece = piece
        self._is_active = not thinking
        self._may_think = may_think and len(think_start) == 1 and not thinking  # as its very first token
        self._tail: list[int] = []
        self._blank = list(blank)
        self._blanks_left = 0
        self._reasoning_mask = np.ones(matcher.vocabulary.size, dtype=bool)
        self._reasoning_mask[[token for token in end_tokens if token < matcher.vocabulary.size]] = False
        self._initial = (self._is_active, self._may_think)  # for a restart

    @property
    def is_bound(self) -> bool:
        """Whether it decides about the next token: always, and be it that the reasoning must not end the answer."""
        return True

    @timed
    def mask(self) -> Mask:
        """Compute which tokens may come next, (vocabulary,) bool."""
        if not self._is_active:
            return self._reasoning_mask
        matcher = self._header or self._matcher
        allowed = matcher.mask()
        self.failed |= matcher.is_error
        if self._may_think:
            allowed[self._think_start[0]] = True
        if self._blanks_left:
            allowed[self._blank] = True
        return allowed

    @timed
    def forced_tokens(self) -> list[int]:
        """Give the tokens that have to come next; none where there is a choice."""
        may_choose = not self._is_active or self._header is not None or self._may_think or self._blanks_left
        return [] if may_choose else self._matcher.forced_tokens()

    def fork(self) -> "GrammarConstraint":
        """Copy it where it is, to try tokens."""
        other = copy(self)
        other._matcher = self._matcher.fork()
        other._header = self._header.fork() if self._header is not None else None
        return other

    def catch_up(self, answer: Sequence[int]) -> None:
        """Accept the tokens of an answer that are new; start over if more were accepted than it has."""
        if self.accepted_tokens > len(answer):
            self._restart()
        for token in answer[self.accepted_tokens :]:
            self.accept(token)

    def _restart(self) -> None:
        self._is_active, self._may_think = self._initial
        self._header = self._first_header
        for matcher in (self._header, self._matcher):
            if matcher is not None:
                matcher.restart()
        self._tail, self._blanks_left, self.accepted_tokens = [], 0, 0

    def _ends_reasoning(self) -> bool:
        """Whether the last tokens are the marker that closes the reasoning, with blanks behind it at most."""
        if not self._think_end_text:
            return self._tail == self._think_end
        return b"".join(map(self._piece, self._tail)).rstrip().endswith(self._think_end_text)

    @timed
    def accept(self, token: int) -> None:
        """Advance by the token that was drawn."""
        self.accepted_tokens += 1
        if self._header is not None:
            self.failed |= not self._header.consume(token)
            if self._header.is_stopped:
                self._header = None
        elif not self._is_active:
            self._tail = [*self._tail, token][-max(len(self._think_end), len(self._think_end_text)) :]
            self._is_active = self._ends_reasoning()
            self._blanks_left = 2 if self._is_active else 0
        elif self._may_think and token == self._think_start[0]:
            self._is_active = False
        elif self._blanks_left and token in self._blank:
            self._blanks_left -= 1
        elif not self._matcher.is_stopped:
            self.failed |= not self._matcher.consume(token)
            self._blanks_left = 0
        self._may_think = False
