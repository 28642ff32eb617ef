"""Calls in answers that are free: what has begun as a call becomes one of a tool that there is, whatever is drawn."""

import json
import random
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from app.services.engine.output.detokenizer import detokenizer_factory
from app.services.engine.output.markup import Markup
from app.services.engine.output.message_parser import MessageParser
from app.services.engine.output.parser import OutputParser
from app.services.engine.sampling.call_constraint import CallConstraint
from app.services.engine.sampling.grammar import GrammarCompiler
from app.services.engine.sampling.params import SamplingParams
from app.services.engine.scheduler.row import Row
from app.services.generation import Completion, GenerationRequest, ToolChoice
from app.services.json_schema.enforcement import enforcement
from tests.engine.families import FAMILIES, byte_tokenizer
from tests.engine.harmony_answers import CALL_BEHIND_CHANNEL, CALL_BEHIND_ROLE, harmony_tokenizer
from tests.engine.test_tool_call_grammar import CASES, PLAIN_NAMES, SCHEMAS, TOOLS
from tests.schemas import check as check_schema
from tests.schemas import schemas

# Where a call is certain: most families' begins with its marker, others may begin a text or an answer in JSON so.
STARTS = {
    "llama": '{"name": "add", "parameters": {',
    "command_r": 'Action: ```json\n[\n    {"tool_name": "add", "parameters": {',
}


class Model:
    """A tokenizer of a family, and rows that are driven token by token, as a batch does."""

    def __init__(self, tokenizer: Any, start: str = "") -> None:
        self.tokenizer = tokenizer
        self.markup = Markup.of(self.tokenizer)
        assert self.markup.calls is not None
        self.form = self.markup.calls.notation
        self.start = start or self.markup.calls.start
        self.grammars = GrammarCompiler(self.tokenizer, len(self.tokenizer), self.markup.end_tokens(self.tokenizer))
        self.detokenizer = detokenizer_factory(self.tokenizer, self.markup.markers())

    def row(self, request: GenerationRequest) -> Row:
        calls = self.grammars.call_grammars(request, self.form)
        assert calls is not None
        options: dict[str, Any] = {"tools": request.tools, "one_call": not request.tool_choice.parallel}
        parser: Any = (
            MessageParser(known_only=True, **options)
            if self.markup.has_headers
            else OutputParser(self.markup, known_only=True, **options)
        )
        return Row(
            generation=None,
            prompt=[0],
            max_tokens=5000,
            params=SamplingParams(),
            parser=parser,
            detokenizer=self.detokenizer(),
            end_tokens=self.markup.end_tokens(self.tokenizer),
            constraint=CallConstraint(calls),
        )


class Answer:
    """What a row gives out of the tokens that it takes."""

    def __init__(self, model: Model, request: GenerationRequest) -> None:
        self.model = model
        self.row = model.row(request)
        self.completion = Completion()

    def take(self, token: int) -> None:
        constraint = self.row.constraint
        if constraint is not None and constraint.is_bound:
            constraint.accept(token)
        self.row.drawn_tokens += 1
        for event in self.row.take(token):
            self.completion.add(event)

    def say(self, text: str) -> None:
        for token in self.model.tokenizer.encode(text, add_special_tokens=False):
            self.take(token)

    def allowed(self) -> list[int]:
        assert self.row.constraint is not None
        return [int(token) for token in np.flatnonzero(self.row.constraint.mask())]

    def babble(self, seed: int) -> bool:
        """Draw whatever may come while a call is bound. Returns whether it has ended within 3,000 tokens."""
        chance = random.Random(seed)
        ends = self.model.markup.end_tokens(self.model.tokenizer)
        for _ in range(3000):
            if not self.row.is_bound or self.row.finish_reason:
                return True
            allowed = self.allowed()
            letters = [token for token in allowed if token not in ends]
            ending = len(letters) < len(allowed) and (not letters or chance.random() < 0.5)
            self.take(next(iter(ends)) if ending else chance.choice(letters))
        return False

    def end(self) -> None:
        if not self.row.finish_reason:
            self.take(min(self.model.markup.end_tokens(self.model.tokenizer)))


@cache
def model(name: str, folder: Path, tokens: bool) -> Model:
    family = FAMILIES[name]
    return Model(byte_tokenizer(folder, family, family.markers if tokens else ()), STARTS.get(name, ""))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tokenizers")


def check(calls: Sequence[Any], schemas: dict[str, Any] = SCHEMAS) -> None:
    for call in calls:
        jsonschema.validate(json.loads(call.arguments), schemas[call.name])


def tools_for(name: str) -> Sequence[Any]:
    return TOOLS[:1] if name in PLAIN_NAMES or not FAMILIES[name].streams else TOOLS


@pytest.mark.parametrize(("name", "tokens"), CASES)
def test_a_call_that_has_begun_is_one_of_the_tools(name: str, tokens: bool, folder: Path) -> None:
    for seed in range(6):
        answer = Answer(model(name, folder, tokens), GenerationRequest(tools=tuple(tools_for(name))))
        answer.say("Well. ")
        assert not answer.row.is_bound
        answer.say(answer.model.start)
        assert answer.row.is_bound
        assert answer.babble(seed)
        answer.end()
        assert answer.completion.tool_calls, answer.completion.text
        assert answer.completion.text.strip() == "Well."
        assert answer.completion.finished and answer.completion.finished.reason == "tool_calls"
        check(answer.completion.tool_calls)


@pytest.mark.parametrize(("name", "tokens"), CASES)
def test_what_the_family_writes_is_what_it_would_be_without(name: str, tokens: bool, folder: Path) -> None:
    family = FAMILIES[name]
    loose = {"type": "function", "function": {"name": "add"}}
    answer = Answer(model(name, folder, tokens), GenerationRequest(tools=(loose,)))
    bound = 0
    answer.say(family.before)
    text = "".join(family.calls)
    if name == "mistral list":
        text = text.replace("[TOOL_CALLS] [", "[TOOL_CALLS][").replace(f"{json.dumps({'a': 'y', 'b': -3})}}}", "")
        text = text.replace(', {"name": "add", "arguments": ]', "]")
    for token in answer.model.tokenizer.encode(text, add_special_tokens=False):
        if answer.row.is_bound:
            assert token in answer.allowed(), (answer.completion, answer.model.tokenizer.decode([token]))
            bound += 1
        answer.take(token)
    assert bound > 20
    answer.end()
    expected = 1 if name == "mistral list" else 2
    assert [int(json.loads(call.arguments)["b"]) for call in answer.completion.tool_calls] == [2, -3][:expected]


def test_without_the_lazy_grammar_only_strict_tools_are_held(folder: Path) -> None:
    one = model("json_tools", folder, True)
    free = GenerationRequest(tools=TOOLS, tool_call_grammar="off")
    assert one.grammars.call_grammars(free, one.form) is None
    strict = GenerationRequest(tools=TOOLS, tool_call_grammar="off", tool_choice=ToolChoice(strict=frozenset({"add"})))
    seen = set()
    for seed in range(12):
        answer = Answer(one, strict)
        answer.say("<tool_call>")
        assert answer.babble(seed)
        answer.end()
        for call in answer.completion.tool_calls:
            seen.add(call.name)
            arguments = json.loads(call.arguments)
            assert isinstance(arguments, dict)
            if call.name == "add":
                jsonschema.validate(arguments, SCHEMAS["add"])
    assert seen == set(SCHEMAS)


def test_only_the_tools_that_may_be_called_are(folder: Path) -> None:
    request = GenerationRequest(tools=TOOLS, tool_choice=ToolChoice(names=("add",), parallel=False))
    for seed in range(6):
        answer = Answer(model("json_tools", folder, False), request)
        answer.say("<tool_call>")
        assert answer.babble(seed)
        answer.end()
        assert [call.name for call in answer.completion.tool_calls] == ["add"]


@pytest.mark.parametrize("text", ["Use `<tool_call>", 'It is "<tool_call>', "<tool_cal", "a < b", "<tools>"])
@pytest.mark.parametrize("tokens", [True, False])
def test_text_stays_free(text: str, tokens: bool, folder: Path) -> None:
    answer = Answer(model("json_tools", folder, tokens), GenerationRequest(tools=TOOLS))
    answer.say(text)
    assert not answer.row.is_bound
    answer.say("` and so on.")
    answer.end()
    assert answer.completion.text == f"{text}` and so on."


@pytest.mark.parametrize(
    "text", ['{"name": "Ada", "age": 36}', '{"name": "add", "age": 36}', '{"name": "nobody", "parameters": {"a": 1}}']
)
def test_an_answer_in_json_that_is_no_call_stays_free(text: str, folder: Path) -> None:
    answer = Answer(model("llama", folder, True), GenerationRequest(tools=TOOLS))
    for token in answer.model.tokenizer.encode(text, add_special_tokens=False):
        answer.take(token)
        assert not answer.row.is_bound
    answer.end()
    assert (answer.completion.text, answer.completion.tool_calls) == (text, [])


def test_a_second_region_is_bound_too_where_the_first_has_no_end(folder: Path) -> None:
    for name in ("mistral heads", "gigachat", "granite"):
        for seed in range(4):
            answer = Answer(model(name, folder, True), GenerationRequest(tools=TOOLS[:1]))
            for _ in range(2):
                assert not answer.row.is_bound
                answer.say(answer.model.start)
                assert answer.row.is_bound, name
                assert answer.babble(seed)
            answer.end()
            assert len(answer.completion.tool_calls) >= 2
            check(answer.completion.tool_calls)


@given(schemas(), st.integers(0, 3))
@settings(deadline=None, max_examples=30, suppress_health_check=list(HealthCheck), phases=[Phase.generate])
def test_no_schema_breaks_a_call_of_itself_or_of_another_tool(folder: Path, schema: dict[str, Any], seed: int) -> None:
    odd = {"type": "function", "function": {"name": "odd", "parameters": schema}}
    for start in ("<tool_call>", '<tool_call>\n{"name": "odd"', '<tool_call>\n{"name": "add"'):
        answer = Answer(model("json_tools", folder, True), GenerationRequest(tools=(*TOOLS, odd)))
        answer.say(start)
        assert answer.row.is_bound
        if not answer.babble(seed):
            continue  # a string or a list that goes on and on
        answer.end()
        assert answer.completion.tool_calls
        for call in answer.completion.tool_calls:
            value = json.loads(call.arguments)
            if call.name != "odd":
                jsonschema.validate(value, SCHEMAS[call.name])
                continue
            assert isinstance(value, dict)
            ignored = enforcement(json.dumps(schema), arguments=True).ignored
            if "parameters" not in ignored:
                check_schema(value, schema, ignored)


HEADS = (
    "<|channel|>commentary to=functions.",
    " to=functions.",
    "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant to=functions.",
)


@pytest.mark.parametrize("head", HEADS)
def test_a_message_to_a_function_is_one_to_a_tool(head: str, folder: Path) -> None:
    one = Model(harmony_tokenizer(folder))
    moody = {"type": "function", "function": TOOLS[1]["function"] | {"name": "moody"}}
    schemas, names = {"add": SCHEMAS["add"], "moody": moody["function"]["parameters"]}, set()
    for seed in range(8):
        answer = Answer(one, GenerationRequest(tools=(TOOLS[0], moody)))
        answer.say(head.removesuffix("functions."))
        assert not answer.row.is_bound
        answer.say("functions.")
        assert answer.row.is_bound
        assert answer.babble(seed)
        answer.end()
        assert len(answer.completion.tool_calls) == 1
        check(answer.completion.tool_calls, schemas)
        names.add(answer.completion.tool_calls[0].name)
    assert names == schemas.keys()


@pytest.mark.parametrize("call", [CALL_BEHIND_CHANNEL, CALL_BEHIND_ROLE])
def test_what_gpt_oss_writes_may_come(call: str, folder: Path) -> None:
    loose = {"type": "function", "function": {"name": "add"}}
    answer = Answer(Model(harmony_tokenizer(folder)), GenerationRequest(tools=(loose,)))
    for token in answer.model.tokenizer.encode(call.replace("<|end|>", "<|"), add_special_tokens=False):
        assert not answer.row.is_bound or token in answer.allowed()
        answer.take(token)
    assert [call.name for call in answer.completion.tool_calls] == ["add"]
