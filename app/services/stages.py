"""The stages of a request, from its arrival to the end of its answer, and how long each of them took."""

from dataclasses import dataclass, fields
from itertools import accumulate, pairwise


@dataclass(frozen=True, slots=True)
class RequestTiming:
    """Where a request's time went, in milliseconds. The parts add up to the whole."""

    request_ms: float  # its body was read and checked, and its model found or loaded
    template_ms: float  # the prompt was rendered and tokenized, images read, grammars compiled
    queue_ms: float  # it waited for a slot and for memory
    cache_ms: float  # the prompt was looked up in the prefix cache
    prompt_ms: float  # the rest of it was computed, in turns with others
    first_token_ms: float  # the first token was drawn
    tokens_ms: float  # the others were
    grammar_ms: float  # of these two: a grammar said which tokens may come; not counted above
    client_ms: float  # what was ready was not yet read
    total_ms: float


@dataclass(frozen=True, slots=True)
class Stages:
    """When an answer came to each of its stages, in seconds of `time.perf_counter`: one ends where the next begins."""

    request: float
    template: float
    queue: float
    cache: float
    prompt: float
    first_token: float
    tokens: float
    client: float
    grammar_seconds: float = 0.0  # in both stages of tokens

    def moments(self, end: float) -> dict[str, float]:
        """Give when each stage began, by its name, none before the one before it or behind the end."""
        names = [one.name for one in fields(self)[:-1]]
        begins = accumulate((getattr(self, name) for name in names), max)
        return {name: min(moment, end) for name, moment in zip(names, begins, strict=True)}

    def timing(self, end: float) -> RequestTiming:
        """Say how long each took, where the last one ends now.

        Microseconds are whole numbers, so that nothing is lost in the sum. A stage that was passed over has none.
        """
        begins = [getattr(self, one.name) for one in fields(self)[:-1]]
        micros = [round((moment - self.request) * 1e6) for moment in accumulate([*begins, end], max)]
        request, template, queue, cache, prompt, first, rest, client = (later - one for one, later in pairwise(micros))
        grammar = min(round(self.grammar_seconds * 1e6), first + rest)
        of_rest = min(grammar, rest)
        parts = (request, template, queue, cache, prompt, first - grammar + of_rest, rest - of_rest, grammar, client)
        return RequestTiming(*(part / 1000 for part in (*parts, micros[-1])))
