"""Repetition, presence and frequency penalties: tokens that came before become less likely."""

from collections.abc import Sequence

import mlx.core as mx
import numpy as np

from app.services.engine.sampling.params import SamplingParams


def column(values: Sequence[float]) -> mx.array:
    """Make an array (rows, 1) of one number a row."""
    return mx.array([[value] for value in values], dtype=mx.float32)


def last_tokens(prompt: Sequence[int], answer: Sequence[int], count: int) -> list[int]:
    """Give the last `count` tokens of a prompt and its answer, or all where there are fewer."""
    rest = count - len(answer)
    return [*(prompt[-rest:] if rest > 0 else ()), *answer[-count:]] if count > 0 else []


class Penalties:
    """Lowers the logits of earlier tokens, counted on the device so that no step waits for a token.

    Counted is the whole answer, or the last tokens of the prompt and the answer where a row has a window.
    """

    def __init__(
        self,
        params: Sequence[SamplingParams],
        prompts: Sequence[Sequence[int]],
        answers: Sequence[Sequence[int]],
        vocabulary: int,
    ) -> None:
        self._no_token = vocabulary  # a column past the last token collects what does not count
        self._rows = mx.arange(len(params))
        self._repetition = column([row.repetition_penalty for row in params])
        self._presence = column([row.presence_penalty for row in params])
        self._frequency = column([row.frequency_penalty for row in params])
        windows = [row.penalty_window if row.has_penalties else None for row in params]
        texts = [
            last_tokens(prompt, answer, window) if window else answer
            for prompt, answer, window in zip(prompts, answers, windows, strict=True)
        ]
        self._counts = mx.array(_counts(texts, vocabulary))
        self._windows = _Windows.of(texts, windows, self._no_token)

    def count(self, tokens: mx.array) -> None:
        """Count the tokens (rows,) of a step."""
        self._counts = self._counts.at[self._rows, tokens].add(1.0)
        if self._windows is not None:
            self._counts = self._counts.at[self._rows, self._windows.push(tokens)].add(-1.0)

    def __call__(self, logits: mx.array, ids: mx.array | None = None) -> mx.array:
        """Lower logits (rows, candidates); without ids the candidates are all tokens, in their order."""
        counts = self._counts[:, : self._no_token]
        if ids is not None:
            counts = mx.take_along_axis(counts, ids, axis=-1)
        occurs = counts > 0
        scaled = mx.where(logits < 0, logits * self._repetition, logits / self._repetition)
        logits = mx.where(occurs, scaled, logits)
        return logits - self._frequency * counts - self._presence * occurs


class _Windows:
    """The last tokens of each row, so that a token that leaves its window stops counting."""

    def __init__(self, tokens: mx.array, oldest: mx.array, no_token: int) -> None:
        self._tokens, self._oldest = tokens, oldest  # (rows, longest window + 1), (rows, 1) column that leaves next
        self._no_token = no_token  # pushed for a row whose token does not count: its window stays

    @classmethod
    def of(cls, texts: Sequence[Sequence[int]], windows: Sequence[int | None], no_token: int) -> "_Windows | None":
        longest = max((window or 0 for window in windows), default=0)
        if longest == 0:
            return None
        array = np.full((len(texts), longest + 1), no_token, dtype=np.int32)  # column 0 never holds a token
        for row, (tokens, window) in enumerate(zip(texts, windows, strict=True)):
            if window and tokens:
                array[row, -len(tokens) :] = tokens
        oldest = [[longest + 1 - window if window else 0] for window in windows]
        return cls(mx.array(array), mx.array(oldest), no_token)

    def push(self, tokens: mx.array) -> mx.array:
        """Add the tokens (rows,) and give those that leave the windows."""
        tokens = tokens.astype(self._tokens.dtype)[:, None]
        moves = tokens != self._no_token
        leaving = mx.where(moves, mx.take_along_axis(self._tokens, self._oldest, axis=1), self._no_token)[:, 0]
        first, rest = self._tokens[:, :1], self._tokens[:, 2:]
        self._tokens = mx.where(moves, mx.concatenate([first, rest, tokens], axis=1), self._tokens)
        return leaving


def _counts(texts: Sequence[Sequence[int]], vocabulary: int) -> "np.ndarray[tuple[int, int], np.dtype[np.float32]]":
    counts = np.zeros((len(texts), vocabulary + 1), dtype=np.float32)
    for row, tokens in enumerate(texts):
        np.add.at(counts[row], list(tokens), 1.0)
    return counts
