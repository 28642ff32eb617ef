"""One answer in the making."""

import time
from collections.abc import Iterator, Sequence

from app.services.engine.model.adapters import Scales
from app.services.engine.output.detokenizer import Detokenizer
from app.services.engine.output.message_parser import MessageParser
from app.services.engine.output.parser import OutputParser
from app.services.engine.output.parts import OutputPart, TextPiece
from app.services.engine.sampling.call_constraint import CallConstraint
from app.services.engine.sampling.grammar import GrammarConstraint
from app.services.engine.sampling.logprobs import RowLogprobs, token_logprob
from app.services.engine.sampling.params import SamplingParams
from app.services.engine.scheduler.forced_tokens import ForcedTokens
from app.services.engine.scheduler.prefill_state import PrefillState
from app.services.engine.scheduler.prompt_logprobs import PromptScorer
from app.services.engine.scheduler.reasoning_limit import ReasoningLimit
from app.services.engine.scheduler.running_request import RunningRequest
from app.services.engine.scheduler.scoring import Scoring
from app.services.engine.speculative.proposer import Proposer
from app.services.engine.vision.prompt_images import NO_IMAGES, PromptImages
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
from app.services.stages import Stages

_COPIES, _SHORTEST_LOOP = 12, 256
_LONGEST_PERIOD = 512  # tokens
_LOOK_EVERY = 16  # tokens


class Clock:
    """When the steps of one answer happened, in seconds."""

    def __init__(self) -> None:
        self.arrival = time.perf_counter()
        self.first_token: float | None = None
        self.last_token: float | None = None

    def token(self) -> None:
        """Note that a token came."""
        self.last_token = time.perf_counter()
        if self.first_token is None:
            self.first_token = self.last_token


class Row:
    """One answer, from its prompt to its last token: a row of a batch while it is decoded."""

    def __init__(
        self,
        *,
        generation: RunningRequest | None,  # None while warming up
        prompt: list[int],
        max_tokens: int,
        params: SamplingParams,
        parser: OutputParser | MessageParser,
        detokenizer: Detokenizer,
        end_tokens: frozenset[int],
        context_left: int | None = None,
        constraint: GrammarConstraint | CallConstraint | None = None,
        logprobs: int | None = None,
        thinking_budget: int | None = None,
        think_token: int | None = None,
        think_closes: Sequence[Sequence[int]] = (),
        stop_repetition: bool = False,
        proposer: Proposer | None = None,
        scales: Scales = (),
        slot: int | None = None,
        settings: AnswerSettings | None = None,
        images: PromptImages = NO_IMAGES,
    ) -> None:
        self.generation = generation
        self.scoring: Scoring | None = None  # of texts behind the prompt, instead of an answer
        self.prompt_scorer: PromptScorer | None = None  # of the prompt itself
        self.settings = settings or AnswerSettings()  # as /slots shows them
        self.prompt = prompt  # its tokens; those of an image all are the same
        self.images = images  # in the prompt
        self.slot = slot  # index of the slot that it prefers
        self.prefill = PrefillState(images.keyed(prompt) if images else prompt)
        self.max_tokens = max_tokens
        self.params = params
        self.scales = scales  # of adapters
        self.clock = Clock()
        self.answer: list[int] = []  # tokens drawn and read, the end token too
        self.drawn_tokens = 0  # of the answer
        self.decoded_tokens = 0  # of the answer, in the layers beyond what was prefilled
        self.times_passed = 0  # how often others were admitted before it
        self.draft_tokens = self.accepted_tokens = 0  # tokens of the answer
        self.failures = 0  # steps for which memory ran out
        self.finish_reason: FinishReason | None = None
        self.siblings: list[Row] = []  # other answers to the same prompt, which share its computation
        self.constraint = constraint
        self.must_redraw = False  # what was drawn beyond the tokens that are read, since a call binds it
        self.proposer = proposer if thinking_budget is None else None  # a budget has to be seen token by token
        self.logprobs = logprobs  # how many alternatives each token has; None is no log-probabilities
        self.forced_tokens = ForcedTokens()
        self._context_left = context_left  # tokens that the context has left for the answer
        self._pending_logprobs: list[TokenLogprob] = []  # of tokens whose text is not sent yet
        self._sent_tokens = 0  # tokens of the answer whose text is sent
        self._think_token = think_token  # begins the reasoning where a grammar constrains the answer
        self._reasoning = ReasoningLimit(thinking_budget, think_closes)
        self._stop_repetition = stop_repetition
        self._parser = parser
        self._detokenizer = detokenizer
        self._end_tokens = end_tokens

    @property
    def cached_tokens(self) -> int:
        """Tokens of the prompt that came from the prefix cache."""
        return self.prefill.cache_use.cached_tokens

    @property
    def computed_tokens(self) -> int:
        """Tokens of the answer that are in the layers, or were prefilled."""
        return self.resumed_tokens + self.decoded_tokens

    @property
    def length(self) -> int:
        """Tokens in its cache."""
        return self.prefill.length + self.decoded_tokens

    @property
    def layer_tokens(self) -> list[int]:
        """The tokens that are in its layers; those of images by their keys in the prefix cache."""
        return self.prefill.tokens[: self.prefill.length] + computed_answer(self)[self.resumed_tokens :]

    @property
    def needs_memory(self) -> bool:
        """Whether it goes on and has used up the memory that is reserved for it."""
        return not self.finish_reason and self.length >= self.prefill.reserved_tokens

    @property
    def is_bound(self) -> bool:
        """Whether a grammar decides about its next token."""
        return self.constraint is not None and self.constraint.is_bound

    @property
    def pivotal(self) -> bool:
        """Whether nothing more is drawn before the next token is read: the answer or its reasoning may end there."""
        if self.drawn_tokens >= self.max_tokens:
            return True
        return self._reasoning.is_reached(self.drawn_tokens - len(self.answer)) and self._parser.in_reasoning

    @property
    def resumed_tokens(self) -> int:
        """Tokens of the answer that are prefilled again, because memory ran out."""
        return len(self.prefill.tokens) - len(self.prompt)

    def note_certain(self, tokens: int) -> None:
        """Note that so many tokens more were fed, each of which was the next one."""
        self.decoded_tokens += tokens
        self.drawn_tokens += tokens

    def interrupt(self) -> None:
        """Drop the cache, in whatever state it is, because memory ran out.

        The answer goes on once its tokens have been computed again.
        """
        self.failures += 1
        if self.constraint is not None:
            self.constraint.catch_up(self.answer)
        self.prefill = self.prefill.restarted(self.prefill.tokens[: len(self.prompt)] + self.answer)
        self.decoded_tokens = 0
        self.drawn_tokens, self.must_redraw = len(self.answer), False

    def share(self) -> list["Row"]:
        """Give the siblings the prompt that is computed here. Returns all rows, this one first."""
        for sibling in self.siblings:
            sibling.prefill = self.prefill.for_sibling()
        rows, self.siblings = [self, *self.siblings], []  # each is a row of its own from now on
        return rows

    def without(self, request: RunningRequest) -> "Row | None":
        """Give this row with its siblings but without the row of a request; None if no row is left."""
        rows = [row for row in (self, *self.siblings) if row.generation is not request]
        if not rows:
            return None
        first, *rest = rows
        first.prefill, first.siblings = self.prefill, rest
        return first

    def reserve(self, tokens: int) -> None:
        """Note that memory is reserved for so many tokens of this row and of each sibling."""
        for row in (self, *self.siblings):
            row.prefill.reserved_tokens = tokens

    def trim_unread(self) -> None:
        """Take tokens out of the layers that were not read, because the answer ended before them.

        Where they cannot be taken out, checkpoints before them are still of use.
        """
        layers, surplus = self.prefill.layers, self.computed_tokens - len(self.answer)
        if layers is not None and surplus > 0 and layers.can_trim:
            layers.trim(surplus)
            self.decoded_tokens -= surplus

    def progress(self) -> Progress:
        """Say how much of the prompt is computed."""
        elapsed = (time.perf_counter() - self.prefill.start_time) * 1000
        return Progress(self.prefill.length, len(self.prompt), self.cached_tokens, elapsed)

    def note_step(self, *, fresh: bool) -> None:
        """Note that a token was fed, the last of the prompt if `fresh`, and the next one drawn."""
        if fresh:
            self.prefill.length += 1
        else:
            self.decoded_tokens += 1
        self.drawn_tokens += 1

    def take(self, token: int, logprobs: RowLogprobs | None = None) -> list[Event]:
        """Read the next token. Returns its events; sets `finish_reason` if it was the last."""
        events: list[Event] = [] if self.answer else [self.progress()]
        self.answer.append(token)
        self.clock.token()
        ends = token in self._end_tokens
        if logprobs is not None and (not ends or self.prompt_scorer is not None):  # of an echo it counts as well
            self._pending_logprobs.append(token_logprob(token, logprobs, self.logprobs or 0, self._detokenizer))
        if ends:
            return events + self.finish("end_token")
        if self.is_bound and len(self.answer) == 1 and token != self._think_token:
            self._parser.skip_reasoning()
        text = self._detokenizer.feed(token)
        events += self._events(self._parser.feed(text))
        if isinstance(self.constraint, CallConstraint) and self.constraint.watch(
            self._parser.reader, self.answer, self._detokenizer.token_bytes
        ):
            self.must_redraw = self.drawn_tokens > len(self.answer)
        if text and not self._parser.in_answer:
            self._pending_logprobs.clear()  # log-probabilities are sent for the answer only
        self._count_reasoning()
        cause = self._finish_cause()
        return events + self.finish(cause) if cause else events

    def close_reasoning(self) -> None:
        """Have the model end its reasoning now."""
        if self._parser.in_reasoning and max(self.forced_tokens, default=-1) < len(self.answer):
            self.forced_tokens.update(enumerate(self._reasoning.next_close(), self.drawn_tokens))

    def _count_reasoning(self) -> None:
        if self._parser.in_reasoning:
            self._reasoning.tokens += 1
            if self._reasoning.is_reached():
                self.close_reasoning()

    def _finish_cause(self) -> FinishCause | None:
        """Say why the answer is over, None while it is not."""
        if self._parser.over:
            return "stop_string" if self._parser.stop_string is not None else "tool_call"
        if len(self.answer) >= self.max_tokens:
            return "context" if self.max_tokens == self._context_left else "max_tokens"
        if self._stop_repetition and repeats(self.answer):
            return "repetition"
        return None

    def finish(self, cause: FinishCause) -> list[Event]:
        """End the answer. Returns the events of the text that was not sent yet, and Finished."""
        rest = self._parser.feed(self._detokenizer.finish()) + self._parser.finish(ended=cause == "end_token")
        events = list(self._events(rest))
        if self._parser.stop_string is not None:  # in what was held back
            cause = "stop_string"
        logprobs = () if cause == "stop_string" else tuple(self._pending_logprobs)
        reason: FinishReason = "length" if cause in ("max_tokens", "context", "repetition", "memory") else "stop"
        self.finish_reason = "tool_calls" if self._parser.complete_calls and reason == "stop" else reason
        stop, use = self._parser.stop_string, self.prefill.cache_use
        return [*events, Finished(self.finish_reason, stop, self.timings(), cause, use, logprobs, _stages(self))]

    def timings(self) -> Timings:
        """Measure the answer until now."""
        clock, now = self.clock, time.perf_counter()
        first = clock.first_token or now
        return Timings(
            cached_tokens=self.cached_tokens,
            prompt_tokens=len(self.prompt) - self.cached_tokens + (self.scoring.own_tokens if self.scoring else 0),
            prompt_ms=(first - self.prefill.start_time) * 1000,
            completion_tokens=len(self.answer),
            completion_ms=((clock.last_token or first) - first) * 1000,
            first_token_ms=(first - clock.arrival) * 1000,
            total_ms=((clock.last_token or now) - clock.arrival) * 1000,
            draft_tokens=self.draft_tokens,
            accepted_tokens=self.accepted_tokens,
        )

    def _events(self, parts: list[OutputPart]) -> Iterator[Event]:
        for piece in parts:
            if not isinstance(piece, TextPiece):
                yield piece
            elif piece.reasoning:
                yield Reasoning(piece.text, self.timings())
            else:
                logprobs, self._pending_logprobs = tuple(self._pending_logprobs), []
                tokens = tuple(token for token in self.answer[self._sent_tokens :] if token not in self._end_tokens)
                self._sent_tokens = len(self.answer)
                yield Text(piece.text, self.timings(), logprobs, tokens)


def _stages(row: Row) -> Stages | None:
    """Say when an answer that is over came to each of its stages."""
    if (generation := row.generation) is None:
        return None
    state, clock, now = row.prefill, row.clock, time.perf_counter()
    return Stages(
        request=generation.arrived_at,
        template=generation.prepared_from,
        queue=generation.queued_at,
        cache=state.admitted_at,
        prompt=state.looked_up_at,
        first_token=state.computed_at,
        tokens=clock.first_token or now,
        client=clock.last_token or now,
        grammar_seconds=row.constraint.stopwatch.seconds if row.constraint else 0.0,
    )


def computed_answer(row: Row) -> list[int]:
    """Give the tokens of an answer that are in its layers, or were prefilled. Forced ones need not be read yet."""
    unread = row.forced_tokens.run(len(row.answer), row.computed_tokens)
    return [*row.answer, *unread][: row.computed_tokens]


def forced_run(row: Row) -> list[int]:
    """Give the forced tokens behind the one that is drawn: with it they can be computed in one call.

    The last token of an answer is drawn, and so are tokens of whose samplers something is told.
    """
    if row.params.post_sampling or not row.forced_tokens:
        return []
    reserved = row.prefill.reserved_tokens - row.length - 1
    return row.forced_tokens.run(row.drawn_tokens, min(row.max_tokens - 1, row.drawn_tokens + reserved))


def take_back_draws(row: Row) -> int:
    """Have a row forget all but the first of its tokens that are not read. Returns how many of them are in its layers.

    The draw of that one is to be repeated.
    """
    row.must_redraw = False
    surplus = row.drawn_tokens - len(row.answer) - 1
    row.drawn_tokens -= surplus
    row.decoded_tokens -= surplus
    row.accepted_tokens -= surplus
    return surplus


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
