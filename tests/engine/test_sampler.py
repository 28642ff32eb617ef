"""Sampling of the next token, against a reference in NumPy."""

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.services.engine.sampling.params import SamplingParams
from app.services.engine.sampling.sampler import Noise, Sampler

import mlx.core as mx  # isort: skip  # after the fast BLAS
from mlx_lm.sample_utils import apply_xtc  # isort: skip

VOCABULARY = 50
RNG = np.random.default_rng(1)


def logits_of(rows: int, *, vocabulary: int = VOCABULARY, seed: int = 0) -> Any:
    return np.random.default_rng(seed).normal(0, 2, (rows, vocabulary)).astype(np.float32)


def draw(all_params: list[SamplingParams], logits: Any, *, answers: list[list[int]] | None = None) -> list[int]:
    """One draw a row, after these answers, whose last token was fed just now."""
    answers = answers or [[] for _ in all_params]
    sampler = Sampler(all_params, [answer[:-1] for answer in answers], [0] * len(all_params), logits.shape[1])
    fed = mx.array([answer[-1] if answer else logits.shape[1] for answer in answers])
    return list(sampler(mx.array(np.ascontiguousarray(logits)), fed).tolist())


def nothing(rows: int, vocabulary: int = VOCABULARY) -> Any:
    """What is fed by a prompt: tokens that do not count."""
    return mx.array([vocabulary] * rows)


def adjusted(logits: Any, params: SamplingParams, answer: list[int]) -> Any:
    """Bias, then penalties, on one row."""
    row = logits.astype(np.float64).copy()
    for token, value in (params.logit_bias or {}).items():
        row[token] += value
    window = answer[-params.penalty_window :] if params.penalty_window else answer
    for token in set(window):
        row[token] = (
            row[token] * params.repetition_penalty if row[token] < 0 else row[token] / params.repetition_penalty
        )
        row[token] -= params.frequency_penalty * window.count(token) + params.presence_penalty
    return row


def allowed(row: Any, params: SamplingParams) -> set[int]:
    """The tokens that top_k, top_p and min_p keep, in that order; of them XTC may remove some more."""
    order = np.argsort(-row, kind="stable")
    remaining = order[: params.top_k or None]
    values = row[remaining]
    mass = np.exp(values - values.max())
    mass /= mass.sum()
    before = np.cumsum(mass) - mass
    floor = values[0] + np.log(params.min_p) if params.min_p > 0 else -np.inf
    return {
        int(t)
        for t, b, v in zip(remaining, before, values, strict=True)
        if (b < params.top_p or t == remaining[0]) and v >= floor
    }


PARAMS = st.builds(
    SamplingParams,
    temperature=st.sampled_from([0.0, 0.3, 1.0, 3.0]),
    top_k=st.sampled_from([0, 1, 2, 5, 49, 50, 1000]),
    top_p=st.sampled_from([0.0, 0.2, 0.7, 0.95, 1.0]),
    min_p=st.sampled_from([0.0, 0.05, 0.5, 1.0]),
    xtc_probability=st.sampled_from([0.0, 0.0, 0.5, 1.0]),
    xtc_threshold=st.sampled_from([0.02, 0.1, 0.6]),
    xtc_protected=st.sampled_from([frozenset(), frozenset({0, 3, 60})]),
    seed=st.integers(0, 2**64 - 1),
    repetition_penalty=st.sampled_from([1.0, 0.5, 1.5]),
    presence_penalty=st.sampled_from([0.0, 1.0, -1.0]),
    frequency_penalty=st.sampled_from([0.0, 0.5]),
    penalty_window=st.sampled_from([None, 1, 3, 100]),
    logit_bias=st.sampled_from([None, {0: 5.0}, {3: -100.0, 49: 2.0}]),
)
ANSWERS = st.lists(st.integers(0, VOCABULARY - 1), max_size=8)


@settings(deadline=None, max_examples=150)
@given(st.lists(st.tuples(PARAMS, ANSWERS), min_size=1, max_size=5), st.integers(0, 1000))
def test_every_draw_is_one_that_the_reference_allows(rows: list[tuple[SamplingParams, list[int]]], seed: int) -> None:
    logits = logits_of(len(rows), seed=seed)
    drawn = draw([params for params, _ in rows], logits, answers=[answer for _, answer in rows])
    for row, (params, answer), token in zip(logits, rows, drawn, strict=True):
        expected = adjusted(row, params, answer)
        if params.greedy:
            assert expected[token] >= expected.max() - 1e-4
        else:
            near = replace(params, top_p=min(1.0, params.top_p + 1e-5), min_p=max(0.0, params.min_p - 1e-5))
            assert token in allowed(expected, near)


@settings(deadline=None, max_examples=60)
@given(st.lists(PARAMS, min_size=2, max_size=6), st.integers(0, 1000))
def test_a_draw_is_the_same_alone_and_beside_others(all_params: list[SamplingParams], seed: int) -> None:
    logits = logits_of(len(all_params), seed=seed)
    together = draw(all_params, logits)
    alone = [draw([params], logits[row : row + 1])[0] for row, params in enumerate(all_params)]
    assert together == alone
    turned = draw(all_params[::-1], logits[::-1])[::-1]
    assert turned == together


@pytest.mark.parametrize("vocabulary", [50, 700])
@pytest.mark.parametrize("others", [{"top_k": 0, "top_p": 1.0}, {"top_k": 3}, {"top_k": 300}, {"temperature": 0.0}])
def test_the_parameters_of_others_change_nothing(others: dict[str, Any], vocabulary: int) -> None:
    logits = logits_of(2, vocabulary=vocabulary)
    mine = SamplingParams(temperature=1.0, top_k=40, top_p=0.95, min_p=0.05)
    for seed in range(50):
        params = replace(mine, seed=seed)
        beside = draw([params, replace(SamplingParams(temperature=1.0), **others)], logits)[0]
        assert beside == draw([params], logits[:1])[0]


@pytest.mark.parametrize(
    ("params", "vocabulary"),
    [
        (SamplingParams(temperature=1.0), 12),
        (SamplingParams(temperature=0.6), 12),
        (SamplingParams(temperature=2.0, top_k=6), 12),
        (SamplingParams(temperature=1.0, top_p=0.8), 12),
        (SamplingParams(temperature=1.0, min_p=0.2), 12),
        (SamplingParams(temperature=1.0, top_k=8), 600),  # by a partial sort
    ],
)
def test_draws_are_distributed_as_the_softmax(params: SamplingParams, vocabulary: int) -> None:
    rows, row = 6000, logits_of(1, vocabulary=vocabulary, seed=3)[0]
    all_params = [replace(params, seed=seed) for seed in range(rows)]
    drawn = draw(all_params, np.tile(row, (rows, 1)))
    remaining = sorted(allowed(row.astype(np.float64), params))
    odds = np.exp((row[remaining].astype(np.float64) - row.max()) / params.temperature)
    expected = odds / odds.sum() * rows
    counts = np.array([drawn.count(token) for token in remaining])
    assert counts.sum() == rows
    often = expected >= 5
    square = ((counts - expected)[often] ** 2 / expected[often]).sum()
    degrees = max(1, int(often.sum()) - 1)
    assert square < degrees + 5 * np.sqrt(2 * degrees)  # about one in a million by chance


def test_one_seed_draws_anew_at_every_position() -> None:
    flat = np.zeros((1, VOCABULARY), dtype=np.float32)
    sampler = Sampler([SamplingParams(temperature=1.0, seed=9)], [[]], [0], VOCABULARY)
    drawn = [sampler(mx.array(flat), nothing(1)).item() for _ in range(200)]
    assert len(set(drawn)) > 40
    pairs = set(itertools.pairwise(drawn))
    assert len(pairs) > 180  # no short cycle


@settings(deadline=None, max_examples=40)
@given(PARAMS, st.integers(1, 11))
def test_a_sampler_that_is_built_anew_goes_on_as_the_old_one(params: SamplingParams, position: int) -> None:
    logits = [mx.array(logits_of(1, seed=step)) for step in range(12)]

    def go_on(answer: list[int], until: int) -> list[int]:
        done = len(answer)
        counted = answer[:-1] if answer else []
        sampler = Sampler([params], [counted], [done], VOCABULARY)
        fed = mx.array(answer[-1:]) if answer else nothing(1)
        for step in range(done, until):
            token = sampler(logits[step], fed)
            answer = [*answer, token.item()]
            fed = token
        return answer

    assert go_on(go_on([], position), 12) == go_on([], 12)


def test_penalties_count_what_was_fed_within_their_window() -> None:
    all_params = [
        SamplingParams(frequency_penalty=1.0),
        SamplingParams(frequency_penalty=1.0, penalty_window=2),
        SamplingParams(repetition_penalty=2.0, penalty_window=3),
        SamplingParams(presence_penalty=3.0),
        SamplingParams(),
    ]
    answers: list[list[int]] = [[7, 7, 1], [7, 7, 1], [2], [], [5]]
    texts = [list(answer) for answer in answers]
    sampler = Sampler(all_params, [answer[:-1] for answer in answers], [3, 3, 1, 0, 1], VOCABULARY)
    fed = [answer[-1] if answer else VOCABULARY for answer in answers]
    for step in range(8):
        logits = logits_of(len(all_params), seed=100 + step)
        drawn = list(sampler(mx.array(logits), mx.array(fed)).tolist())
        for row, params, answer, token in zip(logits, all_params, texts, drawn, strict=True):
            expected = adjusted(row, params, answer)
            assert expected[token] >= expected.max() - 1e-4
        texts = [[*answer, token] for answer, token in zip(texts, drawn, strict=True)]
        fed = drawn


def test_a_forced_token_is_drawn_and_a_banned_one_is_not() -> None:
    flat = np.zeros((64, VOCABULARY), dtype=np.float32)
    forced = [SamplingParams(temperature=1.0, seed=seed, logit_bias={7: 100.0}) for seed in range(64)]
    assert set(draw(forced, flat)) == {7}
    banned = [
        SamplingParams(temperature=1.0, seed=seed, logit_bias=dict.fromkeys(range(10), -100.0)) for seed in range(64)
    ]
    assert min(draw(banned, flat)) >= 10


def test_half_precision_logits_are_taken() -> None:
    logits = mx.array(logits_of(2)).astype(mx.bfloat16)
    sampler = Sampler([SamplingParams(), SamplingParams(temperature=1.0)], [[], []], [0, 0], VOCABULARY)
    assert len(sampler(logits, nothing(2)).tolist()) == 2


def test_noise_depends_on_seed_position_and_token_alone() -> None:
    ids = mx.array([[3, 1, 2]])
    one = Noise([5], [0])(ids).tolist()[0]
    turned = Noise([5], [0])(mx.array([[1, 2, 3]])).tolist()[0]
    assert [one[1], one[2], one[0]] == turned
    later = Noise([5], [0])
    later(ids)
    assert later(ids).tolist() == Noise([5], [1])(ids).tolist()
    assert Noise([5], [1])(ids).tolist() != [one]
    assert Noise([5 + 2**32], [0])(ids).tolist() != [one]
    both = Noise([8, 5], [4, 0])(mx.array([[3, 1, 2]] * 2)).tolist()
    assert both[1] == one
    assert all(np.isfinite(value) for value in both[0])


@pytest.mark.parametrize("logit", [-80.0, -np.inf])
@pytest.mark.parametrize("more", [{}, {"samplers": ("temperature", "min_p")}, {"typical_p": 0.999}])
def test_no_noise_is_so_loud_that_a_token_wins_whatever_its_logit(logit: float, more: dict[str, Any]) -> None:
    seed, loudest = 298, 78278  # of its 32 bits at position 0 the upper 24 are ones
    logits = np.zeros((1, 100_000), np.float32)
    logits[0, loudest] = logit
    params = SamplingParams(temperature=1.0, seed=seed, post_sampling=bool(more), **more)
    assert draw([params], logits) != [loudest]
    assert mx.max(Noise([seed], [0])(mx.array([[loudest]]))).item() < 20


@pytest.mark.parametrize(
    ("temperature", "more"),
    [
        *((temperature, {}) for temperature in (1e-3, 1e-10, 1e-30, 1e-36)),
        *((temperature, more) for temperature in (1e-3, 1e-40, 1e-300) for more in ({"top_k": 5}, {"top_p": 0.9})),
        (1e-40, {}),
        (1e-300, {}),
    ],
)
def test_a_very_low_temperature_takes_the_likeliest(temperature: float, more: dict[str, Any]) -> None:
    for offset in (0.0, -30.0, 30.0):
        logits = logits_of(3, seed=5) + np.float32(offset)
        drawn = draw([SamplingParams(temperature=temperature, seed=4, **more)] * 3, logits)
        assert drawn == logits.argmax(axis=1).tolist()


def excluded(row: Any, params: SamplingParams) -> set[int]:
    """The tokens that mlx-lm's own XTC removes where it is applied."""
    remaining = sorted(allowed(row.astype(np.float64), params))
    masked = np.full(row.shape, -np.inf, dtype=np.float32)
    masked[remaining] = row[remaining]
    after = apply_xtc(mx.array(masked)[None], 1.0, params.xtc_threshold, list(params.xtc_protected))
    return {token for token in remaining if np.isinf(np.array(after)[0, token])}


@pytest.mark.parametrize("protected", [frozenset(), frozenset({1, 2, 3, 4, 5, 6, 7})])
@pytest.mark.parametrize("more", [{}, {"top_k": 9}, {"top_p": 0.9}, {"min_p": 0.05}])
def test_xtc_removes_what_mlx_lm_would_and_as_often(protected: frozenset[int], more: dict[str, Any]) -> None:
    row = logits_of(1, seed=3)[0]
    base = SamplingParams(temperature=1.0, xtc_threshold=0.04, xtc_protected=protected, **more)
    out = excluded(row, base)
    assert len(out) > 1
    rows = 1000
    drawn = {}
    for probability in (0.0, 0.4, 1.0):
        all_params = [replace(base, xtc_probability=probability, seed=seed) for seed in range(rows)]
        drawn[probability] = draw(all_params, np.tile(row, (rows, 1)))
    assert not out & set(drawn[1.0])
    struck = sum(one != other for one, other in zip(drawn[0.4], drawn[0.0], strict=True))
    could = sum(one in out for one in drawn[0.0])
    assert abs(struck - 0.4 * could) < 5 * np.sqrt(0.24 * could)
    assert all(one in (never, always) for one, never, always in zip(*(drawn[p] for p in (0.4, 0.0, 1.0)), strict=True))


def test_xtc_always_leaves_something_and_greedy_rows_ignore_it() -> None:
    peak = np.array([[9.0, 0.0, 0.0, 0.0]], dtype=np.float32)
    for threshold in (0.0, 0.1, 0.5, 0.6):
        params = SamplingParams(temperature=1.0, xtc_probability=1.0, xtc_threshold=threshold)
        all_params = [replace(params, seed=seed) for seed in range(9)]
        drawn = draw(all_params, np.tile(peak, (9, 1)))
        assert all(0 <= token < 4 for token in drawn)
        assert (0 in drawn) == (threshold > 0.0)
    assert draw([SamplingParams(xtc_probability=1.0, xtc_threshold=0.0)], peak) == [0]
