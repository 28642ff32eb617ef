"""What is to be reached, and whether it was."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from benchmarks import names
from benchmarks.measure import Result, Series


@dataclass(frozen=True)
class Goal:
    """A bound on a measure of ours: on the value itself, or on what it is divided by another target's or measure's."""

    title: str
    workload: str
    measure: str
    bound: float
    at_most: bool = False
    peer: str = names.OURS
    against: str | None = None  # a measure of the peer; None: the same one, or no division where the peer is ours
    unit: str = ""
    model: str | None = None  # None: every model that the workload is measured on

    def series(self, result: Result) -> Series | None:
        """Give what is judged, round by round; None where one side was not measured."""
        ours = result.get(names.OURS, self.measure)
        if ours is None or (self.peer == names.OURS and self.against is None):
            return ours
        other = result.get(self.peer, self.against or self.measure)
        return ours.over(other) if other else None

    def holds(self, value: float) -> bool:
        """Whether a value is within the bound."""
        return value <= self.bound if self.at_most else value >= self.bound

    @property
    def told(self) -> str:
        """The bound in words."""
        return f"{'at most' if self.at_most else 'at least'} {self.bound:g}{self.unit}"


@dataclass(frozen=True)
class Verdict:
    """A goal on a model; `series` is None where it could not be judged."""

    goal: Goal
    model: str
    series: Series | None

    @property
    def reached(self) -> bool | None:
        """Whether the median is within the bound."""
        return None if self.series is None else self.goal.holds(self.series.median)


GOALS = (
    Goal("one stream, of mlx-lm in process", "one-stream", "tokens_per_second", 0.97, peer=names.IN_PROCESS),
    Goal(
        "one stream, times mlx-lm in process",
        "one-stream",
        "tokens_per_second",
        1.1,
        peer=names.IN_PROCESS,
        model=names.DEMO,
    ),
    Goal(
        "one stream, times mlx-lm in process",
        "one-stream",
        "tokens_per_second",
        1.9,
        peer=names.IN_PROCESS,
        model=names.REAL,
    ),
    Goal(
        "32 streams counted in the engine, of BatchGenerator in process",
        "streams-32",
        "engine_tokens_per_second",
        0.95,
        peer=names.IN_PROCESS,
        against="tokens_per_second",
    ),
    Goal(
        "32 streams counted at the client, of BatchGenerator in process",
        "streams-32",
        "tokens_per_second",
        0.85,
        peer=names.IN_PROCESS,
    ),
    Goal("32 streams, times `mlx_lm.server`", "streams-32", "tokens_per_second", 5.0, peer=names.PEER),
    Goal(
        "first token of a prompt of 1,100 tokens, of `mlx_lm.server`'s",
        "chat",
        "first_ttft",
        0.125,
        at_most=True,
        peer=names.PEER,
        model=names.DEMO,
    ),
    Goal("short requests, times `mlx_lm.server`", "short", "requests_per_second", 2.5, peer=names.PEER),
    Goal("short requests, of mlx-lm in process", "short", "requests_per_second", 0.85, peer=names.IN_PROCESS),
    Goal("JSON schema, of the plain speed", "json-schema", "schema_rate", 0.9, against="plain_rate"),
    Goal("JSON schema, 8 at once, of the plain speed", "json-schema", "schema_rate_8", 0.9, against="plain_rate_8"),
    Goal("an object of long names, times the plain speed", "forced", "object_rate", 2.0, against="plain_rate"),
    Goal("4 of them at once, times the plain speed", "forced", "object_rate_4", 1.0, against="plain_rate_4"),
    Goal("a text without any choice, times the plain speed", "forced", "text_rate", 4.0, against="plain_rate"),
    Goal("free text under a grammar, of the plain speed", "forced", "anything_rate", 0.97, against="plain_rate"),
    Goal("a file written again, times other text", "copying", "copy_rate", 2.0, against="other_rate"),
    Goal("the same at temperature 0.7", "copying", "sampled_copy_rate", 2.0, against="other_rate"),
    Goal("logprobs, of the plain speed", "logprobs", "logprobs_rate", 0.95, against="plain_rate"),
    Goal("logprobs, 8 at once, of the plain speed", "logprobs", "logprobs_rate_8", 0.95, against="plain_rate_8"),
    Goal(
        "first token of a conversation after a restart, of the cold one",
        "restart",
        "warm_ttft",
        0.15,
        at_most=True,
        against="cold_ttft",
    ),
    Goal(
        "first tokens of 8 requests with one system prompt, times those of one",
        "helpers",
        "last_ttft",
        1.5,
        at_most=True,
        against="one_ttft",
    ),
    Goal(
        "inter-token p95 while a long prompt comes in, of 250 ms or 5 undisturbed medians",
        "long-prompt",
        "p95_during",
        1.0,
        at_most=True,
        against="p95_allowed",
    ),
    Goal("start until `/health` answers", "start", "health_seconds", 1.2, at_most=True, unit=" s"),
    Goal(
        "start until the first answer, of `mlx_lm.server`'s",
        "start",
        "ready_seconds",
        1.1,
        at_most=True,
        peer=names.PEER,
        model=names.DEMO,
    ),
    Goal(
        "resident memory when idle, of `mlx_lm.server`'s",
        "start",
        "resident_memory",
        1.25,
        at_most=True,
        peer=names.PEER,
        model=names.DEMO,
    ),
    Goal("idle CPU, of a core", "start", "idle_cpu_percent", 0.5, at_most=True, unit=" %"),
)


def verdicts(results: Sequence[Result]) -> Iterator[Verdict]:
    """Judge every goal on every model that its workload was measured on."""
    for goal in GOALS:
        for result in results:
            if result.workload == goal.workload and goal.model in (None, result.model):
                yield Verdict(goal, result.model, goal.series(result))
