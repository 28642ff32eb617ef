"""Samples the next token of all rows of a batch in one go.

A draw is a Gumbel-max draw whose noise is a pure function of its seed, the position in its answer and the
token id: it is the same alone or in a batch of any size, and no row's draw depends on another's.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol, cast

import mlx.core as mx
import numpy as np

from app.services.engine.sampling.dry import RepetitionTracker
from app.services.engine.sampling.params import SamplingParams
from app.services.engine.sampling.penalties import Penalties, column, last_tokens
from app.services.engine.sampling.sampler_chain import MAX_PARTIAL_SORT, Candidates, Xtc, make_steps

_NO_TOKEN = 2**32 - 1  # as the id of a random number that a row needs besides its draw
_BELOW_ONE = 1 - 2**-24  # of float32; the noise of 1 would be infinite, and win whatever the logits say


class Sampler:
    """Samples for a fixed set of rows; make another one when the set changes.

    `params` has one entry a row, `answers` the tokens drawn before the first call, `prompts` those before them, and
    `positions` the index in its answer of the token that is drawn first. A call takes the logits (rows, vocabulary)
    and the tokens (rows,) that were fed to compute them, `vocabulary` for those that are among `prompts` and `answers`
    already, and gives the next tokens (rows,). A fed token need not be read before.

    Rows whose samplers have the same order are computed together.
    """

    def __init__(
        self,
        params: Sequence[SamplingParams],
        answers: Sequence[Sequence[int]],
        positions: Sequence[int],
        vocabulary: int,
        prompts: Sequence[Sequence[int]] | None = None,
    ) -> None:
        self._bias = _LogitBias.of(params)
        self._vocabulary = vocabulary
        params = [row.effective for row in params]
        rows_by_chain: dict[tuple[str, ...] | None, list[int]] = {}
        for index, row in enumerate(params):
            rows_by_chain.setdefault(row.chain, []).append(index)
        self._groups: list[tuple[mx.array, _GroupSampler]] = []
        for chain, rows in rows_by_chain.items():
            group = _Group(
                [params[row] for row in rows],
                [prompts[row] if prompts else () for row in rows],
                [answers[row] for row in rows],
                [positions[row] for row in rows],
                vocabulary,
            )
            self._groups.append((mx.array(rows), _FastSampler(group) if chain is None else _ChainSampler(group, chain)))
        order = [row for rows in rows_by_chain.values() for row in rows]
        self._indices = mx.array(np.argsort(order))  # of the rows, in what the groups give

    def __call__(self, logits: mx.array, tokens: mx.array) -> mx.array:
        """Draw the next tokens."""
        logits = logits.astype(mx.float32)
        if self._bias is not None:
            logits = self._bias(logits)
        if len(self._groups) == 1:
            return self._groups[0][1](logits, tokens)
        return mx.concatenate([sample(logits[rows], tokens[rows]) for rows, sample in self._groups])[self._indices]

    def distribution(self) -> mx.array:
        """Give what the last call drew from, as logits (rows, vocabulary); of the rows with post_sampling alone.

        They are minus infinity for tokens that the samplers removed.
        """
        logits = [sampler.distribution(rows.size, self._vocabulary) for rows, sampler in self._groups]
        return mx.concatenate(logits)[self._indices]


@dataclass(frozen=True, slots=True)
class _Group:
    """Rows that are sampled together."""

    params: Sequence[SamplingParams]
    prompts: Sequence[Sequence[int]]
    answers: Sequence[Sequence[int]]
    positions: Sequence[int]
    vocabulary: int

    def penalties(self) -> Penalties | None:
        if not any(row.has_penalties for row in self.params):
            return None
        return Penalties(self.params, self.prompts, self.answers, self.vocabulary)

    def noise(self) -> "Noise":
        return Noise([row.seed for row in self.params], self.positions)


class _GroupSampler(Protocol):
    def __call__(self, logits: mx.array, tokens: mx.array) -> mx.array: ...

    def distribution(self, rows: int, vocabulary: int) -> mx.array: ...


class _FastSampler:
    """The commonest samplers in one fixed order."""

    def __init__(self, group: _Group) -> None:
        greedy = [row.greedy for row in group.params]
        self._penalties = group.penalties()
        self._draw = None if all(greedy) else _Draw(group.params, group.noise(), group.vocabulary)
        self._is_greedy = mx.array(greedy) if any(greedy) and not all(greedy) else None

    def __call__(self, logits: mx.array, tokens: mx.array) -> mx.array:
        if self._penalties is not None:
            self._penalties.count(tokens)
            logits = self._penalties(logits)
        if self._draw is None:
            return mx.argmax(logits, axis=-1)
        draws = self._draw(logits)
        return draws if self._is_greedy is None else mx.where(self._is_greedy, mx.argmax(logits, axis=-1), draws)

    def distribution(self, rows: int, vocabulary: int) -> mx.array:
        return mx.full((rows, vocabulary), -mx.inf)  # it has no row with post_sampling


class _ChainSampler:
    """Samplers in any order, one after the other."""

    def __init__(self, group: _Group, chain: Sequence[str]) -> None:
        self._chain = chain
        self._post_sampling = any(row.post_sampling for row in group.params)
        self._last: Candidates | None = None
        self._steps = make_steps(chain, group.params, group.vocabulary) | {
            "penalties": self._apply_penalties,
            "dry": self._apply_dry,
            "xtc": self._apply_xtc,
        }
        self._penalties = group.penalties()
        self._dry = _DryPenalties(group) if "dry" in chain else None
        self._xtc = Xtc(group.params, group.vocabulary) if "xtc" in chain else None
        self._min_keep = mx.array([[row.min_keep] for row in group.params])
        self._noise = group.noise()

    def __call__(self, logits: mx.array, tokens: mx.array) -> mx.array:
        if self._penalties is not None:
            self._penalties.count(tokens)
        if self._dry is not None:
            mx.async_eval(logits)  # computed while the fed tokens are read
            self._dry.read(tokens)
        candidates = Candidates(logits, None, mx.full((logits.shape[0], 1), logits.shape[1]))
        for sampler in self._chain:
            candidates = self._steps[sampler](candidates)
        self._last = candidates if self._post_sampling else None
        ids = candidates.tokens
        best = mx.argmax(candidates.logits + self._noise(ids), axis=-1)
        return mx.take_along_axis(ids, best[:, None], axis=-1)[:, 0]

    def distribution(self, rows: int, vocabulary: int) -> mx.array:
        candidates, logits = self._last, mx.full((rows, vocabulary), -mx.inf)
        if candidates is None:
            return logits
        if candidates.ids is None:
            return candidates.logits
        return mx.put_along_axis(logits, candidates.ids, candidates.logits, axis=-1)

    def _apply_penalties(self, candidates: Candidates) -> Candidates:
        assert self._penalties is not None
        return replace(candidates, logits=self._penalties(candidates.logits, candidates.ids), is_sorted=False)

    def _apply_dry(self, candidates: Candidates) -> Candidates:
        assert self._dry is not None
        return replace(candidates, logits=self._dry(candidates.logits, candidates.ids), is_sorted=False)

    def _apply_xtc(self, candidates: Candidates) -> Candidates:
        assert self._xtc is not None
        stays = self._xtc(candidates.tokens, candidates.logits, self._noise.row_uniform())
        return candidates.remove(~stays, self._min_keep)


class _DryPenalties:
    """DRY for a group of rows. Every token that they draw has to be read for it."""

    def __init__(self, group: _Group) -> None:
        self._vocabulary = group.vocabulary
        self._trackers = [
            RepetitionTracker(params.dry, last_tokens(prompt, answer, params.dry.window))
            for params, prompt, answer in zip(group.params, group.prompts, group.answers, strict=True)
            if params.dry is not None
        ]
        self._penalties: list[tuple[int, int, float]] = []  # row, token, what is subtracted from its logit

    def read(self, tokens: mx.array) -> None:
        """Read the tokens (rows,) that were fed."""
        for tracker, token in zip(self._trackers, cast("list[int]", tokens.tolist()), strict=True):
            if token != self._vocabulary:
                tracker.push(token)
        self._penalties = [
            (row, token, penalty)
            for row, tracker in enumerate(self._trackers)
            for token, penalty in tracker.penalties().items()
            if token < self._vocabulary
        ]

    def __call__(self, logits: mx.array, ids: mx.array | None) -> mx.array:
        """Lower logits (rows, candidates); without ids the candidates are all tokens, in their order."""
        if not self._penalties:
            return logits
        rows, tokens, penalties = (mx.array(list(values)) for values in zip(*self._penalties, strict=True))
        if ids is None:
            return logits.at[rows, tokens].subtract(penalties)
        by_token = mx.zeros((logits.shape[0], self._vocabulary)).at[rows, tokens].add(penalties)
        return logits - mx.take_along_axis(by_token, ids, axis=-1)


class _LogitBias:
    """Added to the logits of single tokens."""

    def __init__(self, rows: list[int], ids: list[int], values: list[float]) -> None:
        self._rows, self._ids, self._values = mx.array(rows), mx.array(ids), mx.array(values, dtype=mx.float32)

    @classmethod
    def of(cls, params: Sequence[SamplingParams]) -> "_LogitBias | None":
        entries = [
            (index, token, value) for index, row in enumerate(params) for token, value in (row.logit_bias or {}).items()
        ]
        if not entries:
            return None
        rows, ids, values = zip(*entries, strict=True)
        return cls(list(rows), list(ids), list(values))

    def __call__(self, logits: mx.array) -> mx.array:
        return logits.at[self._rows, self._ids].add(self._values)


class _Draw:
    """Draws from the tokens that top_k, top_p, min_p and XTC leave, in that order, at the row's temperature."""

    def __init__(self, params: Sequence[SamplingParams], noise: "Noise", vocabulary: int) -> None:
        random = [row for row in params if not row.greedy]
        widest = max(row.top_k if 0 < row.top_k < vocabulary else vocabulary for row in random)
        self._has_top_p = any(row.top_p < 1 for row in random)
        self._has_top_k = any(0 < row.top_k < vocabulary for row in random)
        self._needs_order = self._has_top_p or self._has_top_k
        self._width = widest if widest <= MAX_PARTIAL_SORT else vocabulary
        self._temperature = column([row.temperature if not row.greedy else 1.0 for row in params])
        self._top_k = mx.array([[row.top_k or vocabulary] for row in params])
        self._top_p = column([row.top_p for row in params])
        self._log_min_p = column([np.log(row.min_p) if row.min_p > 0 else -np.inf for row in params])
        self._noise = noise
        self._xtc = Xtc(params, vocabulary) if any(row.xtc_probability > 0 for row in random) else None

    def __call__(self, logits: mx.array) -> mx.array:
        ids, logits = self._candidates(logits)
        highest = logits[:, :1] if self._needs_order else mx.max(logits, axis=-1, keepdims=True)
        mask = logits >= highest + self._log_min_p
        if self._has_top_k:
            in_top_k = mx.arange(logits.shape[-1]) < self._top_k
            logits = mx.where(in_top_k, logits, -mx.inf)
            mask = mask & in_top_k
        if self._has_top_p:
            probabilities = mx.softmax(logits, axis=-1)
            mask = mask & (mx.cumsum(probabilities, axis=-1) - probabilities < self._top_p)
        if self._xtc is not None:
            mask = mask & self._xtc(ids, mx.where(mask, logits, -mx.inf), self._noise.row_uniform())
        best = mx.argmax(mx.where(mask, logits / self._temperature + self._noise(ids), -mx.inf), axis=-1)
        return mx.take_along_axis(ids, best[:, None], axis=-1)[:, 0]

    def _candidates(self, logits: mx.array) -> tuple[mx.array, mx.array]:
        """Token ids and logits (rows, width), the likeliest first where a sampler needs an order."""
        if not self._needs_order:
            return mx.broadcast_to(mx.arange(logits.shape[-1]), logits.shape), logits
        if self._width < logits.shape[-1]:
            ids = mx.argpartition(-logits, kth=self._width - 1, axis=-1)[:, : self._width]
            logits = mx.take_along_axis(logits, ids, axis=-1)
            order = mx.argsort(-logits, axis=-1)
            return mx.take_along_axis(ids, order, axis=-1), mx.take_along_axis(logits, order, axis=-1)
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

    def row_uniform(self) -> mx.array:
        """Give a uniform random number (rows, 1) over 0 and below 1 for each row, and stay at this position."""
        return self.uniform(mx.array([[_NO_TOKEN]], dtype=mx.uint32))

    def uniform(self, ids: mx.array) -> mx.array:
        """Give a uniform random number over 0 and below 1 for ids (rows or 1, any), and stay at this position."""
        key = _mix(self._seed ^ _mix(self._position * 0x85EBCA6B + 1))
        bits = _mix(_mix(ids.astype(mx.uint32) * 0x9E3779B1 ^ key) + key)
        return mx.minimum((bits >> 8).astype(mx.float32) * 2**-24 + 2**-25, _BELOW_ONE)


def _mix(word: mx.array) -> mx.array:
    """Scramble 32 bits: xor-shift and multiply, a bijection with good avalanche (constants: C. Wellons' search)."""
    word = (word ^ (word >> 16)) * 0x21F0AAAD
    word = (word ^ (word >> 15)) * 0x735A2D97
    return word ^ (word >> 15)
