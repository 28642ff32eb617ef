"""One answer in the making."""

import time
from collections.abc import Iterator

from app.services.engine.prefix_cache import Layers
from app.services.engine.running import RunningGeneration
from app.services.engine.sampling import Choice
from app.services.engine.speech import Said, Speech
from app.services.engine.text import Detokenizer
from app.services.generation import Event, Finished, FinishReason, Progress, Reasoning, Text, Timings, ToolCall


class Clock:
    """When the steps of one answer happened, in seconds."""

    def __init__(self) -> None:
        self.accepted = time.perf_counter()
        self.prefill_began = self.accepted
        self.first_token: float | None = None
        self.last_token: float | None = None

    def begin_prefill(self) -> None:
        """Note that the request has left the queue."""
        self.prefill_began = time.perf_counter()

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
        choice: Choice,
        speech: Speech,
        detokenizer: Detokenizer,
        end_tokens: frozenset[int],
    ) -> None:
        self.generation = generation
        self.prompt = prompt
        self.max_tokens = max_tokens
        self.choice = choice
        self.clock = Clock()
        self.layers: Layers | None = None
        self.cached = 0  # tokens of the prompt that came from the prefix cache
        self.done = 0  # tokens of the prompt that are in the layers
        self.answer: list[int] = []  # tokens drawn and read, the end token too
        self.drawn = 0  # tokens of the answer that are drawn
        self.fed = 0  # tokens of the answer that are in the layers
        self.finished: FinishReason | None = None
        self._speech = speech
        self._detokenizer = detokenizer
        self._end_tokens = end_tokens
        self._called = False

    @property
    def left(self) -> int:
        """Tokens of the prompt that are still to be computed."""
        return len(self.prompt) - self.done

    def give_layers(self) -> Layers:
        """Hand the cache over; the row has none then."""
        layers, self.layers = self.layers, None
        assert layers is not None
        return layers

    def progress(self) -> Progress:
        """How far the prompt is."""
        elapsed = (time.perf_counter() - self.clock.prefill_began) * 1000
        return Progress(self.done, len(self.prompt), self.cached, elapsed)

    def note_step(self, *, fresh: bool) -> None:
        """Note that a token was fed, the last of the prompt if `fresh`, and the next one drawn."""
        if fresh:
            self.done += 1
        else:
            self.fed += 1
        self.drawn += 1

    def take(self, token: int) -> list[Event]:
        """Take in the next token and give what there is to say. Sets `finished` when it was the last."""
        events: list[Event] = [] if self.answer else [self.progress()]
        self.answer.append(token)
        self.clock.token()
        return events + self._said(token)

    def _said(self, token: int) -> list[Event]:
        if token in self._end_tokens:
            return self.finish("stop")
        events = list(self._events(self._speech.feed(self._detokenizer.feed(token))))
        if self._speech.stopped is not None:
            return events + self.finish("stop")
        if len(self.answer) >= self.max_tokens:
            return events + self.finish("length")
        return events

    def finish(self, reason: FinishReason) -> list[Event]:
        """End the answer: what was held back, then the end itself."""
        rest = self._speech.feed(self._detokenizer.finish()) + self._speech.finish()
        events = list(self._events(rest))
        self.finished = "tool_calls" if self._called and reason == "stop" else reason
        return [*events, Finished(self.finished, self._speech.stopped, self.timings())]

    def timings(self) -> Timings:
        """Where the time went until now."""
        clock, now = self.clock, time.perf_counter()
        first = clock.first_token or now
        return Timings(
            cached_tokens=self.cached,
            prompt_tokens=len(self.prompt) - self.cached,
            prompt_ms=(first - clock.prefill_began) * 1000,
            completion_tokens=len(self.answer),
            completion_ms=((clock.last_token or first) - first) * 1000,
            first_token_ms=(first - clock.accepted) * 1000,
            total_ms=((clock.last_token or now) - clock.accepted) * 1000,
        )

    def _events(self, said: list[Said | ToolCall]) -> Iterator[Event]:
        for piece in said:
            if isinstance(piece, ToolCall):
                self._called = True
                yield piece
            elif piece.reasoning:
                yield Reasoning(piece.text, self.timings())
            else:
                yield Text(piece.text, self.timings())


def kept_tokens(row: Row) -> list[int]:
    """Give the tokens that the row's layers hold."""
    return row.prompt[: row.done] + row.answer[: row.fed]
