"""Draft tokens from the prompt change the speed of an answer and nothing else."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.services.engine.sampling.params import SamplingParams
from app.services.engine.speculative.prompt_lookup import CopyProposer, PromptLookupProposer
from tests.engine.sampling_params import PARAMS
from tests.engine.workshop import HYBRID, Workshop, check_drafted, finish, prompts


@pytest.fixture(scope="module")
def workshop(tiny: Path) -> Workshop:
    return Workshop("llama", tiny)


@pytest.mark.slow
@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(20, 40), min_size=1, max_size=60), PARAMS, st.integers(0, 12))
def test_an_answer_is_the_same_with_draft_tokens_and_without(
    workshop: Workshop, prompt: list[int], params: SamplingParams, most: int
) -> None:
    expected = workshop.alone(prompt * 3, params, 40)
    scheduler = workshop.scheduler(cache_bytes=2**28)
    row = workshop.row(
        prompt * 3, params, 40, proposer=PromptLookupProposer(most) if most else CopyProposer(prompt * 3)
    )
    check_drafted(scheduler, row, expected)


def test_a_copying_answer_takes_fewer_steps_and_may_end_within_a_draft(workshop: Workshop) -> None:
    prompt, seven = prompts(1)[0], SamplingParams(logit_bias={7: 100.0})
    scheduler = workshop.scheduler()
    row = workshop.row([*prompt, *[7] * 20], seven, 101, proposer=PromptLookupProposer(8))
    steps = finish(scheduler, [row])
    assert row.answer == [7] * 101
    assert (row.finish_reason, row.accepted_tokens > 80, steps < 30) == ("length", True, True)
    timings = row.timings()
    assert (timings.draft_tokens, timings.accepted_tokens) == (row.draft_tokens, row.accepted_tokens)
    assert len(row.layer_tokens) <= len(row.prompt) + 101


def test_a_draft_that_runs_past_the_end_token_leaves_no_trace(workshop: Workshop) -> None:
    prompt = prompts(1)[0] * 2
    expected = workshop.alone(prompt, SamplingParams(), 60)
    end = frozenset({expected[30]})
    rows = [workshop.row(prompt, SamplingParams(), 60, end, lookup) for lookup in (None, PromptLookupProposer(16))]
    for row in rows:
        scheduler = workshop.scheduler(cache_bytes=2**28)
        finish(scheduler, [row])
        turn = [*prompt, *row.answer, 5, 6]
        after = workshop.row(turn, SamplingParams(), 8)
        finish(scheduler, [after])
        assert after.answer == workshop.alone(turn, SamplingParams(), 8)
    assert rows[0].answer == rows[1].answer


def test_others_may_come_and_go_while_one_has_draft_tokens(workshop: Workshop) -> None:
    requests: list[tuple[Any, ...]] = [(prompt * 3, SamplingParams(), 40) for prompt in prompts(3, 30)]
    scheduler = workshop.scheduler()
    rows = [workshop.row(*one, proposer=PromptLookupProposer(8)) for one in requests]
    for row in rows:
        scheduler.submit(row)
        for _ in range(9):
            scheduler.step()
    finish(scheduler, [])
    assert [row.answer for row in rows] == [workshop.alone(*one) for one in requests]


def test_what_is_copied_is_seen_and_nothing_else() -> None:
    text = list(range(100, 160))
    lookup = CopyProposer([*text, 1, 2, 3, *text[:20]], 16)
    assert lookup.is_ready([])
    assert lookup.propose([], 99) == text[20:24]
    lookup.update(4, 4)
    assert lookup.is_ready(text[20:25])
    assert lookup.propose([], 99) == text[25:33]
    assert lookup.propose([], 3) == text[25:28]
    lookup.update(8, 2)  # one token is another one
    answer = [*text[20:27], 7]
    assert not lookup.is_ready(answer)
    assert not lookup.is_ready([*answer, *text[28:31]])
    assert lookup.is_ready([*answer, *text[28:32]])  # four are enough while it copies
    assert lookup.propose([], 2) == text[32:34]
    lookup.update(2, 0)
    answer += text[28:60]
    assert [lookup.is_ready(answer[:length]) for length in range(30, 35)] == [False] * 4 + [True]
    assert not CopyProposer(text, 16).is_ready([1, 2, *text[:7]])
    assert not CopyProposer([], 16).is_ready([])


@settings(max_examples=30, deadline=None)
@given(draw=st.data())
def test_a_copy_is_found_wherever_it_is(draw: st.DataObject) -> None:
    tokens = draw.draw(st.lists(st.integers(0, 3), max_size=60))
    begin = draw.draw(st.integers(0, len(tokens)))
    lookup = CopyProposer(tokens[:begin], 16)
    for end in range(begin, len(tokens) + 1):
        last = tokens[end - 8 : end] if end >= 8 else None
        places = [place for place in range(8, end) if tokens[place - 8 : place] == last]
        assert lookup.is_ready(tokens[begin:end]) == bool(places)
        if places:
            assert lookup.propose([], 1) == [tokens[places[-1]]]


def test_a_file_that_is_written_again_takes_fewer_steps(workshop: Workshop) -> None:
    seven = SamplingParams(logit_bias={7: 100.0})
    row = workshop.row([*prompts(1)[0], *[7] * 9], seven, 101, proposer=CopyProposer([*prompts(1)[0], *[7] * 9]))
    assert finish(workshop.scheduler(), [row]) < 15
    assert row.answer == [7] * 101


@pytest.mark.parametrize("architecture", ["mamba2", "gemma3_text", HYBRID])
def test_caches_that_cannot_be_trimmed_go_back_to_where_they_were(tiny: Path, architecture: str) -> None:
    workshop = Workshop(architecture, tiny)
    for seed in range(3):
        params = SamplingParams(temperature=0.7, seed=seed, logit_bias={7: 100.0, 8: 99.0})
        row = workshop.row([7, 8, 9] * 13, params, 40, proposer=PromptLookupProposer(8))
        scheduler = workshop.scheduler(cache_bytes=2**28)
        finish(scheduler, [row])
        assert row.answer == workshop.alone([7, 8, 9] * 13, params, 40)
        assert 0 < row.accepted_tokens < row.draft_tokens
        turn = [*row.prompt, *row.answer, 5, 6]
        after = workshop.row(turn, params, 8)
        finish(scheduler, [after])
        assert after.cached_tokens > 0
        assert after.answer == workshop.alone(turn, params, 8)


def test_proposals_come_from_the_last_occurrence_and_grow_while_they_are_accepted() -> None:
    lookup = PromptLookupProposer(8)
    text = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 1, 2, 3]
    assert lookup.propose(text, 99) == [4, 5, 6, 7]
    lookup.update(4, 4)
    assert lookup.propose([*text, 4, 5, 6, 7], 99) == [8, 9, 10, 11, 1, 2, 3, 4]
    assert lookup.propose([*text, 4, 5, 6, 7], 2) == [8, 9]
    lookup.update(8, 0)
    assert [bool(lookup.propose([*text, 4, 5, 6, 7], 99)) for _ in range(5)] == [False] * 4 + [True]
    assert PromptLookupProposer(8).propose([1, 2, 3], 9) == []
