"""Guessing from the prompt changes the pace of an answer and nothing else."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.services.engine.sampling.sampling import Choice
from app.services.engine.scheduler.row import kept_tokens
from app.services.engine.speculative.lookup import Lookup
from tests.engine.workshop import Workshop, check_guessed, finish, prompts


@pytest.fixture(scope="module")
def workshop(tiny: Path) -> Workshop:
    return Workshop("llama", tiny)


CHOICES = st.builds(
    Choice,
    temperature=st.sampled_from([0.0, 0.0, 0.3, 1.0]),
    seed=st.integers(0, 2**64 - 1),
    top_k=st.sampled_from([0, 2]),
    frequency_penalty=st.sampled_from([0.0, 0.0, 0.4]),
    repetition_penalty=st.sampled_from([1.0, 1.2]),
    penalty_window=st.sampled_from([None, 3]),
)


@pytest.mark.slow
@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(20, 40), min_size=1, max_size=60), CHOICES, st.integers(1, 12))
def test_an_answer_is_the_same_with_guesses_and_without(
    workshop: Workshop, prompt: list[int], choice: Choice, most: int
) -> None:
    expected = workshop.alone(prompt * 3, choice, 40)
    runner = workshop.runner(cache_bytes=2**28)
    row = workshop.row(prompt * 3, choice, 40, guesser=Lookup(most))
    check_guessed(runner, row, expected)


def test_a_copying_answer_takes_fewer_steps_and_may_end_within_a_guess(workshop: Workshop) -> None:
    prompt, seven = prompts(1)[0], Choice(logit_bias={7: 100.0})
    runner = workshop.runner()
    row = workshop.row([*prompt, *[7] * 20], seven, 101, guesser=Lookup(8))
    steps = finish(runner, [row])
    assert row.answer == [7] * 101
    assert (row.finished, row.guessed_right > 80, steps < 30) == ("length", True, True)
    timings = row.timings()
    assert (timings.guessed_tokens, timings.right_tokens) == (row.guessed, row.guessed_right)
    assert len(kept_tokens(row)) <= len(row.prompt) + 101


def test_a_guess_that_runs_past_the_end_token_leaves_no_trace(workshop: Workshop) -> None:
    prompt = prompts(1)[0] * 2
    expected = workshop.alone(prompt, Choice(), 60)
    end = frozenset({expected[30]})
    rows = [workshop.row(prompt, Choice(), 60, end, lookup) for lookup in (None, Lookup(16))]
    for row in rows:
        runner = workshop.runner(cache_bytes=2**28)
        finish(runner, [row])
        turn = [*prompt, *row.answer, 5, 6]
        after = workshop.row(turn, Choice(), 8)
        finish(runner, [after])
        assert after.answer == workshop.alone(turn, Choice(), 8)
    assert rows[0].answer == rows[1].answer


def test_others_may_come_and_go_while_one_guesses(workshop: Workshop) -> None:
    asked: list[tuple[Any, ...]] = [(prompt * 3, Choice(), 40) for prompt in prompts(3, 30)]
    runner = workshop.runner()
    rows = [workshop.row(*one, guesser=Lookup(8)) for one in asked]
    for row in rows:
        runner.submit(row)
        for _ in range(9):
            runner.step()
    finish(runner, [])
    assert [row.answer for row in rows] == [workshop.alone(*one) for one in asked]


def test_models_whose_caches_cannot_be_cut_guess_nothing(tiny: Path) -> None:
    workshop = Workshop("mamba2", tiny)
    row = workshop.row([7] * 40, Choice(), 20, guesser=Lookup(8))
    finish(workshop.runner(), [row])
    assert (row.guessed, row.answer) == (0, workshop.alone([7] * 40, Choice(), 20))


def test_guesses_come_from_the_last_place_and_grow_while_they_are_right() -> None:
    lookup = Lookup(8)
    text = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 1, 2, 3]
    assert lookup.guess(text, 99) == [4, 5, 6, 7]
    lookup.learn(4, 4)
    assert lookup.guess([*text, 4, 5, 6, 7], 99) == [8, 9, 10, 11, 1, 2, 3, 4]
    assert lookup.guess([*text, 4, 5, 6, 7], 2) == [8, 9]
    lookup.learn(8, 0)
    assert [bool(lookup.guess([*text, 4, 5, 6, 7], 99)) for _ in range(5)] == [False] * 4 + [True]
    assert Lookup(8).guess([1, 2, 3], 9) == []
