"""The choice of the next token, against a reference in NumPy."""

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


def draw(choices: list[SamplingParams], logits: Any, *, answers: list[list[int]] | None = None) -> list[int]:
    """One draw a row, after these answers, whose last token was fed just now."""
    answers = answers or [[] for _ in choices]
    sampler = Sampler(choices, [answer[:-1] for answer in answers], [0] * len(choices), logits.shape[1])
    fed = mx.array([answer[-1] if answer else logits.shape[1] for answer in answers])
    return list(sampler(mx.array(np.ascontiguousarray(logits)), fed).tolist())


def nothing(rows: int, vocabulary: int = VOCABULARY) -> Any:
    """What is fed by a prompt: tokens that do not count."""
    return mx.array([vocabulary] * rows)


def adjusted(logits: Any, choice: SamplingParams, answer: list[int]) -> Any:
    """Bias, then penalties, on one row."""
    row = logits.astype(np.float64).copy()
    for token, value in (choice.logit_bias or {}).items():
        row[token] += value
    window = answer[-choice.penalty_window :] if choice.penalty_window else answer
    for token in set(window):
        row[token] = (
            row[token] * choice.repetition_penalty if row[token] < 0 else row[token] / choice.repetition_penalty
        )
        row[token] -= choice.frequency_penalty * window.count(token) + choice.presence_penalty
    return row


def allowed(row: Any, choice: SamplingParams) -> set[int]:
    """The tokens that top_k, top_p and min_p leave, in that order; of them XTC may take some more."""
    order = np.argsort(-row, kind="stable")
    kept = order[: choice.top_k or None]
    values = row[kept]
    mass = np.exp(values - values.max())
    mass /= mass.sum()
    before = np.cumsum(mass) - mass
    floor = values[0] + np.log(choice.min_p) if choice.min_p > 0 else -np.inf
    return {
        int(t)
        for t, b, v in zip(kept, before, values, strict=True)
        if (b < choice.top_p or t == kept[0]) and v >= floor
    }


CHOICES = st.builds(
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
@given(st.lists(st.tuples(CHOICES, ANSWERS), min_size=1, max_size=5), st.integers(0, 1000))
def test_every_draw_is_one_that_the_reference_allows(rows: list[tuple[SamplingParams, list[int]]], seed: int) -> None:
    logits = logits_of(len(rows), seed=seed)
    drawn = draw([choice for choice, _ in rows], logits, answers=[answer for _, answer in rows])
    for row, (choice, answer), token in zip(logits, rows, drawn, strict=True):
        expected = adjusted(row, choice, answer)
        if choice.greedy:
            assert expected[token] >= expected.max() - 1e-4
        else:
            near = replace(choice, top_p=min(1.0, choice.top_p + 1e-5), min_p=max(0.0, choice.min_p - 1e-5))
            assert token in allowed(expected, near)


@settings(deadline=None, max_examples=60)
@given(st.lists(CHOICES, min_size=2, max_size=6), st.integers(0, 1000))
def test_a_draw_is_the_same_alone_and_beside_others(choices: list[SamplingParams], seed: int) -> None:
    logits = logits_of(len(choices), seed=seed)
    together = draw(choices, logits)
    alone = [draw([choice], logits[row : row + 1])[0] for row, choice in enumerate(choices)]
    assert together == alone
    turned = draw(choices[::-1], logits[::-1])[::-1]
    assert turned == together


@pytest.mark.parametrize("vocabulary", [50, 700])
@pytest.mark.parametrize("others", [{"top_k": 0, "top_p": 1.0}, {"top_k": 3}, {"top_k": 300}, {"temperature": 0.0}])
def test_what_others_ask_for_changes_nothing(others: dict[str, Any], vocabulary: int) -> None:
    logits = logits_of(2, vocabulary=vocabulary)
    mine = SamplingParams(temperature=1.0, top_k=40, top_p=0.95, min_p=0.05)
    for seed in range(50):
        choice = replace(mine, seed=seed)
        beside = draw([choice, replace(SamplingParams(temperature=1.0), **others)], logits)[0]
        assert beside == draw([choice], logits[:1])[0]


@pytest.mark.parametrize(
    ("choice", "vocabulary"),
    [
        (SamplingParams(temperature=1.0), 12),
        (SamplingParams(temperature=0.6), 12),
        (SamplingParams(temperature=2.0, top_k=6), 12),
        (SamplingParams(temperature=1.0, top_p=0.8), 12),
        (SamplingParams(temperature=1.0, min_p=0.2), 12),
        (SamplingParams(temperature=1.0, top_k=8), 600),  # by a partial sort
    ],
)
def test_draws_are_distributed_as_the_softmax(choice: SamplingParams, vocabulary: int) -> None:
    rows, row = 6000, logits_of(1, vocabulary=vocabulary, seed=3)[0]
    choices = [replace(choice, seed=seed) for seed in range(rows)]
    drawn = draw(choices, np.tile(row, (rows, 1)))
    kept = sorted(allowed(row.astype(np.float64), choice))
    odds = np.exp((row[kept].astype(np.float64) - row.max()) / choice.temperature)
    expected = odds / odds.sum() * rows
    counts = np.array([drawn.count(token) for token in kept])
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
@given(CHOICES, st.integers(1, 11))
def test_a_sampler_that_is_built_anew_goes_on_as_the_old_one(choice: SamplingParams, place: int) -> None:
    logits = [mx.array(logits_of(1, seed=step)) for step in range(12)]

    def go_on(answer: list[int], until: int) -> list[int]:
        done = len(answer)
        counted = answer[:-1] if answer else []
        sampler = Sampler([choice], [counted], [done], VOCABULARY)
        fed = mx.array(answer[-1:]) if answer else nothing(1)
        for step in range(done, until):
            token = sampler(logits[step], fed)
            answer = [*answer, token.item()]
            fed = token
        return answer

    assert go_on(go_on([], place), 12) == go_on([], 12)


def test_penalties_count_what_was_fed_within_their_window() -> None:
    choices = [
        SamplingParams(frequency_penalty=1.0),
        SamplingParams(frequency_penalty=1.0, penalty_window=2),
        SamplingParams(repetition_penalty=2.0, penalty_window=3),
        SamplingParams(presence_penalty=3.0),
        SamplingParams(),
    ]
    answers: list[list[int]] = [[7, 7, 1], [7, 7, 1], [2], [], [5]]
    said = [list(answer) for answer in answers]
    sampler = Sampler(choices, [answer[:-1] for answer in answers], [3, 3, 1, 0, 1], VOCABULARY)
    fed = [answer[-1] if answer else VOCABULARY for answer in answers]
    for step in range(8):
        logits = logits_of(len(choices), seed=100 + step)
        drawn = list(sampler(mx.array(logits), mx.array(fed)).tolist())
        for row, choice, answer, token in zip(logits, choices, said, drawn, strict=True):
            expected = adjusted(row, choice, answer)
            assert expected[token] >= expected.max() - 1e-4
        said = [[*answer, token] for answer, token in zip(said, drawn, strict=True)]
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
    seed, loudest = 298, 78278  # of its 32 bits at place 0 the upper 24 are ones
    logits = np.zeros((1, 100_000), np.float32)
    logits[0, loudest] = logit
    choice = SamplingParams(temperature=1.0, seed=seed, post_sampling=bool(more), **more)
    assert draw([choice], logits) != [loudest]
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


def excluded(row: Any, choice: SamplingParams) -> set[int]:
    """The tokens that XTC leaves out where it strikes, in mlx-lm's own words."""
    kept = sorted(allowed(row.astype(np.float64), choice))
    masked = np.full(row.shape, -np.inf, dtype=np.float32)
    masked[kept] = row[kept]
    left = apply_xtc(mx.array(masked)[None], 1.0, choice.xtc_threshold, list(choice.xtc_protected))
    return {token for token in kept if np.isinf(np.array(left)[0, token])}


@pytest.mark.parametrize("spared", [frozenset(), frozenset({1, 2, 3, 4, 5, 6, 7})])
@pytest.mark.parametrize("more", [{}, {"top_k": 9}, {"top_p": 0.9}, {"min_p": 0.05}])
def test_xtc_leaves_out_what_mlx_lm_would_and_as_often_as_asked(spared: frozenset[int], more: dict[str, Any]) -> None:
    row = logits_of(1, seed=3)[0]
    asked = SamplingParams(temperature=1.0, xtc_threshold=0.04, xtc_protected=spared, **more)
    out = excluded(row, asked)
    assert len(out) > 1
    rows = 1000
    drawn = {}
    for probability in (0.0, 0.4, 1.0):
        choices = [replace(asked, xtc_probability=probability, seed=seed) for seed in range(rows)]
        drawn[probability] = draw(choices, np.tile(row, (rows, 1)))
    assert not out & set(drawn[1.0])
    struck = sum(one != other for one, other in zip(drawn[0.4], drawn[0.0], strict=True))
    could = sum(one in out for one in drawn[0.0])
    assert abs(struck - 0.4 * could) < 5 * np.sqrt(0.24 * could)
    assert all(one in (never, always) for one, never, always in zip(*(drawn[p] for p in (0.4, 0.0, 1.0)), strict=True))


def test_xtc_always_leaves_something_and_greed_does_not_know_it() -> None:
    peak = np.array([[9.0, 0.0, 0.0, 0.0]], dtype=np.float32)
    for threshold in (0.0, 0.1, 0.5, 0.6):
        choice = SamplingParams(temperature=1.0, xtc_probability=1.0, xtc_threshold=threshold)
        choices = [replace(choice, seed=seed) for seed in range(9)]
        drawn = draw(choices, np.tile(peak, (9, 1)))
        assert all(0 <= token < 4 for token in drawn)
        assert (0 in drawn) == (threshold > 0.0)
    assert draw([SamplingParams(xtc_probability=1.0, xtc_threshold=0.0)], peak) == [0]
