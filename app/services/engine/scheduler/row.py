"""One answer in the making."""

import time
from collections.abc import Iterator, Sequence

from mlx_lm.models.cache import trim_prompt_cache

from app.services.engine.model.adapters import Scales
from app.services.engine.output.detokenizer import Detokenizer
from app.services.engine.output.parser import OutputParser
from app.services.engine.output.parts import OutputPart, TextPiece
from app.services.engine.sampling.grammar import GrammarConstraint
from app.services.engine.sampling.logprobs import RowLogprobs, token_logprob
from app.services.engine.sampling.params import SamplingParams
from app.services.engine.scheduler.prefill_state import PrefillState
from app.services.engine.scheduler.running_generation import RunningGeneration
from app.services.engine.scheduler.running_request import RunningRequest
from app.services.engine.speculative.proposer import Proposer
from app.services.facts import AnswerSettings
from app.services.generation import (
    Event,
    FinishCause,
    Finished,
    FinishReason,
    Progress,
    Reasoning,
    Text,
    Timings,
    TokenLogprob,
)

_COPIES, _SHORTEST_LOOP = 12, 256
_LONGEST_PERIOD = 512  # tokens
_LOOK_EVERY = 16  # tokens


class Clock:
    """When the steps of one answer happened, in seconds."""

    def __init__(self) -> None:
        self.accepted = time.perf_counter()
        self.first_token: float | None = None
        self.last_token: float | None = None

    def token(self) -> None:
        """Note that a token came."""
        self.last_token = time.perf_counter()
        if self.first_token is None:
            self.first_token = self.last_token


class Row:
    """What the engine knows of one request, from its prompt to its last token."""

    def __init__(
        self,
        *,
        generation: RunningGeneration | None,  # None while warming up
        prompt: list[int],
        max_tokens: int,
        choice: SamplingParams,
        parser: OutputParser,
        detokenizer: Detokenizer,
        end_tokens: frozenset[int],
        room: int | None = None,
        bound: GrammarConstraint | None = None,
        logprobs: int | None = None,
        thinking_budget: int | None = None,
        think_token: int | None = None,
        think_end: Sequence[int] = (),
        stop_repetition: bool = False,
        proposer: Proposer | None = None,
        scales: Scales = (),
        slot: int | None = None,
        settings: AnswerSettings | None = None,
    ) -> None:
        self.generation = generation
        self.settings = settings or AnswerSettings()  # as /slots tells them
        self.prompt = prompt
        self.slot = slot  # the place of the batch that it would like
        self.prefill = PrefillState(prompt)
        self.max_tokens = max_tokens
        self.choice = choice
        self.scales = scales  # of adapters
        self.clock = Clock()
        self.answer: list[int] = []  # tokens drawn and read, the end token too
        self.drawn = 0  # tokens of the answer that are drawn
        self.fed = 0  # tokens of the answer that are in the layers beyond what was prefilled
        self.passed = 0  # times that others were let in before
        self.draft_tokens = self.accepted_tokens = 0  # tokens of the answer
        self.failures = 0  # steps that found no memory
        self.finished: FinishReason | None = None
        self.siblings: list[Row] = []  # other answers to the same prompt, which share its computation
        self.bound = bound
        self.proposer = proposer if thinking_budget is None else None  # a budget has to be seen token by token
        self.logprobs = logprobs  # how many alternatives are told with each token; None is no log-probabilities
        self.forced: dict[int, int] = {}  # tokens that are said whatever is drawn, by their place in the answer
        self._room = room  # tokens that the context has left for the answer
        self._unsaid: list[TokenLogprob] = []  # of tokens whose text is held back
        self._told = 0  # of the answer's tokens, those whose text is
        self._thinking_budget = thinking_budget
        self._think_token = think_token  # what begins a thought where a grammar binds the answer
        self._think_end = think_end
        self._thought = 0
        self._stop_repetition = stop_repetition
        self._parser = parser
        self._detokenizer = detokenizer
        self._end_tokens = end_tokens

    @property
    def cached_tokens(self) -> int:
        """Tokens of the prompt that came from the prefix cache."""
        return self.prefill.cache_use.cached_tokens

    @property
    def said(self) -> int:
        """Tokens of the answer that are in the layers, or are prefilled."""
        return self.base + self.fed

    @property
    def length(self) -> int:
        """Tokens in its cache."""
        return self.prefill.computed + self.fed

    @property
    def outgrown(self) -> bool:
        """Whether it goes on and has used up the memory that is set aside for it."""
        return not self.finished and self.length >= self.prefill.reserved

    @property
    def pivotal(self) -> bool:
        """Whether nothing more can be drawn before this is read: it is the last, or the last that may be thought."""
        if self.drawn >= self.max_tokens:
            return True
        if self._thinking_budget is None or not self._parser.in_reasoning:
            return False
        return self._thought + self.drawn - len(self.answer) >= self._thinking_budget

    @property
    def base(self) -> int:
        """Tokens of the answer that are prefilled, because memory ran out when they were there."""
        return len(self.prefill.tokens) - len(self.prompt)

    def note_draft(self, drafted: int, accepted: int, *, fresh: bool) -> None:
        """Note a step that fed draft tokens as well, of which so many were accepted."""
        self.note_step(fresh=fresh)
        self.fed += accepted
        self.drawn += accepted
        self.draft_tokens += drafted
        self.accepted_tokens += accepted

    def interrupt(self) -> None:
        """Lose the cache, in whatever state it is, because memory ran out.

        The answer goes on once all of it has been computed again.
        """
        self.failures += 1
        if self.bound is not None:
            self.bound.catch_up(self.answer)
        self.prefill = self.prefill.restarted(self.prompt + self.answer)
        self.fed = 0
        self.drawn = len(self.answer)

    def share(self) -> list["Row"]:
        """Bring the siblings to where this row's prompt is. Returns all of them, this one first."""
        for sibling in self.siblings:
            sibling.prefill = self.prefill.for_sibling()
        rows, self.siblings = [self, *self.siblings], []  # each is a row of its own from now on
        return rows

    def without(self, request: RunningRequest) -> "Row | None":
        """Give what is left of this row and its siblings without the one that belongs to a request."""
        rows = [row for row in (self, *self.siblings) if row.generation is not request]
        if not rows:
            return None
        first, *rest = rows
        first.prefill, first.siblings = self.prefill, rest
        return first

    def reserve(self, tokens: int) -> None:
        """Note that memory is set aside for so many tokens of this row and of each that shares its prompt."""
        for row in (self, *self.siblings):
            row.prefill.reserved = tokens

    def trim_unread(self) -> None:
        """Take tokens out of the layers that were not read, because the answer ended within what was proposed."""
        if self.prefill.layers is not None and (surplus := self.said - len(self.answer)) > 0:
            trim_prompt_cache(self.prefill.layers, surplus)
            self.fed -= surplus

    def progress(self) -> Progress:
        """How far the prompt is."""
        elapsed = (time.perf_counter() - self.prefill.began) * 1000
        return Progress(self.prefill.computed, len(self.prompt), self.cached_tokens, elapsed)

    def note_step(self, *, fresh: bool) -> None:
        """Note that a token was fed, the last that was given if `fresh`, and the next one drawn."""
        if fresh:
            self.prefill.computed += 1
        else:
            self.fed += 1
        self.drawn += 1

    def take(self, token: int, score: RowLogprobs | None = None) -> list[Event]:
        """Take in the next token and give what there is to say. Sets `finished` when it was the last."""
        events: list[Event] = [] if self.answer else [self.progress()]
        self.answer.append(token)
        self.clock.token()
        if token in self._end_tokens:
            return events + self.finish("end_token")
        if score is not None:
            self._unsaid.append(token_logprob(token, score, self.logprobs or 0, self._detokenizer))
        if self.bound is not None and len(self.answer) == 1 and token != self._think_token:
            self._parser.skip_reasoning()
        text = self._detokenizer.feed(token)
        events += self._events(self._parser.feed(text))
        if text and not self._parser.in_answer:
            self._unsaid.clear()  # log-probabilities are told of the answer alone
        self._mind_reasoning()
        cause = self._end()
        return events + self.finish(cause) if cause else events

    def close_reasoning(self) -> None:
        """Have the model end its reasoning now."""
        if self._parser.in_reasoning and max(self.forced, default=-1) < len(self.answer):
            self.forced |= {self.drawn + place: token for place, token in enumerate(self._think_end)}

    def _mind_reasoning(self) -> None:
        if not self._parser.in_reasoning:
            return
        self._thought += 1
        if self._thinking_budget is not None and self._thought >= self._thinking_budget:
            self.close_reasoning()

    def _end(self) -> FinishCause | None:
        """Say why the answer is over, None while it is not."""
        if self._parser.over:
            return "stop_string" if self._parser.stop_string is not None else "tool_call"
        if len(self.answer) >= self.max_tokens:
            return "context" if self.max_tokens == self._room else "max_tokens"
        if self._stop_repetition and repeats(self.answer):
            return "repetition"
        return None

    def finish(self, cause: FinishCause) -> list[Event]:
        """End the answer: what was held back, then the end itself."""
        rest = self._parser.feed(self._detokenizer.finish()) + self._parser.finish()
        events = list(self._events(rest))
        if self._parser.stop_string is not None:  # in what was held back
            cause = "stop_string"
        told = () if cause == "stop_string" else tuple(self._unsaid)
        reason: FinishReason = "length" if cause in ("max_tokens", "context", "repetition", "memory") else "stop"
        self.finished = "tool_calls" if self._parser.complete_calls and reason == "stop" else reason
        return [
            *events,
            Finished(self.finished, self._parser.stop_string, self.timings(), cause, self.prefill.cache_use, told),
        ]

    def timings(self) -> Timings:
        """Where the time went until now."""
        clock, now = self.clock, time.perf_counter()
        first = clock.first_token or now
        return Timings(
            cached_tokens=self.cached_tokens,
            prompt_tokens=len(self.prompt) - self.cached_tokens,
            prompt_ms=(first - self.prefill.began) * 1000,
            completion_tokens=len(self.answer),
            completion_ms=((clock.last_token or first) - first) * 1000,
            first_token_ms=(first - clock.accepted) * 1000,
            total_ms=((clock.last_token or now) - clock.accepted) * 1000,
            draft_tokens=self.draft_tokens,
            accepted_tokens=self.accepted_tokens,
        )

    def _events(self, said: list[OutputPart]) -> Iterator[Event]:
        for piece in said:
            if not isinstance(piece, TextPiece):
                yield piece
            elif piece.reasoning:
                yield Reasoning(piece.text, self.timings())
            else:
                logprobs, self._unsaid = tuple(self._unsaid), []
                tokens = tuple(token for token in self.answer[self._told :] if token not in self._end_tokens)
                self._told = len(self.answer)
                yield Text(piece.text, self.timings(), logprobs, tokens)


def repeats(answer: Sequence[int]) -> bool:
    """Whether the end of an answer is the same run of tokens over and over: 12 copies at least, and 256 tokens."""
    if len(answer) < _SHORTEST_LOOP or len(answer) % _LOOK_EVERY:
        return False
    last, before = answer[-1], answer[-2]
    for period in range(1, min(len(answer) // _COPIES, _LONGEST_PERIOD) + 1):
        if answer[-1 - period] != last or answer[-2 - period] != before:
            continue
        length = max(_COPIES * period, _SHORTEST_LOOP)
        if length <= len(answer) and answer[-length:-period] == answer[period - length :]:
            return True
    return False


def kept_tokens(row: Row) -> list[int]:
    """Give the tokens that the row's layers hold."""
    return row.prefill.tokens[: row.prefill.computed] + row.answer[row.said - row.fed : row.said]
