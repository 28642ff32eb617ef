"""What was said becomes less likely."""

from collections.abc import Sequence

import mlx.core as mx
import numpy as np

from app.services.engine.sampling.columns import column
from app.services.engine.sampling.params import SamplingParams


def tail(prompt: Sequence[int], answer: Sequence[int], count: int) -> list[int]:
    """Give so many of the last tokens of a prompt and its answer, or all where there are fewer."""
    rest = count - len(answer)
    return [*(prompt[-rest:] if rest > 0 else ()), *answer[-count:]] if count > 0 else []


class Penalties:
    """Lowers what was said, counted on the device so that no step waits for a token.

    That is the whole answer, or the last tokens of the prompt and the answer where a row has a window.
    """

    def __init__(
        self,
        choices: Sequence[SamplingParams],
        prompts: Sequence[Sequence[int]],
        answers: Sequence[Sequence[int]],
        vocabulary: int,
    ) -> None:
        self._none = vocabulary  # a column past the last token collects what does not count
        self._rows = mx.arange(len(choices))
        self._repetition = column([choice.repetition_penalty for choice in choices])
        self._presence = column([choice.presence_penalty for choice in choices])
        self._frequency = column([choice.frequency_penalty for choice in choices])
        windows = [choice.penalty_window if choice.penalised else None for choice in choices]
        said = [
            tail(prompt, answer, window) if window else answer
            for prompt, answer, window in zip(prompts, answers, windows, strict=True)
        ]
        self._counts = mx.array(_counts(said, vocabulary))
        self._recent = _Recent.of(said, windows, self._none)

    def count(self, fed: mx.array) -> None:
        """Take in the tokens (rows,) that were fed."""
        self._counts = self._counts.at[self._rows, fed].add(1.0)
        if self._recent is not None:
            self._counts = self._counts.at[self._rows, self._recent.push(fed)].add(-1.0)

    def __call__(self, logits: mx.array, ids: mx.array | None = None) -> mx.array:
        """Lower logits (rows, candidates); without ids the candidates are all tokens, in their order."""
        counts = self._counts[:, : self._none]
        if ids is not None:
            counts = mx.take_along_axis(counts, ids, axis=-1)
        seen = counts > 0
        scaled = mx.where(logits < 0, logits * self._repetition, logits / self._repetition)
        logits = mx.where(seen, scaled, logits)
        return logits - self._frequency * counts - self._presence * seen


class _Recent:
    """The last tokens of each row, so that what leaves a window stops counting."""

    def __init__(self, ring: mx.array, out: mx.array, none: int) -> None:
        self._ring, self._out = ring, out  # (rows, longest window), (rows, 1) column that leaves next
        self._none = none  # what is pushed for a row that was fed nothing that counts: its window stays as it is

    @classmethod
    def of(cls, said: Sequence[Sequence[int]], windows: Sequence[int | None], none: int) -> "_Recent | None":
        longest = max((window or 0 for window in windows), default=0)
        if longest == 0:
            return None
        ring = np.full((len(said), longest + 1), none, dtype=np.int32)  # column 0 never holds a token
        for row, (tokens, window) in enumerate(zip(said, windows, strict=True)):
            if window and tokens:
                ring[row, -len(tokens) :] = tokens
        out = [[longest + 1 - window if window else 0] for window in windows]
        return cls(mx.array(ring), mx.array(out), none)

    def push(self, fed: mx.array) -> mx.array:
        """Take in the tokens (rows,) and give those that leave the windows."""
        fed = fed.astype(self._ring.dtype)[:, None]
        moves = fed != self._none
        leaving = mx.where(moves, mx.take_along_axis(self._ring, self._out, axis=1), self._none)[:, 0]
        first, rest = self._ring[:, :1], self._ring[:, 2:]
        self._ring = mx.where(moves, mx.concatenate([first, rest, fed], axis=1), self._ring)
        return leaving


def _counts(said: Sequence[Sequence[int]], vocabulary: int) -> "np.ndarray[tuple[int, int], np.dtype[np.float32]]":
    counts = np.zeros((len(said), vocabulary + 1), dtype=np.float32)
    for row, tokens in enumerate(said):
        np.add.at(counts[row], list(tokens), 1.0)
    return counts
