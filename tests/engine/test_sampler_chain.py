"""Samplers in any order: by hand, and against llama.cpp's definitions written down once more, row by row."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.services.engine.sampling.dry import Breakers, Dry
from app.services.engine.sampling.params import SamplingParams
from app.services.engine.sampling.sampler import Sampler
from app.services.generation import SAMPLERS

import mlx.core as mx  # isort: skip  # after the fast BLAS

pytestmark = pytest.mark.slow

VOCABULARY = 40
NOTHING = -math.inf
HOT = SamplingParams(temperature=1.0, post_sampling=True)
LN = [math.log(share) for share in (0.4, 0.3, 0.2, 0.1)]


def odds(
    params: SamplingParams, logits: Any, prompt: list[int] | None = None, answer: list[int] | None = None
) -> list[float]:
    """How likely each token is to be drawn next, after a prompt and an answer."""
    return all_odds([params], [logits], [prompt or []], [answer or []])[0]


def all_odds(all_params: list[SamplingParams], logits: Any, prompts: list[list[int]], answers: list[list[int]]) -> Any:
    rows = np.array(logits, dtype=np.float32)
    all_params = [replace(params, post_sampling=True) for params in all_params]
    sampler = Sampler(all_params, [answer[:-1] for answer in answers], [0] * len(rows), rows.shape[1], prompts)
    drawn = sampler(mx.array(rows), mx.array([answer[-1] if answer else rows.shape[1] for answer in answers]))
    shares = np.array(mx.softmax(sampler.distribution(), axis=-1))
    assert (np.take_along_axis(shares, np.array(drawn)[:, None].astype(np.int64), 1) > 0).all()
    return shares.tolist()


@pytest.mark.parametrize(
    ("chosen", "logits", "expected"),
    [
        # Entropy 1.332; the three of 0.2 surprise by 1.609, the one of 0.4 by 0.916, so the three come first.
        ({"typical_p": 0.5}, [math.log(p) for p in (0.4, 0.2, 0.2, 0.2)], [0, 1 / 3, 1 / 3, 1 / 3]),
        ({"typical_p": 0.7}, [math.log(p) for p in (0.4, 0.2, 0.2, 0.2)], [0.4, 0.2, 0.2, 0.2]),
        # Entropy 1.280: surprises 0.916, 1.204, 1.609, 2.303 are 0.364, 0.076, 0.330, 1.023 away.
        ({"typical_p": 0.2}, LN, [0, 1, 0, 0]),
        ({"typical_p": 0.4}, LN, [0, 0.6, 0.4, 0]),
        ({"typical_p": 0.6}, LN, [4 / 9, 3 / 9, 2 / 9, 0]),
        ({"typical_p": 0.2, "min_keep": 2}, LN, [0, 0.6, 0.4, 0]),
        ({"typical_p": 0.0}, LN, [0, 1, 0, 0]),
        ({"typical_p": 1.0}, LN, [0.4, 0.3, 0.2, 0.1]),
        # Mean 1.5, deviation 1.118: the floor is 3 - 1.118 n.
        ({"top_n_sigma": 1.0}, [0, 1, 2, 3], [0, 0, 0.268941, 0.731059]),
        ({"top_n_sigma": 2.0}, [0, 1, 2, 3], [0, 0.090031, 0.244728, 0.665241]),
        ({"top_n_sigma": -1.0}, LN, [0.4, 0.3, 0.2, 0.1]),
        # Of a ban nothing is counted: mean and deviation are those of the four.
        ({"top_n_sigma": 1.0}, [0, 1, 2, 3, -1e9], [0, 0, 0.268941, 0.731059, 0]),
        # Entropy 0.5623 of at most 0.6931, which is 0.8113 of it: the temperature is 0.5 + 0.8113 = 1.3113.
        ({"dynatemp_range": 0.5}, [0, math.log(3)], [0.302, 0.698]),
        # 0.8113 ** 2 = 0.6582: 1.1582.
        ({"dynatemp_range": 0.5, "dynatemp_exponent": 2.0}, [0, math.log(3)], [0.279184, 0.720816]),
        # From 0 to 1: 0.8113.
        ({"dynatemp_range": 1.0, "temperature": 0.0}, [0, math.log(3)], [0.205198, 0.794802]),
        ({"dynatemp_range": 3.0}, [2, 2, 2, 2], [0.25] * 4),
        ({"dynatemp_range": 0.0}, LN, [0.4, 0.3, 0.2, 0.1]),
        ({"temperature": 0.0}, LN, [1, 0, 0, 0]),
        ({"temperature": 0.5}, LN, [16 / 30, 9 / 30, 4 / 30, 1 / 30]),
        ({"top_k": 2}, LN, [4 / 7, 3 / 7, 0, 0]),
        ({"top_p": 0.65}, LN, [4 / 7, 3 / 7, 0, 0]),
        ({"top_p": 0.75}, LN, [4 / 9, 3 / 9, 2 / 9, 0]),
        ({"top_p": 0.0}, LN, [1, 0, 0, 0]),
        ({"top_p": 0.1, "min_keep": 3}, LN, [4 / 9, 3 / 9, 2 / 9, 0]),
        ({"min_p": 0.6}, LN, [4 / 7, 3 / 7, 0, 0]),
        ({"min_p": 0.6, "min_keep": 3}, LN, [4 / 9, 3 / 9, 2 / 9, 0]),
        ({"xtc_probability": 1.0, "xtc_threshold": 0.15}, LN, [0, 0, 2 / 3, 1 / 3]),
        ({"xtc_probability": 1.0, "xtc_threshold": 0.15, "min_keep": 3}, LN, [0.4, 0.3, 0.2, 0.1]),
        ({"xtc_probability": 1.0, "xtc_threshold": 0.35}, LN, [0.4, 0.3, 0.2, 0.1]),
    ],
)
def test_each_sampler_leaves_what_its_definition_says(
    chosen: dict[str, Any], logits: list[float], expected: list[float]
) -> None:
    assert odds(replace(HOT, **chosen), logits) == pytest.approx(expected, abs=2e-5)


@pytest.mark.parametrize(
    ("samplers", "chosen", "expected"),
    [
        # 0.4 ** 2 : 0.3 ** 2 : 0.2 ** 2 : 0.1 ** 2; the second is 9/16 = 0.5625 of the first, before that it is 0.75.
        (("min_p", "temperature"), {"min_p": 0.6, "temperature": 0.5}, [16 / 25, 9 / 25, 0, 0]),
        (("temperature", "min_p"), {"min_p": 0.6, "temperature": 0.5}, [1, 0, 0, 0]),
        (("temperature",), {"min_p": 0.6, "top_k": 1, "temperature": 0.5}, [16 / 30, 9 / 30, 4 / 30, 1 / 30]),
        (("top_k",), {"top_k": 2, "temperature": 0.0}, [4 / 7, 3 / 7, 0, 0]),
        ((), {"top_k": 1, "top_p": 0.1, "min_p": 0.9, "typical_p": 0.1, "temperature": 9.0}, [0.4, 0.3, 0.2, 0.1]),
        # Of 4/9, 3/9, 2/9 the first two have 7/9; of all four they have 7/10.
        (("top_k", "top_p"), {"top_k": 3, "top_p": 0.75}, [4 / 7, 3 / 7, 0, 0]),
        (("top_p", "top_k"), {"top_k": 3, "top_p": 0.75}, [4 / 9, 3 / 9, 2 / 9, 0]),
        # The first is gone when the most likely are taken.
        (("typ_p", "top_k"), {"typical_p": 0.4, "top_k": 1}, [0, 1, 0, 0]),
        (("top_k", "typ_p"), {"typical_p": 0.4, "top_k": 1}, [1, 0, 0, 0]),
        (("typ_p", "temperature"), {"typical_p": 0.4, "temperature": 0.0}, [0, 1, 0, 0]),
        (("temperature", "typ_p"), {"typical_p": 0.4, "temperature": 0.0}, [1, 0, 0, 0]),
        (("xtc", "top_k"), {"xtc_probability": 1.0, "xtc_threshold": 0.15, "top_k": 1}, [0, 0, 1, 0]),
        (("top_k", "xtc"), {"xtc_probability": 1.0, "xtc_threshold": 0.15, "top_k": 1}, [1, 0, 0, 0]),
    ],
)
def test_samplers_come_in_their_order_and_the_others_do_nothing(
    samplers: tuple[str, ...], chosen: dict[str, Any], expected: list[float]
) -> None:
    assert odds(replace(HOT, samplers=samplers, **chosen), LN) == pytest.approx(expected, abs=2e-5)


def without(penalties: dict[int, float], count: int = 6) -> list[float]:
    """The shares of tokens that were equally likely before these were taken off their logits."""
    weights = [math.exp(-penalties.get(token, 0.0)) for token in range(count)]
    return [weight / sum(weights) for weight in weights]


@pytest.mark.parametrize(
    ("dry", "text", "expected"),
    [
        # "0 1" stood before 2.
        ({}, [0, 1, 2, 0, 1], {2: 1.0}),
        ({}, [0, 1, 2, 0], {}),
        ({}, [2, 0, 1], {}),
        # "0 1 2" before 3, and one token over what is allowed.
        ({}, [0, 1, 2, 3, 0, 1, 2], {3: 2.0}),
        ({"multiplier": 0.5, "base": 3.0}, [0, 1, 2, 3, 0, 1, 2], {3: 1.5}),
        ({"allowed_length": 4}, [0, 1, 2, 3, 0, 1, 2], {}),
        ({"allowed_length": 1}, [0, 1, 2, 3, 0, 1, 2], {3: 4.0}),
        # "1" before 2 and before 3, "0 1" before 2 only.
        ({"allowed_length": 1}, [4, 1, 3, 0, 1, 2, 0, 1], {2: 2.0, 3: 1.0}),
        # The longest counts: "1 2" before 3 twice, once after 0.
        ({}, [4, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2], {3: 2.0**5}),
        # In a text of one word the end stood before at every length.
        ({}, [5, 5, 5, 5, 5], {5: 4.0}),
        # The window is five tokens: the first is not seen.
        ({"window": 5}, [0, 1, 2, 0, 1], {2: 1.0}),
        ({"window": 4}, [0, 1, 2, 0, 1], {}),
        ({"window": 6}, [0, 1, 2, 3, 0, 1, 2], {3: 1.0}),
        # With nothing allowed every token of the window but the first costs something.
        ({"allowed_length": 0}, [0, 1, 2], {1: 1.0, 2: 1.0}),
        # 3 ends what may be repeated, and is no repetition itself.
        ({"breakers": Breakers(frozenset({3}))}, [0, 1, 3, 4, 0, 1], {3: 0.0}),
        ({"breakers": Breakers(frozenset({2}))}, [0, 2, 1, 4, 0, 2, 1], {}),
        ({"breakers": Breakers(frozenset({2})), "allowed_length": 1}, [0, 2, 1, 4, 0, 2, 1], {4: 1.0}),
        ({"breakers": Breakers(frozenset({4}))}, [0, 1, 2, 4, 0, 1], {2: 1.0}),
        # "0 2" in a row is one: 1 stands behind it. By itself 2 is none.
        ({"breakers": Breakers(frozenset(), {2: [(0, 2)]})}, [0, 2, 1, 4, 0, 2, 1], {}),
        ({"breakers": Breakers(frozenset(), {2: [(1, 2)]})}, [0, 2, 1, 4, 0, 2, 1], {4: 2.0}),
    ],
)
def test_what_would_go_on_with_a_repetition_is_less_likely(
    dry: dict[str, Any], text: list[int], expected: dict[int, float]
) -> None:
    params = replace(HOT, dry=Dry(**{"multiplier": 1.0, "base": 2.0} | dry))
    for cut in range(len(text)):  # wherever the prompt ends
        shares = odds(params, [0.0] * 6, text[:cut], text[cut:])
        assert shares == pytest.approx(without(expected), abs=2e-6), cut
    assert odds(params, [0.0] * 6, text) == pytest.approx(without(expected), abs=2e-6)


def test_a_very_long_repetition_costs_no_infinity() -> None:
    params = replace(HOT, dry=Dry(100.0, 50.0, window=4000))
    assert odds(params, [0.0] * 6, [5] * 3000) == pytest.approx([0.2] * 5 + [0])


def test_penalties_with_a_window_count_the_end_of_the_prompt() -> None:
    params = replace(HOT, frequency_penalty=1.0)
    prompt, answer = [0, 1, 2, 3], [4]
    assert odds(params, [0.0] * 6, prompt, answer) == pytest.approx(without({4: 1}))
    for window, counted in ((1, [4]), (3, [2, 3, 4]), (5, [0, 1, 2, 3, 4]), (64, [0, 1, 2, 3, 4])):
        shares = odds(replace(params, penalty_window=window), [0.0] * 6, prompt, answer)
        assert shares == pytest.approx(without(dict.fromkeys(counted, 1.0)))
        begun = odds(replace(params, penalty_window=window), [0.0] * 6, [*prompt, *answer])
        assert begun == pytest.approx(shares), "the last token of the prompt is fed, and known already"


def test_the_bias_comes_before_the_penalties() -> None:
    params = replace(HOT, repetition_penalty=2.0, logit_bias={1: 4.0})
    assert odds(params, [0.0] * 3, [], [1]) == pytest.approx(without({1: -2.0}, 3))  # 4 / 2, not 0 / 2 + 4


# llama.cpp's definitions, a row at a time. A candidate is a token and its logit.


def softmax(candidates: list[tuple[int, float]]) -> list[float]:
    best = max(logit for _, logit in candidates)
    weights = [math.exp(logit - best) for _, logit in candidates]
    return [weight / sum(weights) for weight in weights]


def ranked(candidates: list[tuple[int, float]]) -> list[tuple[int, float]]:
    return sorted(candidates, key=lambda candidate: -candidate[1])


def entropy(shares: list[float]) -> float:
    return -sum(share * math.log(share) for share in shares if share > 0)


def until(shares: list[float], enough: Any, least: int) -> int:
    total = 0.0
    for index, share in enumerate(shares):
        total += share
        if enough(total) and index + 1 >= least:
            return index + 1
    return len(shares)


class Reference:
    def __init__(self, params: SamplingParams, text: list[int], answer: list[int]) -> None:
        self.params, self.text, self.answer = params, text, answer

    def shares(self, logits: Any) -> list[float]:
        bias = {token: value if value > -1e8 else NOTHING for token, value in (self.params.logit_bias or {}).items()}
        candidates = [(token, float(logit) + bias.get(token, 0.0)) for token, logit in enumerate(logits)]
        for sampler in self.params.samplers:
            candidates = getattr(self, sampler)(candidates)
        shares = [0.0] * len(logits)
        for (token, _), share in zip(candidates, softmax(candidates), strict=True):
            shares[token] = share
        return shares

    def penalties(self, candidates: Any) -> Any:
        params = self.params
        counted = self.answer if params.penalty_window is None else self.text[-params.penalty_window :]
        penalised = []
        for token, logit in candidates:
            if (count := counted.count(token)) > 0:
                logit = logit * params.repetition_penalty if logit <= 0 else logit / params.repetition_penalty
                logit -= count * params.frequency_penalty + params.presence_penalty
            penalised.append((token, logit))
        return penalised

    def dry(self, candidates: Any) -> Any:
        dry = self.params.dry
        if dry is None:
            return candidates
        text = self.text[-dry.window :]
        reach = next((n for n, token in enumerate(text[::-1]) if token in dry.breakers.single), len(text))
        if len(text) <= dry.allowed_length or reach < dry.allowed_length:
            return candidates
        longest: dict[int, int] = {}
        for end in range(len(text) - 1):
            length = 0
            while length < min(reach, end + 1) and text[end - length] == text[-1 - length]:
                length += 1
            if length >= dry.allowed_length:
                longest[text[end + 1]] = max(length, longest.get(text[end + 1], 0))
        off = {
            token: dry.multiplier * dry.base ** (length - dry.allowed_length)
            for token, length in longest.items()
            if token not in dry.breakers.single
        }
        return [(token, logit - off.get(token, 0.0)) for token, logit in candidates]

    def top_n_sigma(self, candidates: Any) -> Any:
        if self.params.top_n_sigma <= 0:
            return candidates
        logits = [logit for _, logit in candidates if logit > NOTHING]
        floor = max(logits) - self.params.top_n_sigma * float(np.std(logits))
        return [(token, logit if logit >= floor else NOTHING) for token, logit in candidates]

    def top_k(self, candidates: Any) -> Any:
        return ranked(candidates)[: self.params.top_k] if self.params.top_k > 0 else candidates

    def top_p(self, candidates: Any) -> Any:
        if self.params.top_p >= 1:
            return candidates
        best = ranked(candidates)
        return best[: until(softmax(best), lambda total: total >= self.params.top_p, self.params.min_keep)]

    def typ_p(self, candidates: Any) -> Any:
        if self.params.typical_p >= 1:
            return candidates
        shares = softmax(candidates)
        expected = entropy(shares)
        strange = [abs(-math.log(share) - expected) if share > 0 else math.inf for share in shares]
        order = sorted(range(len(candidates)), key=lambda index: strange[index])
        ordered = [shares[index] for index in order]
        size = until(ordered, lambda total: total > self.params.typical_p, self.params.min_keep)
        return [candidates[index] for index in order[:size]]

    def min_p(self, candidates: Any) -> Any:
        if self.params.min_p <= 0:
            return candidates
        best = ranked(candidates)
        floor = best[0][1] + math.log(self.params.min_p)
        return [one for index, one in enumerate(best) if one[1] >= floor or index < max(1, self.params.min_keep)]

    def xtc(self, candidates: Any) -> Any:
        best = ranked(candidates)
        over = sum(share > self.params.xtc_threshold for share in softmax(best))
        left = best[max(0, over - 1) :]
        cold = self.params.greedy and "temperature" in self.params.samplers  # then it strikes nothing here
        strikes = self.params.xtc_probability >= 1 and not cold
        return left if strikes and len(left) >= self.params.min_keep else candidates

    def temperature(self, candidates: Any) -> Any:
        degrees, spread = self.params.temperature, self.params.dynatemp_range
        if spread > 0:
            if len(candidates) < 2:
                return candidates
            share = entropy(softmax(candidates)) / math.log(len(candidates))
            lowest = max(0.0, degrees - spread)
            degrees = lowest + (degrees + spread - lowest) * share**self.params.dynatemp_exponent
        if degrees < 1e-6:
            best = ranked(candidates)[0][0]
            return [(token, logit if token == best else NOTHING) for token, logit in candidates]
        return [(token, logit / degrees) for token, logit in candidates]


DRIES = st.builds(
    Dry,
    multiplier=st.sampled_from([0.5, 2.0]),
    base=st.sampled_from([1.0, 1.75]),
    allowed_length=st.integers(0, 3),
    window=st.sampled_from([1, 2, 5, 64]),
    breakers=st.builds(Breakers, st.frozensets(st.integers(0, 4), max_size=2)),
)
PARAMS = st.builds(
    SamplingParams,
    temperature=st.sampled_from([0.0, 0.3, 1.0, 3.0]),
    top_k=st.sampled_from([0, 1, 5, 39, 1000]),
    top_p=st.sampled_from([0.0, 0.3, 0.95, 1.0]),
    min_p=st.sampled_from([0.0, 0.05, 0.5]),
    xtc_probability=st.sampled_from([0.0, 1.0]),
    xtc_threshold=st.sampled_from([0.02, 0.1]),
    seed=st.integers(0, 2**64 - 1),
    repetition_penalty=st.sampled_from([1.0, 1.0, 1.5]),
    presence_penalty=st.sampled_from([0.0, 1.0]),
    frequency_penalty=st.sampled_from([0.0, 0.5]),
    penalty_window=st.sampled_from([None, 1, 3, 100]),
    logit_bias=st.sampled_from([None, {0: 5.0, 39: 1.0, 3: -1e9}]),
    typical_p=st.sampled_from([1.0, 0.2, 0.9]),
    top_n_sigma=st.sampled_from([-1.0, 0.7, 2.0]),
    dynatemp_range=st.sampled_from([0.0, 0.5, 2.0]),
    dynatemp_exponent=st.sampled_from([0.5, 1.0, 2.0]),
    min_keep=st.sampled_from([0, 1, 3]),
    dry=st.none() | DRIES,
    samplers=st.just(SAMPLERS) | st.lists(st.sampled_from(SAMPLERS), unique=True).map(tuple),
)
TEXTS = st.lists(st.integers(0, 4), max_size=12)
ROWS = st.lists(st.tuples(PARAMS, TEXTS, TEXTS), min_size=1, max_size=5)


def logits_of(rows: int, seed: int) -> Any:
    return np.random.default_rng(seed).normal(0, 2, (rows, VOCABULARY)).astype(np.float32)


@settings(deadline=None, max_examples=100)
@given(ROWS, st.integers(0, 10**6))
def test_a_batch_is_as_likely_to_say_what_each_row_is_by_itself(rows: Any, seed: int) -> None:
    logits = logits_of(len(rows), seed)
    all_params, prompts, answers = (list(part) for part in zip(*rows, strict=True))
    all_shares = all_odds(all_params, logits, prompts, answers)
    for shares, row, (params, prompt, answer) in zip(all_shares, logits, rows, strict=True):
        assert shares == pytest.approx(Reference(params, prompt + answer, answer).shares(row), abs=1e-4)


@settings(deadline=None, max_examples=60)
@given(ROWS, st.integers(0, 10**6))
def test_a_draw_depends_on_no_neighbour_and_on_no_report(rows: Any, seed: int) -> None:
    logits = logits_of(len(rows), seed)

    def draw(some: list[int], *, post_sampling: bool = False) -> Any:
        all_params = [replace(rows[row][0], post_sampling=post_sampling) for row in some]
        answers = [rows[row][2] for row in some]
        fed_before, prompts = [answer[:-1] for answer in answers], [rows[row][1] for row in some]
        sampler = Sampler(all_params, fed_before, [3] * len(some), VOCABULARY, prompts)
        fed = mx.array([answer[-1] if answer else VOCABULARY for answer in answers])
        return sampler(mx.array(logits[some]), fed).tolist()

    everyone = list(range(len(rows)))
    together = draw(everyone)
    assert [draw([row])[0] for row in everyone] == together
    assert draw(everyone[::-1])[::-1] == together
    assert draw(everyone, post_sampling=True) == together


@settings(deadline=None, max_examples=60)
@given(PARAMS, TEXTS, st.integers(1, 11))
def test_a_sampler_that_is_built_anew_goes_on_as_the_old_one(
    params: SamplingParams, prompt: list[int], cut: int
) -> None:
    logits = [mx.array(logits_of(1, step)) for step in range(12)]

    def go_on(answer: list[int], until: int) -> list[int]:
        sampler = Sampler([params], [answer[:-1]], [len(answer)], VOCABULARY, [prompt])
        fed = mx.array(answer[-1:] or [VOCABULARY])
        for step in range(len(answer), until):
            fed = sampler(logits[step], fed)
            answer = [*answer, fed.item()]
        return answer

    assert go_on(go_on([], cut), 12) == go_on([], 12)


@pytest.mark.parametrize("width", [300, 5000])
@pytest.mark.parametrize("chosen", [{}, {"top_k": 40}, {"typical_p": 0.9}, {"top_p": 0.9}, {"min_p": 0.1}])
def test_wide_vocabularies_and_partial_sorts_are_the_same(width: int, chosen: dict[str, Any]) -> None:
    rows = np.random.default_rng(7).normal(0, 3, (3, width)).astype(np.float32)
    all_params = [replace(HOT, **{"top_k": top_k} | chosen) for top_k in (3, 256, width + 9)]
    all_shares = all_odds(all_params, rows, [[]] * 3, [[]] * 3)
    for shares, row, params in zip(all_shares, rows, all_params, strict=True):
        assert shares == pytest.approx(Reference(params, [], []).shares(row), abs=1e-4)
