"""An answer and when its parts came."""

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.errors import BenchmarkError

Message = dict[str, str]


@dataclass(frozen=True)
class Reply:
    """Times are seconds on one clock: `sent` is before the connection opens, `ended` the last byte."""

    sent: float
    times: Sequence[float]  # of each piece of text
    ended: float
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    text: str
    engine_seconds: float | None = None  # from acceptance to the last token, if the server tells

    @property
    def time_to_first_token(self) -> float:
        """Seconds."""
        return self.times[0] - self.sent

    @property
    def tokens_per_second(self) -> float:
        """Tokens per second of the whole request."""
        return self.completion_tokens / (self.ended - self.sent)

    @property
    def decode_tokens_per_second(self) -> float:
        """Tokens per second between the first and the last."""
        first, last = self.times[0], self.times[-1]
        if last <= first:
            raise BenchmarkError("an answer came in one piece: it has no rate of decoding")
        return (self.completion_tokens - 1) / (last - first)


def wall(replies: list[Reply]) -> float:
    """Seconds from the first request to the end of the last answer."""
    return max(reply.ended for reply in replies) - min(reply.sent for reply in replies)


def require_length(replies: list[Reply], tokens: int) -> None:
    """Answers that stop early would make a rate that cannot be compared."""
    for reply in replies:
        if reply.completion_tokens != tokens:
            raise BenchmarkError(f"an answer has {reply.completion_tokens} tokens where {tokens} were asked for")
