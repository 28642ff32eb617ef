"""The choice of the next token, for all rows of a batch in one go.

A row's choice is a Gumbel-max draw whose noise is a pure function of its seed, the position in its answer and the
token id: it is the same alone or in a batch of any size, and no row's draw depends on another's.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol, cast

import mlx.core as mx
import numpy as np

from app.services.engine.sampling.columns import column, top
from app.services.engine.sampling.dry import Repeats
from app.services.engine.sampling.params import SamplingParams as SamplingParams
from app.services.engine.sampling.penalties import Penalties, tail
from app.services.engine.sampling.sampler_chain import FEW, Candidates, Xtc, steps

_COIN = 2**32 - 1  # no token's id: what a row tosses besides its draw
_BELOW_ONE = 1 - 2**-24  # of float32; the noise of 1 would be infinite, and win whatever the logits say


class Sampler:
    """Chooses for a fixed set of rows; build another when the set changes.

    `choices` has one entry a row, `answers` the tokens that were said before the first call, `prompts` what stands
    before them, `positions` the place in its answer of the token that is drawn first. A call takes the logits (rows,
    vocabulary) and the tokens (rows,) that were fed to make them, `vocabulary` for those that are among `prompts` and
    `answers` already, and gives the next tokens (rows,). A fed token need not be read before.

    Rows with the usual samplers in their usual order are chosen for together, and so are those of any other order.
    """

    def __init__(
        self,
        choices: Sequence[SamplingParams],
        answers: Sequence[Sequence[int]],
        positions: Sequence[int],
        vocabulary: int,
        prompts: Sequence[Sequence[int]] | None = None,
    ) -> None:
        self._bias = _Bias.of(choices)
        self._vocabulary = vocabulary
        choices = [choice.effective for choice in choices]
        alike: dict[tuple[str, ...] | None, list[int]] = {}
        for row, choice in enumerate(choices):
            alike.setdefault(choice.order, []).append(row)
        self._parts: list[tuple[mx.array, _Part]] = []
        for order, rows in alike.items():
            some = _Rows(
                [choices[row] for row in rows],
                [prompts[row] if prompts else () for row in rows],
                [answers[row] for row in rows],
                [positions[row] for row in rows],
                vocabulary,
            )
            self._parts.append((mx.array(rows), _Usual(some) if order is None else _Chain(some, order)))
        places = [row for rows in alike.values() for row in rows]
        self._places = mx.array(np.argsort(places))  # of the rows, in what the parts give

    def __call__(self, logits: mx.array, fed: mx.array) -> mx.array:
        """Choose the next tokens."""
        logits = logits.astype(mx.float32)
        if self._bias is not None:
            logits = self._bias(logits)
        if len(self._parts) == 1:
            return self._parts[0][1](logits, fed)
        return mx.concatenate([part(logits[rows], fed[rows]) for rows, part in self._parts])[self._places]

    def distribution(self) -> mx.array:
        """Give what the last call drew from, as logits (rows, vocabulary); of the rows with post_sampling alone.

        They are minus infinity for what was left out.
        """
        parts = [part.distribution(rows.size, self._vocabulary) for rows, part in self._parts]
        return mx.concatenate(parts)[self._places]


@dataclass(frozen=True, slots=True)
class _Rows:
    """Rows that are chosen for together."""

    choices: Sequence[SamplingParams]
    prompts: Sequence[Sequence[int]]
    answers: Sequence[Sequence[int]]
    positions: Sequence[int]
    vocabulary: int

    def penalties(self) -> Penalties | None:
        if not any(choice.penalised for choice in self.choices):
            return None
        return Penalties(self.choices, self.prompts, self.answers, self.vocabulary)

    def noise(self) -> "Noise":
        return Noise([choice.seed for choice in self.choices], self.positions)


class _Part(Protocol):
    def __call__(self, logits: mx.array, fed: mx.array) -> mx.array: ...

    def distribution(self, rows: int, vocabulary: int) -> mx.array: ...


class _Usual:
    """Chooses by the usual samplers in the usual order."""

    def __init__(self, rows: _Rows) -> None:
        choices = rows.choices
        self._greedy = all(choice.greedy for choice in choices)
        self._mixed = not self._greedy and any(choice.greedy for choice in choices)
        self._penalties = rows.penalties()
        self._draw = None if self._greedy else _Draw(choices, rows.noise(), rows.vocabulary)
        self._is_greedy = mx.array([choice.greedy for choice in choices]) if self._mixed else None

    def __call__(self, logits: mx.array, fed: mx.array) -> mx.array:
        if self._penalties is not None:
            self._penalties.count(fed)
            logits = self._penalties(logits)
        if self._draw is None:
            return mx.argmax(logits, axis=-1)
        drawn = self._draw(logits)
        return drawn if self._is_greedy is None else mx.where(self._is_greedy, mx.argmax(logits, axis=-1), drawn)

    def distribution(self, rows: int, vocabulary: int) -> mx.array:
        return mx.full((rows, vocabulary), -mx.inf)  # it has no row with post_sampling


class _Chain:
    """Chooses by samplers in an order of their own."""

    def __init__(self, rows: _Rows, order: Sequence[str]) -> None:
        self._order = order
        self._post_sampling = any(choice.post_sampling for choice in rows.choices)
        self._last: Candidates | None = None
        self._steps = steps(order, rows.choices, rows.vocabulary) | {
            "penalties": self._penalised,
            "dry": self._without_repeats,
            "xtc": self._excluding,
        }
        self._penalties = rows.penalties()
        self._repeats = _Repetitions(rows) if "dry" in order else None
        self._xtc = Xtc(rows.choices, rows.vocabulary) if "xtc" in order else None
        self._least = mx.array([[choice.min_keep] for choice in rows.choices])
        self._noise = rows.noise()

    def __call__(self, logits: mx.array, fed: mx.array) -> mx.array:
        if self._penalties is not None:
            self._penalties.count(fed)
        if self._repeats is not None:
            mx.async_eval(logits)  # computed while what was fed is read
            self._repeats.read(fed)
        candidates = Candidates(logits, None, mx.full((logits.shape[0], 1), logits.shape[1]))
        for sampler in self._order:
            candidates = self._steps[sampler](candidates)
        self._last = candidates if self._post_sampling else None
        ids = candidates.tokens
        best = mx.argmax(candidates.values + self._noise(ids), axis=-1)
        return mx.take_along_axis(ids, best[:, None], axis=-1)[:, 0]

    def distribution(self, rows: int, vocabulary: int) -> mx.array:
        candidates, nothing = self._last, mx.full((rows, vocabulary), -mx.inf)
        if candidates is None:
            return nothing
        if candidates.ids is None:
            return candidates.values
        return mx.put_along_axis(nothing, candidates.ids, candidates.values, axis=-1)

    def _penalised(self, candidates: Candidates) -> Candidates:
        assert self._penalties is not None
        return replace(candidates, values=self._penalties(candidates.values, candidates.ids), ordered=False)

    def _without_repeats(self, candidates: Candidates) -> Candidates:
        assert self._repeats is not None
        return replace(candidates, values=self._repeats(candidates.values, candidates.ids), ordered=False)

    def _excluding(self, candidates: Candidates) -> Candidates:
        assert self._xtc is not None
        stays = self._xtc(candidates.tokens, candidates.values, self._noise.coin())
        return candidates.without(~stays, self._least)


class _Repetitions:
    """Lowers what would go on with a repetition. What a row says is read for that."""

    def __init__(self, rows: _Rows) -> None:
        self._vocabulary = rows.vocabulary
        self._rows = [
            Repeats(choice.dry, tail(prompt, answer, choice.dry.window))
            for choice, prompt, answer in zip(rows.choices, rows.prompts, rows.answers, strict=True)
            if choice.dry is not None
        ]
        self._penalties: list[tuple[int, int, float]] = []  # row, token, what is taken off

    def read(self, fed: mx.array) -> None:
        """Take in the tokens (rows,) that were fed."""
        for repeats, token in zip(self._rows, cast("list[int]", fed.tolist()), strict=True):
            if token != self._vocabulary:
                repeats.push(token)
        self._penalties = [
            (row, token, value)
            for row, repeats in enumerate(self._rows)
            for token, value in repeats.penalties().items()
            if token < self._vocabulary
        ]

    def __call__(self, logits: mx.array, ids: mx.array | None) -> mx.array:
        """Lower logits (rows, candidates); without ids the candidates are all tokens, in their order."""
        if not self._penalties:
            return logits
        rows, tokens, values = (mx.array(list(column)) for column in zip(*self._penalties, strict=True))
        if ids is None:
            return logits.at[rows, tokens].subtract(values)
        off = mx.zeros((logits.shape[0], self._vocabulary)).at[rows, tokens].add(values)
        return logits - mx.take_along_axis(off, ids, axis=-1)


class _Bias:
    """Added to the logits of single tokens."""

    def __init__(self, rows: list[int], ids: list[int], values: list[float]) -> None:
        self._rows, self._ids, self._values = mx.array(rows), mx.array(ids), mx.array(values, dtype=mx.float32)

    @classmethod
    def of(cls, choices: Sequence[SamplingParams]) -> "_Bias | None":
        entries = [(row, i, v) for row, choice in enumerate(choices) for i, v in (choice.logit_bias or {}).items()]
        if not entries:
            return None
        rows, ids, values = zip(*entries, strict=True)
        return cls(list(rows), list(ids), list(values))

    def __call__(self, logits: mx.array) -> mx.array:
        return logits.at[self._rows, self._ids].add(self._values)


class _Draw:
    """Draws from what top_k, top_p, min_p and XTC leave, in that order, at the row's temperature."""

    def __init__(self, choices: Sequence[SamplingParams], noise: "Noise", vocabulary: int) -> None:
        drawing = [choice for choice in choices if not choice.greedy]
        widest = max(choice.top_k if 0 < choice.top_k < vocabulary else vocabulary for choice in drawing)
        self._cuts_mass = any(choice.top_p < 1 for choice in drawing)
        self._cuts_rank = any(0 < choice.top_k < vocabulary for choice in drawing)
        self._width = widest if widest <= FEW else vocabulary
        self._temperature = column([choice.temperature if not choice.greedy else 1.0 for choice in choices])
        self._top_k = mx.array([[choice.top_k or vocabulary] for choice in choices])
        self._top_p = column([choice.top_p for choice in choices])
        self._floor = column([np.log(choice.min_p) if choice.min_p > 0 else -np.inf for choice in choices])
        self._noise = noise
        self._xtc = Xtc(choices, vocabulary) if any(choice.xtc_probability > 0 for choice in drawing) else None

    def __call__(self, logits: mx.array) -> mx.array:
        ids, values = self._candidates(logits)
        kept = values >= values[:, :1] + self._floor if self._sorted else values >= top(values) + self._floor
        if self._cuts_rank:
            ranked = mx.arange(values.shape[-1]) < self._top_k
            values = mx.where(ranked, values, -mx.inf)
            kept = kept & ranked
        if self._cuts_mass:
            mass = mx.softmax(values, axis=-1)
            kept = kept & (mx.cumsum(mass, axis=-1) - mass < self._top_p)
        if self._xtc is not None:
            kept = kept & self._xtc(ids, mx.where(kept, values, -mx.inf), self._noise.coin())
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

    def coin(self) -> mx.array:
        """Give a number (rows, 1) over 0 and below 1 that depends on no token, and stay at this position."""
        return self.uniform(mx.array([[_COIN]], dtype=mx.uint32))

    def uniform(self, ids: mx.array) -> mx.array:
        """Give what the noise of ids (rows or 1, any) is made of, over 0 and below 1, and stay at this position."""
        key = _mix(self._seed ^ _mix(self._position * 0x85EBCA6B + 1))
        bits = _mix(_mix(ids.astype(mx.uint32) * 0x9E3779B1 ^ key) + key)
        return mx.minimum((bits >> 8).astype(mx.float32) * 2**-24 + 2**-25, _BELOW_ONE)


def _mix(word: mx.array) -> mx.array:
    """Scramble 32 bits: xor-shift and multiply, a bijection with good avalanche (constants: C. Wellons' search)."""
    word = (word ^ (word >> 16)) * 0x21F0AAAD
    word = (word ^ (word >> 15)) * 0x735A2D97
    return word ^ (word >> 15)
