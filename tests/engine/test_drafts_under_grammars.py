"""Draft tokens under a grammar, and with log-probabilities, change the speed of an answer and nothing else."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.services.engine.sampling.params import SamplingParams
from app.services.engine.scheduler.row import Row
from app.services.engine.speculative.prompt_lookup import PromptLookupProposer
from tests.engine.test_forced_tokens import GRAMMARS, PARAMS, Machine, row_of, text
from tests.engine.test_shared_prefix import logprobs
from tests.engine.workshop import HYBRID, Workshop


class Oracle:
    """Proposes what an answer has been before, but for the tokens at some positions."""

    def __init__(self, prompt: int, answer: Sequence[int], wrong: frozenset[int], most: int, late: bool) -> None:
        self.needs_last_token = not late
        self.prompt, self.most = prompt, most
        self.answer = [3 if index in wrong else token for index, token in enumerate(answer)]
        self.accepted = 0

    def is_ready(self, answer: Sequence[int]) -> bool:
        return True

    def propose(self, tokens: Sequence[int], limit: int) -> list[int]:
        begin = len(tokens) - self.prompt
        return self.answer[begin : begin + min(self.most, limit)]

    def update(self, draft_tokens: int, accepted_tokens: int) -> None:
        self.accepted += accepted_tokens


@pytest.fixture(scope="module", params=["llama", "gemma3_text", "mamba2", HYBRID])
def workshop(request: Any, tiny: Path) -> Workshop:
    """Those behind the first have caches that cannot be cut: of windows, of recurrent layers, of both kinds."""
    return Workshop(request.param, tiny)


def same(row: Row, other: Row) -> None:
    assert (row.answer, text(row), row.finish_reason) == (other.answer, text(other), other.finish_reason)
    assert logprobs(row) == pytest.approx(logprobs(other), abs=0.002)


@settings(max_examples=6, deadline=None)
@given(draw=st.data())
def test_an_answer_is_the_same_whatever_is_proposed(workshop: Workshop, draw: st.DataObject) -> None:
    grammar = draw.draw(st.sampled_from(list(GRAMMARS)))
    params, most = draw.draw(st.sampled_from(PARAMS)), draw.draw(st.sampled_from((1, 7, 40)))
    stop = draw.draw(st.sampled_from(("", "e ", "long")))
    plain = row_of(workshop, grammar, params, most, stop)
    Machine(workshop).answer(plain)
    wrong = draw.draw(st.frozensets(st.integers(0, most)))
    oracle = Oracle(len(plain.prompt), plain.answer, wrong, draw.draw(st.integers(1, 9)), draw.draw(st.booleans()))
    row = row_of(workshop, grammar, params, most, stop, proposer=oracle)
    machine = Machine(workshop)
    machine.answer(row)
    same(row, plain)
    again = row_of(workshop, grammar, params, most, stop, prompt=[*plain.prompt, *row.answer, 5])
    machine.answer(again)
    alone = row_of(workshop, grammar, params, most, stop, prompt=again.prompt)
    Machine(workshop).answer(alone)
    same(again, alone)


def test_what_a_grammar_leaves_to_the_model_comes_in_fewer_steps(workshop: Workshop) -> None:
    plain = row_of(workshop, "words", PARAMS[1], 60)
    steps = Machine(workshop).answer(plain)
    oracle = Oracle(len(plain.prompt), plain.answer, frozenset({20}), 8, late=False)
    row = row_of(workshop, "words", PARAMS[1], 60, proposer=oracle)
    assert Machine(workshop).answer(row) < steps / 3
    assert oracle.accepted > 30
    same(row, plain)


@pytest.mark.parametrize("params", PARAMS)
def test_a_copied_answer_under_a_grammar_is_the_same(workshop: Workshop, params: SamplingParams) -> None:
    plain = row_of(workshop, "words", params, 60)
    Machine(workshop).answer(plain)
    prompt = [*plain.prompt, *plain.answer, *plain.prompt]
    rows = [
        row_of(workshop, "words", params, 60, prompt=prompt, proposer=one) for one in (None, PromptLookupProposer(8))
    ]
    for row in rows:
        Machine(workshop).answer(row)
    same(*rows)
