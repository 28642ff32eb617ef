"""Tokens that a grammar forces are computed in one call: as many, as likely and followed by the same as one by one."""

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mlx_lm.models.cache import make_prompt_cache

from app.services.engine.model.chunk_sizer import ChunkSizer
from app.services.engine.output.parser import OutputParser
from app.services.engine.output.stop_strings import StopStrings
from app.services.engine.sampling.grammar import GrammarCompiler, GrammarConstraint
from app.services.engine.sampling.matcher import Matcher
from app.services.engine.sampling.params import SamplingParams
from app.services.engine.scheduler.row import Row
from app.services.engine.scheduler.step_costs import StepCosts
from app.services.errors import InvalidRequest
from app.services.generation import Constraint, Text
from tests.engine.test_shared_prefix import Letters, Reader, logprobs
from tests.engine.workshop import HYBRID, Workshop

NAMES = [f"a_rather_long_name_of_a_property_{number}" for number in range(4)]
OBJECT = {
    "type": "object",
    "properties": {name: {"type": "integer", "minimum": 0, "maximum": 99} for name in NAMES},
    "required": NAMES,
    "additionalProperties": False,
}
SENTENCE = "There is nothing to choose in this sentence, from its first word to its last one."
GRAMMARS = {
    "object": Constraint("json_schema", json.dumps(OBJECT), "response_format"),
    "sentence": Constraint("choice", json.dumps([SENTENCE]), "choice"),
    "regex": Constraint("regex", "(yes|no), because of [a-z]{3} and nothing else[0-9]?", "regex"),
    "free": Constraint("regex", "(?s:.*)", "regex"),
    "words": Constraint("regex", "([a-z]{1,4} ){2,30}[.]", "regex"),
    "spaces": Constraint("gbnf", 'root ::= [ab] rest\nrest ::= " " rest', "grammar"),
}
PARAMS = [
    SamplingParams(),
    SamplingParams(temperature=1.0, seed=11),
    SamplingParams(temperature=1.0, seed=13, repetition_penalty=1.3, penalty_window=4),
]
PROMPT = [40, 41, 42, 43]


@pytest.fixture(scope="module", params=["llama", "gemma3_text", HYBRID])
def workshop(request: Any, tiny: Path) -> Workshop:
    return Workshop(request.param, tiny)


@pytest.fixture(scope="module")
def llama(tiny: Path) -> Workshop:
    return Workshop("llama", tiny)


@lru_cache
def matcher(workshop: Workshop, grammar: str) -> Matcher:
    ends = frozenset(workshop.tokenizer.eos_token_ids)
    return GrammarCompiler(workshop.tokenizer, workshop.vocabulary, ends).compile(GRAMMARS[grammar])


def row_of(
    workshop: Workshop,
    grammar: str,
    params: SamplingParams,
    max_tokens: int = 200,
    stop: str = "",
    prompt: list[int] = PROMPT,
    **more: Any,
) -> Row:
    ends = frozenset(workshop.tokenizer.eos_token_ids)
    constraint = GrammarConstraint(
        matcher(workshop, grammar),
        think_start=(),
        think_end=(),
        blank=(),
        end_tokens=ends,
        thinking=False,
        may_think=False,
    )
    return Row(
        generation=Reader(),
        prompt=prompt,
        max_tokens=max_tokens,
        params=params,
        parser=OutputParser(workshop.markup, stop_strings=StopStrings((stop,)) if stop else None),
        detokenizer=workshop.detokenizer(),
        end_tokens=ends,
        constraint=constraint,
        logprobs=2,
        **more,
    )


class Machine:
    """A scheduler at work."""

    def __init__(self, workshop: Workshop, controls: frozenset[int] = frozenset()) -> None:
        self.scheduler = workshop.scheduler(outbox=Letters(), cache_bytes=2**30, controls=controls)

    def answer(self, *rows: Row) -> int:
        """Answer rows. Returns the steps that it took."""
        for row in rows:
            self.scheduler.submit(row)
        steps = 0
        while self.scheduler.busy:
            self.scheduler.step()
            steps += 1
        return steps


def text(row: Row) -> str:
    assert isinstance(row.generation, Reader)
    return "".join(event.text for event in row.generation.events if isinstance(event, Text))


def likelihoods(workshop: Workshop, row: Row) -> list[float]:
    """How likely the model says that the tokens of an answer are, all computed in one call."""
    logits = workshop.model(mx.array([[*row.prompt, *row.answer]]), cache=make_prompt_cache(workshop.model))[0]
    scores = logits - mx.logsumexp(logits, axis=-1, keepdims=True)
    return [float(scores[len(row.prompt) - 1 + index, token]) for index, token in enumerate(row.answer)]


def test_a_sentence_without_a_choice_takes_a_few_steps(workshop: Workshop) -> None:
    row = row_of(workshop, "sentence", PARAMS[0])
    steps = Machine(workshop).answer(row)
    assert text(row) == SENTENCE
    assert row.finish_reason == "stop"
    assert len(row.answer) > 20
    assert steps <= 5


def test_names_of_an_object_are_not_computed_one_by_one(workshop: Workshop) -> None:
    row = row_of(workshop, "object", PARAMS[0])
    steps = Machine(workshop).answer(row)
    assert list(json.loads(text(row))) == NAMES
    assert steps < len(row.answer) / 2


@pytest.mark.parametrize("grammar, params", list(zip(GRAMMARS, PARAMS * 2, strict=True)))
def test_an_answer_is_the_same_alone_and_beside_others(
    workshop: Workshop, grammar: str, params: SamplingParams
) -> None:
    alone = row_of(workshop, grammar, params, 60)
    Machine(workshop).answer(alone)
    rows = [row_of(workshop, other, params, 60) for other in (grammar, *GRAMMARS)]
    Machine(workshop).answer(*rows)
    assert alone.answer
    assert rows[0].answer == alone.answer
    assert logprobs(rows[0]) == pytest.approx(logprobs(alone), abs=0.002)
    shown = len(logprobs(alone))
    assert logprobs(alone) == pytest.approx(likelihoods(workshop, alone)[:shown], abs=0.002)


@pytest.mark.parametrize("most", [1, 2, 3, 10, 20])
def test_no_more_tokens_come_than_may(workshop: Workshop, most: int) -> None:
    row, whole = row_of(workshop, "sentence", PARAMS[0], most), row_of(workshop, "sentence", PARAMS[0])
    Machine(workshop).answer(row)
    Machine(workshop).answer(whole)
    assert row.answer == whole.answer[:most]
    assert row.finish_reason == "length"


def test_a_stop_string_within_what_is_forced_ends_the_answer(workshop: Workshop) -> None:
    row = row_of(workshop, "sentence", PARAMS[0], stop="this")
    machine = Machine(workshop)
    machine.answer(row)
    assert text(row) == SENTENCE[: SENTENCE.index("this")]
    again = row_of(workshop, "sentence", PARAMS[0])
    machine.answer(again)
    assert text(again) == SENTENCE
    assert logprobs(again) == pytest.approx(likelihoods(workshop, again)[: len(logprobs(again))], abs=0.002)


def test_what_is_computed_before_such_an_end_is_of_use_to_the_next_turn(workshop: Workshop) -> None:
    """Also where a cache cannot be cut: its checkpoints are left."""
    prompt = [2, *range(100, 150), 3, *range(150, 200), 4]
    machine = Machine(workshop, controls=frozenset({2, 3, 4}))
    first = row_of(workshop, "sentence", PARAMS[0], stop="this", prompt=prompt)
    machine.answer(first)
    second = row_of(workshop, "sentence", PARAMS[0], prompt=[*prompt, *first.answer, 5])
    machine.answer(second)
    assert second.cached_tokens >= 51
    alone = row_of(workshop, "sentence", PARAMS[0], prompt=second.prompt)
    Machine(workshop).answer(alone)
    assert second.answer == alone.answer
    assert logprobs(second) == pytest.approx(logprobs(alone), abs=0.002)


def test_a_grammar_without_an_end_ends_where_the_answer_must(llama: Workshop) -> None:
    row = row_of(llama, "spaces", PARAMS[0], 40)
    Machine(llama).answer(row)
    assert len(row.answer) == 40
    assert row.finish_reason == "length"


def test_a_grammar_that_cannot_end_whatever_is_chosen_is_refused(llama: Workshop) -> None:
    compiler = GrammarCompiler(llama.tokenizer, llama.vocabulary, frozenset(llama.tokenizer.eos_token_ids))
    with pytest.raises(InvalidRequest, match="grammar cannot be enforced: what it allows has no end"):
        compiler.compile(Constraint("gbnf", 'root ::= "a" root', "grammar"))


@pytest.mark.parametrize("grammar", ["object", "sentence", "regex", "free"])
def test_the_tokens_are_those_of_one_by_one(llama: Workshop, grammar: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, plain = ([row_of(llama, grammar, params, 60) for params in PARAMS] for _ in range(2))
    for row in rows:
        Machine(llama).answer(row)
    monkeypatch.setattr(Matcher, "forced_tokens", lambda matcher: [])
    for row, other in zip(rows, plain, strict=True):
        Machine(llama).answer(other)
        assert row.answer == other.answer
        assert logprobs(row) == pytest.approx(logprobs(other), abs=0.002)


def test_beside_others_it_takes_a_few_steps_too(llama: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(StepCosts, "width", lambda costs, lengths: max(lengths))
    rows = [row_of(llama, grammar, params, 120) for grammar, params in zip(("sentence", "free"), PARAMS, strict=False)]
    machine = Machine(llama)
    for row in rows:
        machine.scheduler.submit(row)
    steps = 0
    while not rows[0].finish_reason:
        machine.scheduler.step()
        steps += 1
    assert steps <= 6
    assert not rows[1].finish_reason
    assert len(rows[1].answer) >= steps - 3


def test_a_wide_step_has_to_be_worth_it() -> None:
    prompts = ChunkSizer()
    costs = StepCosts(prompts)
    assert costs.width([9, 9]) == 1  # nothing is measured
    prompts.note(1000, 1.0)
    costs.note_step(2, 0.01)
    assert costs.width([9, 9]) == 9
    assert costs.width([1, 9]) == 9
    assert costs.width([9, 9, 9]) == 1  # of three rows nothing is measured
    costs.note_step(4, 0.004)
    assert costs.width([9, 1, 1, 1]) == 1
    costs.note_step(2, 0.01)
    for _ in range(20):
        costs.note_wide(18, 0.1)
    assert costs.width([9, 9]) == 1


@pytest.mark.parametrize("wide", [1.0, 0.5, 0.0])
@settings(max_examples=3, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(draw=st.data())
def test_whoever_comes_and_goes_answers_are_those_of_rows_alone(
    workshop: Workshop, wide: float, draw: st.DataObject, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(StepCosts, "width", lambda costs, lengths: 1 + int(wide * (max(lengths) - 1)))
    machine = Machine(workshop)
    options = [
        (
            draw.draw(st.sampled_from(list(GRAMMARS))),
            draw.draw(st.sampled_from(PARAMS)),
            draw.draw(st.sampled_from((1, 5, 17, 40))),
            draw.draw(st.sampled_from(("", "long", "e "))),
        )
        for _ in range(draw.draw(st.integers(1, 4)))
    ]
    rows = [row_of(workshop, *option) for option in options]
    for row in rows:
        machine.scheduler.submit(row)
        for _ in range(draw.draw(st.integers(0, 9))):
            machine.scheduler.step()
        if row in machine.scheduler._batches.rows and draw.draw(st.integers(0, 3)) == 0:
            machine.scheduler._batches.leave([row])
            row.prefill.drop_layers()
            machine.scheduler._retry([row])  # as if memory had run out
    while machine.scheduler.busy:
        machine.scheduler.step()
    for row, option in zip(rows, options, strict=True):
        alone = row_of(workshop, *option)
        Machine(workshop).answer(alone)
        assert (row.answer, text(row), row.finish_reason) == (alone.answer, text(alone), alone.finish_reason)
        assert logprobs(row) == pytest.approx(logprobs(alone), abs=0.002)
