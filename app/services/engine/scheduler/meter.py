"""What the engine counts of its work; the thread that owns it writes, any thread may read."""

from bisect import bisect_left
from collections.abc import Sequence

from app.services.engine.vision.counts import ImageCounts
from app.services.generation import CacheUse, Timings


class Histogram:
    """How often a value was at most each of some bounds."""

    def __init__(self, *bounds: float) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)  # not cumulative; the last is for what is beyond all bounds
        self.total = 0.0

    def add(self, value: float, times: int = 1) -> None:
        """Count a value."""
        self.counts[bisect_left(self.bounds, value)] += times
        self.total += value * times


class Meter:
    """Totals since the server started, of all models. A token costs a few additions, a step some more."""

    def __init__(self) -> None:
        self.prompt_tokens = 0  # computed; those of a prompt count when it is done
        self.cached_tokens = 0
        self.prompt_seconds = 0.0  # summed over requests, as the other seconds are
        self.answer_tokens = 0  # they count when the answer is over
        self.following_tokens = 0  # all but the first of each answer
        self.drawn_tokens = 0  # of all answers, as they are drawn
        self.answer_seconds = 0.0  # between the first token and the last
        self.draft_tokens = self.accepted_tokens = 0  # of answers that are over
        self.longest = 0  # tokens of a prompt and its answer
        self.steps = 0
        self.rows = 0  # summed over steps
        self.running = 0  # requests
        self.machines_free: Sequence[int] = ()  # bytes of the machines of a group besides this one, by rank
        self.waiting = 0
        self.images = ImageCounts()
        self.cache_uses = {"whole": 0, "part": 0, "none": 0}
        self.cache_bytes = 0
        self.memory = (0, 0, 0)  # bytes: in use, kept for reuse, the most there ever was
        self.batch_rows = Histogram(1, 2, 4, 8, 16, 32, 64, 128, 256)
        self.first_token = Histogram(0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 60, 120)
        self.between_tokens = Histogram(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)
        self.whole_answer = Histogram(0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 60, 120, 300, 600)

    def count_step(self, rows: int, following: int, seconds: float | None) -> None:
        """Count a step of so many rows; `following` had a token before, so many seconds ago."""
        if not rows:
            return
        self.steps += 1
        self.rows += rows
        self.drawn_tokens += following
        self.batch_rows.add(rows)
        if following and seconds is not None:
            self.between_tokens.add(seconds, following)

    def count_cache_use(self, use: CacheUse) -> None:
        """Count what the prefix cache had of a prompt."""
        self.cache_uses["whole" if use.reason == "whole" else "part" if use.cached_tokens else "none"] += 1

    def count_prompt(self, timings: Timings) -> None:
        """Count a prompt that is computed."""
        self.prompt_tokens += timings.prompt_tokens
        self.cached_tokens += timings.cached_tokens
        self.prompt_seconds += timings.prompt_ms / 1000
        self.drawn_tokens += min(1, timings.completion_tokens)
        self.first_token.add(timings.first_token_ms / 1000)

    def count_answer(self, timings: Timings) -> None:
        """Count an answer that is over, whole or not."""
        tokens = timings.completion_tokens
        self.answer_tokens += tokens
        self.following_tokens += max(0, tokens - 1)
        self.draft_tokens += timings.draft_tokens
        self.accepted_tokens += timings.accepted_tokens
        self.answer_seconds += timings.completion_ms / 1000
        self.longest = max(self.longest, timings.prompt_tokens + timings.cached_tokens + tokens)
        self.whole_answer.add(timings.total_ms / 1000)

    def count_embedding(self, tokens: int) -> None:
        """Count texts that became vectors."""
        self.prompt_tokens += tokens
