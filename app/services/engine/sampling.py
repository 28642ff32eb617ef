"""The choice of the next token, for all rows of a batch in one go.

A row's choice is a Gumbel-max draw whose noise is a pure function of its seed, the position in its answer and the
token id: it is the same alone or in a batch of any size, and no row's draw depends on another's.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import mlx.core as mx
import numpy as np

_FEW = 256  # candidates up to which a partial sort pays
_COIN = 2**32 - 1  # no token's id: what a row tosses besides its draw


@dataclass(frozen=True, slots=True)
class Choice:
    """How one row chooses, every value decided. Source of the terms: llama.cpp's sampler chain."""

    temperature: float = 0.0  # 0 takes the most likely token
    top_k: int = 0  # 0 keeps all
    top_p: float = 1.0
    min_p: float = 0.0
    xtc_probability: float = 0.0  # how often all but the least of the likely tokens are left out
    xtc_threshold: float = 0.1  # how likely a token has to be for that
    xtc_spared: frozenset[int] = frozenset()  # tokens that are never left out so
    seed: int = 0  # 64 bits
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    penalty_window: int | None = None  # tokens of the answer; None is all
    logit_bias: Mapping[int, float] | None = None

    @property
    def greedy(self) -> bool:
        """Whether the most likely token is always taken; float32 cannot divide by much less."""
        return self.temperature < 1e-6

    @property
    def penalised(self) -> bool:
        """Whether the answer so far changes the logits."""
        return self.repetition_penalty != 1 or self.presence_penalty != 0 or self.frequency_penalty != 0


class Sampler:
    """Chooses for a fixed set of rows; build another when the set changes.

    `choices` has one entry a row, `answers` the tokens that each row's penalties have to count before the first call,
    `positions` the place in its answer of the token that is drawn first. A call takes the logits (rows, vocabulary)
    and the tokens (rows,) that were fed to make them, `vocabulary` for those that do not count, and gives the next
    tokens (rows,). A fed token need not be read before.
    """

    def __init__(
        self,
        choices: Sequence[Choice],
        answers: Sequence[Sequence[int]],
        positions: Sequence[int],
        vocabulary: int,
    ) -> None:
        self._greedy = all(choice.greedy for choice in choices)
        self._mixed = not self._greedy and any(choice.greedy for choice in choices)
        self._bias = _Bias.of(choices)
        self._penalties = _Penalties(choices, answers, vocabulary) if any(c.penalised for c in choices) else None
        self._draw = None if self._greedy else _Draw(choices, positions, vocabulary)
        self._is_greedy = mx.array([choice.greedy for choice in choices]) if self._mixed else None

    def __call__(self, logits: mx.array, fed: mx.array) -> mx.array:
        """Choose the next tokens."""
        logits = logits.astype(mx.float32)
        if self._penalties is not None:
            logits = self._penalties(logits, fed)
        if self._bias is not None:
            logits = self._bias(logits)
        if self._draw is None:
            return mx.argmax(logits, axis=-1)
        drawn = self._draw(logits)
        return drawn if self._is_greedy is None else mx.where(self._is_greedy, mx.argmax(logits, axis=-1), drawn)


class _Bias:
    """Added to the logits of single tokens."""

    def __init__(self, rows: list[int], ids: list[int], values: list[float]) -> None:
        self._rows, self._ids, self._values = mx.array(rows), mx.array(ids), mx.array(values, dtype=mx.float32)

    @classmethod
    def of(cls, choices: Sequence[Choice]) -> "_Bias | None":
        entries = [(row, i, v) for row, choice in enumerate(choices) for i, v in (choice.logit_bias or {}).items()]
        if not entries:
            return None
        rows, ids, values = zip(*entries, strict=True)
        return cls(list(rows), list(ids), list(values))

    def __call__(self, logits: mx.array) -> mx.array:
        return logits.at[self._rows, self._ids].add(self._values)


class _Penalties:
    """Lowers what the answer has already said, counted on the device so that no step waits for a token."""

    def __init__(self, choices: Sequence[Choice], answers: Sequence[Sequence[int]], vocabulary: int) -> None:
        self._none = vocabulary  # a column past the last token collects what does not count
        self._rows = mx.arange(len(choices))
        self._repetition = _column([choice.repetition_penalty for choice in choices])
        self._presence = _column([choice.presence_penalty for choice in choices])
        self._frequency = _column([choice.frequency_penalty for choice in choices])
        windows = [choice.penalty_window if choice.penalised else None for choice in choices]
        self._counts = mx.array(_counts(answers, windows, vocabulary))
        self._recent = _Recent.of(answers, windows, self._none)

    def __call__(self, logits: mx.array, fed: mx.array) -> mx.array:
        self._count(fed)
        counts = self._counts[:, : self._none]
        seen = counts > 0
        scaled = mx.where(logits < 0, logits * self._repetition, logits / self._repetition)
        logits = mx.where(seen, scaled, logits)
        return logits - self._frequency * counts - self._presence * seen

    def _count(self, fed: mx.array) -> None:
        self._counts = self._counts.at[self._rows, fed].add(1.0)
        if self._recent is not None:
            self._counts = self._counts.at[self._rows, self._recent.push(fed)].add(-1.0)


class _Recent:
    """The last tokens of each row, so that what leaves a window stops counting."""

    def __init__(self, ring: mx.array, out: mx.array) -> None:
        self._ring, self._out = ring, out  # (rows, longest window), (rows, 1) column that leaves next

    @classmethod
    def of(cls, answers: Sequence[Sequence[int]], windows: Sequence[int | None], none: int) -> "_Recent | None":
        longest = max((window or 0 for window in windows), default=0)
        if longest == 0:
            return None
        ring = np.full((len(answers), longest + 1), none, dtype=np.int32)  # column 0 never holds a token
        for row, (answer, window) in enumerate(zip(answers, windows, strict=True)):
            if window and (tail := list(answer)[-window:]):
                ring[row, -len(tail) :] = tail
        out = [[longest + 1 - window if window else 0] for window in windows]
        return cls(mx.array(ring), mx.array(out))

    def push(self, fed: mx.array) -> mx.array:
        """Take in the tokens (rows,) and give those that leave the windows."""
        leaving = mx.take_along_axis(self._ring, self._out, axis=1)[:, 0]
        first, rest = self._ring[:, :1], self._ring[:, 2:]
        self._ring = mx.concatenate([first, rest, fed.astype(self._ring.dtype)[:, None]], axis=1)
        return leaving


def _counts(
    answers: Sequence[Sequence[int]], windows: Sequence[int | None], vocabulary: int
) -> "np.ndarray[tuple[int, int], np.dtype[np.float32]]":
    counts = np.zeros((len(answers), vocabulary + 1), dtype=np.float32)
    for row, (answer, window) in enumerate(zip(answers, windows, strict=True)):
        tail = list(answer)[-window:] if window else list(answer)
        np.add.at(counts[row], tail, 1.0)
    return counts


class _Draw:
    """Draws from what top_k, top_p, min_p and XTC leave, in that order, at the row's temperature."""

    def __init__(self, choices: Sequence[Choice], positions: Sequence[int], vocabulary: int) -> None:
        drawing = [choice for choice in choices if not choice.greedy]
        widest = max(choice.top_k if 0 < choice.top_k < vocabulary else vocabulary for choice in drawing)
        self._cuts_mass = any(choice.top_p < 1 for choice in drawing)
        self._cuts_rank = any(0 < choice.top_k < vocabulary for choice in drawing)
        self._width = widest if widest <= _FEW else vocabulary
        self._temperature = _column([choice.temperature if not choice.greedy else 1.0 for choice in choices])
        self._top_k = mx.array([[choice.top_k or vocabulary] for choice in choices])
        self._top_p = _column([choice.top_p for choice in choices])
        self._floor = _column([np.log(choice.min_p) if choice.min_p > 0 else -np.inf for choice in choices])
        self._noise = Noise([choice.seed for choice in choices], positions)
        self._xtc = _Xtc(choices, vocabulary) if any(choice.xtc_probability > 0 for choice in drawing) else None

    def __call__(self, logits: mx.array) -> mx.array:
        ids, values = self._candidates(logits)
        kept = values >= values[:, :1] + self._floor if self._sorted else values >= _top(values) + self._floor
        if self._cuts_rank:
            ranked = mx.arange(values.shape[-1]) < self._top_k
            values = mx.where(ranked, values, -mx.inf)
            kept = kept & ranked
        if self._cuts_mass:
            mass = mx.softmax(values, axis=-1)
            kept = kept & (mx.cumsum(mass, axis=-1) - mass < self._top_p)
        if self._xtc is not None:
            coin = self._noise.uniform(mx.array([[_COIN]], dtype=mx.uint32))
            kept = kept & self._xtc(ids, mx.where(kept, values, -mx.inf), coin)
        scores = mx.where(kept, values / self._temperature + self._noise(ids), -mx.inf)
        best = mx.argmax(scores, axis=-1)
        return mx.take_along_axis(ids, best[:, None], axis=-1)[:, 0]

    @property
    def _sorted(self) -> bool:
        return self._cuts_rank or self._cuts_mass

    def _candidates(self, logits: mx.array) -> tuple[mx.array, mx.array]:
        """Token ids and logits (rows, width), the best first where a cut needs an order."""
        if not self._sorted:
            return mx.broadcast_to(mx.arange(logits.shape[-1]), logits.shape), logits
        if self._width < logits.shape[-1]:
            ids = mx.argpartition(-logits, kth=self._width - 1, axis=-1)[:, : self._width]
            values = mx.take_along_axis(logits, ids, axis=-1)
            order = mx.argsort(-values, axis=-1)
            return mx.take_along_axis(ids, order, axis=-1), mx.take_along_axis(values, order, axis=-1)
        ids = mx.argsort(-logits, axis=-1)
        return ids, mx.take_along_axis(logits, ids, axis=-1)


class _Xtc:
    """Exclude Top Choices, as mlx-lm has it: now and then a row does without its most likely tokens.

    Of the tokens over the threshold the least likely one stays, so something always does.
    """

    def __init__(self, choices: Sequence[Choice], vocabulary: int) -> None:
        self._probability = _column([choice.xtc_probability for choice in choices])
        self._threshold = _column([choice.xtc_threshold for choice in choices])
        spared = np.zeros((len(choices), vocabulary), dtype=bool)
        for row, choice in enumerate(choices):
            spared[row, [token for token in choice.xtc_spared if token < vocabulary]] = True
        self._spared = mx.array(spared)

    def __call__(self, ids: mx.array, values: mx.array, coin: mx.array) -> mx.array:
        """Say which candidates (rows, width) stay; `coin` (rows, 1) is from 0 to 1."""
        likely = mx.softmax(values, axis=-1)
        least = mx.min(mx.where(likely > self._threshold, likely, mx.inf), axis=-1, keepdims=True)
        spared = mx.take_along_axis(self._spared, ids, axis=-1)
        return (likely <= least) | spared | (coin >= self._probability)


class Noise:
    """Gumbel noise (rows, candidates) as a hash of seed, position and token id; each call is the next position."""

    def __init__(self, seeds: Sequence[int], positions: Sequence[int]) -> None:
        low = mx.array([[seed & 0xFFFFFFFF] for seed in seeds], dtype=mx.uint32)
        high = mx.array([[seed >> 32 & 0xFFFFFFFF] for seed in seeds], dtype=mx.uint32)
        self._seed = _mix(low ^ _mix(high ^ 0x9E3779B9))
        self._position = mx.array([[position] for position in positions], dtype=mx.uint32)

    def __call__(self, ids: mx.array) -> mx.array:
        """Give the noise of token ids (rows, candidates) and move on."""
        uniform = self.uniform(ids)
        self._position = self._position + 1
        return -mx.log(-mx.log(uniform))

    def uniform(self, ids: mx.array) -> mx.array:
        """Give what the noise of ids (rows or 1, any) is made of, over 0 and below 1, and stay at this position."""
        key = _mix(self._seed ^ _mix(self._position * 0x85EBCA6B + 1))
        bits = _mix(_mix(ids.astype(mx.uint32) * 0x9E3779B1 ^ key) + key)
        return (bits >> 8).astype(mx.float32) * 2**-24 + 2**-25


def _mix(word: mx.array) -> mx.array:
    """Scramble 32 bits: xor-shift and multiply, a bijection with good avalanche (constants: C. Wellons' search)."""
    word = (word ^ (word >> 16)) * 0x21F0AAAD
    word = (word ^ (word >> 15)) * 0x735A2D97
    return word ^ (word >> 15)


def _top(values: mx.array) -> mx.array:
    return mx.max(values, axis=-1, keepdims=True)


def _column(values: Sequence[float]) -> mx.array:
    return mx.array([[value] for value in values], dtype=mx.float32)
