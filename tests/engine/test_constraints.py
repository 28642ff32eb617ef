"""Grammars, log-probabilities, budgets and loops, row by row in a batch."""

import json
import random
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlx_lm.models.cache import make_prompt_cache

from app.services import catalog
from app.services.engine.assembly import assemble
from app.services.engine.cache.conversation_owners import ConversationOwners
from app.services.engine.limits import EngineLimits
from app.services.engine.loaded_model import LoadedModel
from app.services.engine.model.language_model import LanguageModel
from app.services.engine.model.model_files import open_folder
from app.services.engine.prompt import Prompt
from app.services.engine.scheduler.row import Row, repeats
from app.services.engine.scheduler.running_generation import Outbox
from app.services.errors import InvalidRequest, ServerError
from app.services.generation import (
    Completion,
    Constraint,
    Finished,
    GenerationRequest,
    Message,
    Sampling,
)

pytestmark = pytest.mark.slow

HELLO = (Message("user", "Hello"),)
SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 8},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
        "tags": {"type": "array", "items": {"enum": ["a", "b"]}, "maxItems": 3},
    },
    "required": ["name", "age", "tags"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def make_loaded(tiny: Any, model_and_tokenizer: tuple[Any, Any]) -> Callable[..., LoadedModel]:
    """Puts the tiny model together anew, under another name if need be; conversations are remembered by all."""
    owners = ConversationOwners()

    def make(name: str = "tiny", *, stop_repetition: bool = True, max_memory: int | None = None) -> LoadedModel:
        limits = EngineLimits(cache_bytes=2**28, stop_repetition=stop_repetition, max_memory=max_memory)
        files = open_folder(catalog.inspect(tiny, name))
        model, tokenizer = model_and_tokenizer
        return assemble(
            files, LanguageModel(model), tokenizer, limits=limits, outbox=Outbox(), conversation_owners=owners
        )

    return make


@pytest.fixture(scope="module")
def loaded(make_loaded: Callable[..., LoadedModel]) -> LoadedModel:
    return make_loaded()


class Answer:
    """A row with the events it gave."""

    def __init__(self, loaded: LoadedModel, request: GenerationRequest, prompt: Prompt | None = None) -> None:
        self.row: Row = loaded.make_row(prompt or loaded.prepare(request), request, None)
        self.completion = Completion()
        take, finish = self.row.take, self.row.finish

        def took(token: int, logprobs: Any = None) -> list[Any]:
            return self.note(take(token, logprobs))

        self.row.take, self.row.finish = took, finish  # type: ignore[method-assign]

    def note(self, events: list[Any]) -> list[Any]:
        for event in events:
            self.completion.add(event)
        return events


def answer(loaded: LoadedModel, *requests: GenerationRequest) -> list[Answer]:
    answers = [Answer(loaded, request) for request in requests]
    for one in answers:
        loaded.scheduler.submit(one.row)
    while loaded.scheduler.busy:
        loaded.scheduler.step()
    return answers


def constrained(kind: Any, text: str, **more: Any) -> GenerationRequest:
    sampling = more.pop("sampling", Sampling(temperature=1.5, top_k=0, top_p=1.0, min_p=0.0, seed=1))
    constraint = Constraint(kind, text, "response_format")
    asked = {"max_tokens": 400, "template_kwargs": {"enable_thinking": False}} | more
    return GenerationRequest(HELLO, sampling=sampling, constraint=constraint, **asked)


def test_a_schema_holds_at_any_heat_alone_and_beside_free_rows(loaded: LoadedModel) -> None:
    hot = [Sampling(temperature=t, top_k=0, top_p=1.0, min_p=0.0, seed=s) for s, t in enumerate((0.0, 1.0, 2.0, 5.0))]
    requests = [constrained("json_schema", json.dumps(SCHEMA), sampling=sampling) for sampling in hot]
    free = [GenerationRequest(HELLO, sampling=sampling, max_tokens=30) for sampling in hot]
    together = answer(loaded, *requests, *free)
    for one in together[: len(hot)]:
        value = json.loads(one.completion.text)
        assert value.keys() == {"name", "age", "tags"}
        assert isinstance(value["age"], int)
        assert len(value["name"]) <= 8
        assert set(value["tags"]) <= {"a", "b"}
        assert "  " not in one.completion.text.replace(value["name"], "")
    alone = [answer(loaded, request)[0] for request in (*requests, *free)]
    assert [one.row.answer for one in together] == [one.row.answer for one in alone]


@pytest.mark.parametrize(
    ("kind", "text", "holds"),
    [
        ("regex", "[a-c]{3}-[0-9]{2}", lambda text: len(text) == 6 and text[3] == "-"),
        ("choice", '["yes", "no", "maybe"]', {"yes", "no", "maybe"}.__contains__),
        ("gbnf", 'root ::= "<" [a-z]+ ">"', lambda text: text.startswith("<") and text.endswith(">")),
        ("lark", 'start: "x" | "y"', {"x", "y"}.__contains__),
        ("json_schema", '{"type": "object"}', lambda text: isinstance(json.loads(text), dict)),
    ],
)
def test_every_kind_of_grammar_is_kept(loaded: LoadedModel, kind: str, text: str, holds: Any) -> None:
    for one in answer(loaded, constrained(kind, text), constrained(kind, text, sampling=Sampling(temperature=0.0))):
        ended = one.completion.finished
        assert ended is not None
        assert ended.reason == "length" or holds(one.completion.text), one.completion.text


@pytest.mark.parametrize(
    ("kind", "text", "names"),
    [
        ("json_schema", '{"type": "integer", "minimum": 5, "maximum": 1}', "Unsatisfiable"),
        ("json_schema", '{"$ref": "#/$defs/nothing"}', "leads nowhere"),
        ("json_schema", "false", "schema is false"),
        ("regex", "(?=x)", "regex"),
        ("gbnf", "root ::= nowhere", "nowhere"),
        ("gbnf", 'root ::= root "a"', "no text matches"),
    ],
)
def test_what_cannot_be_enforced_is_refused_by_name(loaded: LoadedModel, kind: Any, text: str, names: str) -> None:
    with pytest.raises(InvalidRequest, match=names) as refused:
        loaded.prepare(constrained(kind, text))
    assert refused.value.param == "response_format"


@pytest.mark.parametrize(
    "literal", ["The tag <think> opens it.", "a<|im_end|>b", "</tool_call>", "<think>", "é <think"]
)
def test_a_literal_with_the_text_of_an_added_token_comes_whole(loaded: LoadedModel, literal: str) -> None:
    spelled, schema = json.dumps(literal), json.dumps({"const": literal})
    for kind, text, expected in (
        ("choice", json.dumps([literal]), literal),
        ("regex", re.escape(literal), literal),
        ("lark", f"start: {spelled}", literal),
        ("gbnf", f'root ::= "{literal}"', literal),
        ("json_schema", schema, spelled),
        ("json_schema", json.dumps({"enum": [literal]}), spelled),
        ("json_schema", json.dumps({"type": "string", "pattern": f"^{re.escape(literal)}$"}), spelled),
    ):
        (one,) = answer(loaded, constrained(kind, text))
        tokens = [token for token in one.row.answer if token not in loaded.facts.end_tokens]
        written = loaded.detokenize(tokens)
        assert written == expected or json.loads(written) == literal
        assert one.completion.finished is not None
        assert one.completion.finished.reason == "stop"


def test_a_lark_grammar_may_still_ask_for_a_token_by_its_name(loaded: LoadedModel) -> None:
    (mark,) = loaded.prompts.tokenize("<think>")
    grammar = 'start: "<think>" <think> /<x>/  // <think>'
    (one,) = answer(loaded, constrained("lark", grammar))
    assert one.row.answer.count(mark) == 1
    assert loaded.detokenize(one.row.answer).startswith("<think><think><x>")


def test_a_grammar_that_cannot_follow_its_answer_is_no_silent_end(loaded: LoadedModel) -> None:
    request = constrained("choice", '["yes", "no"]')
    heard: list[Any] = []
    one, other = Answer(loaded, request), Answer(loaded, request)
    loaded.scheduler._outbox.put = lambda generation, events: heard.extend(events)  # type: ignore[method-assign]
    assert one.row.constraint is not None
    one.row.constraint.accept(loaded.prompts.tokenize("x")[0])
    assert one.row.constraint.failed
    try:
        for row in (one.row, other.row):
            loaded.scheduler.submit(row)
        while loaded.scheduler.busy:
            loaded.scheduler.step()
    finally:
        del loaded.scheduler._outbox.put
    assert [error.code for error in heard if isinstance(error, ServerError)] == ["grammar_failed"]
    assert other.completion.text in {"yes", "no"}


def begun(kind: Any, text: str, start: str, **more: Any) -> GenerationRequest:
    request = constrained(kind, text, **more)
    messages = (*request.messages, Message("assistant", start))
    return replace(request, messages=messages, continue_final_message=True)


@pytest.mark.parametrize(
    ("kind", "text", "start", "holds"),
    [
        (
            "json_schema",
            json.dumps(SCHEMA),
            '{"name": "',
            lambda text: json.loads(text).keys() == {"name", "age", "tags"},
        ),
        ("json_schema", json.dumps(SCHEMA), '{"name":"x","age":3', lambda text: json.loads(text)["age"] >= 3),
        ("json_schema", json.dumps(SCHEMA), '\n{\n  "name": "x",\n', lambda text: json.loads(text)["name"] == "x"),
        ("json_schema", json.dumps(SCHEMA), '<think>Hm.</think>\n\n{"name"', lambda text: text.endswith("}")),
        ("regex", "[a-c]{3}", "ab", lambda text: len(text) == 3),
        ("choice", '["yes", "no"]', "y", "yes".__eq__),
        ("choice", '["yes", "no"]', "yes", "yes".__eq__),
        ("gbnf", 'root ::= "<think>" [0-9] [0-9]', "<think>4", lambda text: len(text) == 9),
        ("lark", 'start: "x" /[0-9]{2}/', "x1", lambda text: len(text) == 3),
    ],
)
def test_a_grammar_takes_in_what_the_answer_has_begun_with(
    loaded: LoadedModel, kind: str, text: str, start: str, holds: Any
) -> None:
    together = answer(loaded, *(begun(kind, text, start, sampling=Sampling(1.5, seed=seed)) for seed in range(3)))
    for seed, one in enumerate(together):
        assert holds(start + loaded.detokenize([t for t in one.row.answer if t not in loaded.facts.end_tokens]))
        assert one.completion.finished is not None
        assert one.completion.finished.reason == "stop"
        alone = answer(loaded, begun(kind, text, start, sampling=Sampling(1.5, seed=seed)))[0]
        assert alone.row.answer == one.row.answer


@pytest.mark.parametrize(
    ("kind", "text", "start"),
    [
        ("json_schema", json.dumps(SCHEMA), "Here: {"),
        ("json_schema", json.dumps(SCHEMA), '{"age": 3'),
        ("choice", '["yes", "no"]', "maybe"),
        ("regex", "[a-c]{3}", "abd"),
        ("gbnf", 'root ::= "x"', "y"),
    ],
)
def test_what_no_answer_can_begin_with_is_refused(loaded: LoadedModel, kind: str, text: str, start: str) -> None:
    with pytest.raises(InvalidRequest, match="cannot begin an answer") as refused:
        loaded.prepare(begun(kind, text, start))
    assert refused.value.param == "response_format"


def test_a_grammar_binds_only_after_the_reasoning(loaded: LoadedModel) -> None:
    request = constrained("choice", '["yes", "no"]', template_kwargs={"enable_thinking": True}, thinking_budget=7)
    one = answer(loaded, request)[0]
    assert one.completion.reasoning
    assert one.completion.text in {"yes", "no"}


def test_ignoring_the_end_token_does_not_break_a_grammar(loaded: LoadedModel) -> None:
    one = answer(loaded, constrained("choice", '["yes"]', ignore_eos=True))[0]
    assert one.completion.text == "yes"
    assert one.completion.finished is not None
    assert one.completion.finished.reason == "stop"


def test_suppressed_tokens_of_the_models_files_are_never_drawn(
    tiny: Any, tmp_path: Path, model_and_tokenizer: tuple[Any, Any], loaded: LoadedModel
) -> None:
    request = GenerationRequest(HELLO, sampling=Sampling(temperature=0.0), max_tokens=12, ignore_eos=True)
    usual = answer(loaded, request)[0].row.answer
    folder = shutil.copytree(tiny, tmp_path / "model")
    config = json.loads((folder / "generation_config.json").read_text())
    suppress_tokens = [usual[0], 10**6, -1, "1"]
    (folder / "generation_config.json").write_text(json.dumps(config | {"suppress_tokens": suppress_tokens}))
    model = assemble(
        open_folder(catalog.inspect(folder, "tiny")),
        LanguageModel(model_and_tokenizer[0]),
        model_and_tokenizer[1],
        limits=EngineLimits(),
        outbox=Outbox(),
        conversation_owners=ConversationOwners(),
    )
    biased = replace(request, sampling=Sampling(temperature=0.0, logit_bias={usual[0]: 100.0}))
    for one in answer(model, request, biased):
        assert len(one.row.answer) == 12
        assert usual[0] not in one.row.answer


def test_logprobs_are_the_models_own_the_same_alone_and_in_a_batch(
    loaded: LoadedModel, model_and_tokenizer: tuple[Any, Any]
) -> None:
    samplings = [Sampling(temperature=0.0), Sampling(temperature=1.0, seed=4, frequency_penalty=0.5), Sampling(seed=5)]
    requests = [
        GenerationRequest(HELLO, sampling=s, max_tokens=12, logprobs=n)
        for n, s in zip((0, 3, 5), samplings, strict=True)
    ]
    together = answer(loaded, *requests, GenerationRequest(HELLO, max_tokens=12))
    assert together[3].completion.logprobs == []
    for index, one in enumerate(together[:3]):
        assert answer(loaded, requests[index])[0].completion.logprobs == one.completion.logprobs
        check_logprobs(model_and_tokenizer[0], one, requests[index].logprobs or 0)


def check_logprobs(model: Any, one: Answer, width: int) -> None:
    tokens = [entry.token for entry in one.completion.logprobs]
    assert b"".join(entry.data for entry in one.completion.logprobs).decode(errors="replace") == one.completion.text
    prompt = one.row.prompt
    logits = model(mx.array([prompt + tokens]), cache=make_prompt_cache(model))[0]
    reference = np.array(logits - mx.logsumexp(logits, axis=-1, keepdims=True))
    for index, entry in enumerate(one.completion.logprobs):
        expected = reference[len(prompt) - 1 + index]
        assert abs(entry.logprob - expected[entry.token]) < 1e-3
        assert [top.token for top in entry.top] == list(np.argsort(-expected, kind="stable")[:width])


def test_logprobs_leave_out_the_reasoning(loaded: LoadedModel) -> None:
    thinking = {"enable_thinking": True}
    request = GenerationRequest(
        HELLO, logprobs=0, max_tokens=60, thinking_budget=5, template_kwargs=thinking, ignore_eos=True
    )
    one = answer(loaded, request)[0]
    assert one.completion.reasoning
    assert one.completion.logprobs
    assert len(one.completion.logprobs) < one.row.drawn_tokens - 5
    joined = b"".join(entry.data for entry in one.completion.logprobs).decode(errors="replace")
    assert joined.strip() == one.completion.text.strip()


@pytest.mark.parametrize("budget", [0, 1, 9])
def test_a_spent_budget_closes_the_reasoning_and_the_answer_follows(loaded: LoadedModel, budget: int) -> None:
    thinking = {"enable_thinking": True}
    sampling = Sampling(temperature=1.0, seed=2)
    request = GenerationRequest(
        HELLO, sampling=sampling, max_tokens=80, template_kwargs=thinking, thinking_budget=budget, ignore_eos=True
    )
    neighbour = GenerationRequest(HELLO, sampling=sampling, max_tokens=80)
    one, other = answer(loaded, request, neighbour)
    closing = loaded.prompts.tokenize("\n</think>\n\n")
    index = next(i for i in range(len(one.row.answer)) if one.row.answer[i : i + len(closing)] == closing)
    assert index <= max(1, budget)
    assert one.completion.text
    assert other.row.answer == answer(loaded, neighbour)[0].row.answer


def test_a_budget_leaves_room_for_the_answer(loaded: LoadedModel) -> None:
    request = GenerationRequest(
        HELLO, max_tokens=40, thinking_budget=10_000, template_kwargs={"enable_thinking": True}, ignore_eos=True
    )
    assert answer(loaded, request)[0].completion.text


@given(st.integers(1, 40), st.integers(0, 200), st.integers(0, 2**32))
@settings(deadline=None, max_examples=60)
def test_a_loop_is_found_after_12_copies_and_256_tokens(period: int, before: int, seed: int) -> None:
    draw = random.Random(seed)
    start = [draw.randrange(1000) for _ in range(before)]
    loop = [draw.randrange(1000) for _ in range(period)]
    answer = list(start)
    found = None
    while found is None and len(answer) < before + 14 * period + 600:
        answer.append(loop[(len(answer) - before) % period])
        if repeats(answer):
            found = len(answer) - before
    assert found is not None
    assert found >= min(12 * period, 256) - before
    assert found <= max(12 * period, 256) + period + 16


def test_what_only_nearly_repeats_goes_on() -> None:
    counting = [token for number in range(200) for token in (1, 2, 3, 100 + number)]
    assert not any(repeats(counting[:length]) for length in range(2, len(counting)))


def test_a_runaway_loop_ends_with_its_cause(loaded: LoadedModel) -> None:
    forced = Sampling(temperature=0.0, logit_bias={50: 100.0})
    request = GenerationRequest(HELLO, sampling=forced, max_tokens=2000)
    ended = answer(loaded, request)[0].completion.finished
    assert isinstance(ended, Finished)
    assert (ended.reason, ended.cause) == ("length", "repetition")
    assert ended.timings.completion_tokens <= 256 + 16
    free = GenerationRequest(HELLO, sampling=forced, max_tokens=400, ignore_eos=True)
    assert answer(loaded, free)[0].row.drawn_tokens == 400


def test_a_loop_under_a_grammar_ends_where_no_limit_was_given(loaded: LoadedModel) -> None:
    (token,) = loaded.prompts.tokenize("x")
    request = GenerationRequest(
        HELLO,
        sampling=Sampling(temperature=0.0, logit_bias={token: 100.0}),
        constraint=Constraint("regex", "x*", "regex"),
    )
    ended = answer(loaded, request)[0].completion.finished
    assert isinstance(ended, Finished)
    assert (ended.reason, ended.cause) == ("length", "repetition")
    assert answer(loaded, replace(request, max_tokens=400))[0].row.drawn_tokens == 400


def test_a_setting_lets_loops_go_on(make_loaded: Callable[..., LoadedModel]) -> None:
    request = GenerationRequest(HELLO, sampling=Sampling(temperature=0.0, logit_bias={50: 100.0}), max_tokens=400)
    assert answer(make_loaded(stop_repetition=False), request)[0].row.drawn_tokens == 400


def test_a_prompt_that_has_no_memory_is_refused_before_it_is_queued(make_loaded: Callable[..., LoadedModel]) -> None:
    mx.clear_cache()
    loaded = make_loaded(max_memory=mx.get_active_memory() + 2**20)
    loaded.scheduler.admission.settle()
    loaded.prepare(GenerationRequest(HELLO, max_tokens=400))
    with pytest.raises(InvalidRequest, match=r"tokens and needs .* MiB .*--max-memory") as refused:
        loaded.prepare(GenerationRequest((Message("user", "river " * 2000),), max_tokens=1))
    assert refused.value.code == "memory_exceeded"


def test_a_conversation_that_another_model_answered_last_says_so(make_loaded: Callable[..., LoadedModel]) -> None:
    here, there = make_loaded(), make_loaded("another")
    turn = (*HELLO, Message("assistant", "Hi"), Message("user", "Go on"))
    other = GenerationRequest((Message("user", "Nobody has asked this"),), max_tokens=2)

    def reason(loaded: LoadedModel, messages: tuple[Message, ...]) -> str:
        request = GenerationRequest(messages, max_tokens=2)
        row = loaded.make_rows(loaded.prepare(request), request, [None])
        loaded.scheduler.submit(row)
        while loaded.scheduler.busy:
            loaded.scheduler.step()
        return row.prefill.cache_use.reason

    assert reason(here, HELLO) == "not_stored"
    assert reason(there, turn) == "other_model"
    assert reason(there, turn) == "whole"
    assert reason(here, turn) == "other_model"
    assert reason(here, turn) == "whole"
    assert reason(here, other.messages) != "other_model"
