"""The sampling parameters of one row, with every default filled in."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from secrets import randbits
from typing import Any

from app.services.engine.sampling.dry import NO_BREAKERS, Breakers, Dry
from app.services.generation import SAMPLERS, Sampling

_FAST_ORDER = ("penalties", "top_k", "top_p", "min_p", "xtc", "temperature")  # computed without a chain of steps
_GOLDEN = 0x9E3779B97F4A7C15  # 2**64 over the golden ratio: spreads small numbers over all bits
_MIN_TEMPERATURE = 1e-6  # below it the most likely token is taken; float32 cannot divide by much less
_DISABLED: dict[str, dict[str, Any]] = {
    "penalties": {"repetition_penalty": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0},
    "dry": {"dry": None},
    "top_n_sigma": {"top_n_sigma": 0.0},
    "top_k": {"top_k": 0},
    "typ_p": {"typical_p": 1.0},
    "top_p": {"top_p": 1.0},
    "min_p": {"min_p": 0.0},
    "xtc": {"xtc_probability": 0.0},
    "temperature": {"temperature": 1.0, "dynatemp_range": 0.0},
}


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How the tokens of one row are sampled. Source of the terms: llama.cpp's sampler chain."""

    temperature: float = 0.0  # 0 takes the most likely token
    top_k: int = 0  # 0 keeps all
    top_p: float = 1.0
    min_p: float = 0.0
    xtc_probability: float = 0.0  # of removing all tokens over the threshold but the least likely one
    xtc_threshold: float = 0.1  # probability
    xtc_protected: frozenset[int] = frozenset()  # tokens that XTC never removes
    seed: int = 0  # 64 bits
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    penalty_window: int | None = None  # last tokens of prompt and answer; None is the whole answer and no prompt
    logit_bias: Mapping[int, float] | None = None
    typical_p: float = 1.0  # 1 keeps all
    top_n_sigma: float = 0.0  # standard deviations below the highest logit; 0 or less keeps all
    dynatemp_range: float = 0.0  # how far the temperature moves with the entropy; 0 is not at all
    dynatemp_exponent: float = 1.0
    min_keep: int = 0  # tokens that top_p, min_p, typical_p and XTC leave at least
    dry: Dry | None = None
    samplers: tuple[str, ...] = SAMPLERS  # in their order; those that are not named are off
    post_sampling: bool = False  # log-probabilities are those that the samplers leave

    @property
    def greedy(self) -> bool:
        """Whether the most likely token that remains is taken."""
        return self.temperature < _MIN_TEMPERATURE and self.dynatemp_range <= 0

    @property
    def has_penalties(self) -> bool:
        """Whether a penalty lowers the logits of earlier tokens."""
        return self.repetition_penalty != 1 or self.presence_penalty != 0 or self.frequency_penalty != 0

    @property
    def effective(self) -> "SamplingParams":
        """The same, with every sampler off that `samplers` does not name."""
        if self.samplers == SAMPLERS:
            return self
        names = _DISABLED.keys() - set(self.samplers)
        return replace(self, **{field: value for name in names for field, value in _DISABLED[name].items()})

    @property
    def chain(self) -> tuple[str, ...] | None:
        """The samplers that change something, in their order; None where the fast order does the same."""
        chain = tuple(sampler for sampler in self.samplers if self._is_active(sampler))
        is_plain = self.min_keep < 2 and self.dynatemp_range <= 0 and not self.post_sampling
        return None if is_plain and _is_subsequence(chain, _FAST_ORDER) else chain

    def _is_active(self, sampler: str) -> bool:
        active = {
            "penalties": self.has_penalties,
            "dry": self.dry is not None,
            "top_n_sigma": self.top_n_sigma > 0,
            "top_k": self.top_k > 0,
            "typ_p": self.typical_p < 1,
            "top_p": self.top_p < 1,
            "min_p": self.min_p > 0,
            "xtc": self.xtc_probability > 0 and not self.greedy,
            "temperature": self.temperature != 1 or self.dynatemp_range > 0,
        }
        return active[sampler]


def resolve_sampling(
    sampling: Sampling,
    *,
    index: int = 0,
    logit_bias: Mapping[int, float] | None = None,
    xtc_protected: frozenset[int] = frozenset(),
    breakers: Breakers = NO_BREAKERS,
    context_length: int = sys.maxsize,
    post_sampling: bool = False,
) -> SamplingParams:
    """Give the parameters of one row. What is the model's own to decide is decided already, by `Sampling.over`.

    `index` counts the answers to one request: each has a seed of its own, the first that of a single answer. A seed
    that the request does not name is drawn. `xtc_protected` are never left out by XTC: without them no answer would
    end, and no line. `breakers` are the tokens of the request's DRY breakers, `logit_bias` is by token.
    """
    return SamplingParams(
        temperature=_require(sampling.temperature),
        top_k=int(_require(sampling.top_k)),
        top_p=_require(sampling.top_p),
        min_p=_require(sampling.min_p),
        xtc_probability=sampling.xtc_probability,
        xtc_threshold=sampling.xtc_threshold,
        xtc_protected=xtc_protected if sampling.xtc_probability > 0 else frozenset(),
        seed=randbits(64) if sampling.seed is None else (sampling.seed ^ index * _GOLDEN) & (2**64 - 1),
        repetition_penalty=_require(sampling.repetition_penalty),
        presence_penalty=sampling.presence_penalty,
        frequency_penalty=sampling.frequency_penalty,
        penalty_window=None if sampling.penalty_window is None else min(sampling.penalty_window, context_length),
        logit_bias=dict(logit_bias or {}) or None,
        typical_p=sampling.typical_p,
        top_n_sigma=sampling.top_n_sigma,
        dynatemp_range=sampling.dynatemp_range,
        dynatemp_exponent=sampling.dynatemp_exponent,
        min_keep=sampling.min_keep,
        dry=_dry(sampling, breakers) if sampling.uses_dry else None,
        samplers=sampling.samplers,
        post_sampling=post_sampling,
    )


def _require(value: float | None) -> float:
    assert value is not None, "Sampling.over has not been called"
    return value


def _dry(sampling: Sampling, breakers: Breakers) -> Dry:
    window = sys.maxsize if sampling.dry_window is None else sampling.dry_window
    return Dry(sampling.dry_multiplier, sampling.dry_base, sampling.dry_allowed_length, window, breakers)


def _is_subsequence(names: Sequence[str], order: Sequence[str]) -> bool:
    """Whether names stand in an order, some of which they may lack."""
    rest = iter(order)
    return all(name in rest for name in names)
