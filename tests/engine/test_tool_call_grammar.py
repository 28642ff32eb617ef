"""Calls that a grammar sees to: whatever is drawn from what it allows, the calls are those that were asked for."""

import json
import random
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

from app.services.engine.output.markup import Markup
from app.services.engine.output.parser import OutputParser
from app.services.engine.output.tool_call_notations import CallNotation
from app.services.engine.sampling.grammar import GrammarCompiler
from app.services.engine.sampling.matcher import Matcher
from app.services.errors import InvalidRequest
from app.services.generation import Constraint, GenerationRequest, Message, ToolChoice
from tests.engine.families import FAMILIES, byte_tokenizer
from tests.engine.parsing import merge_parts

SCHEMAS = {
    "add": {
        "type": "object",
        "properties": {"a": {"type": "string", "maxLength": 3}, "b": {"type": "integer", "minimum": 0, "maximum": 9}},
        "required": ["a"],
        "additionalProperties": False,
    },
    "say \"hi\"": {
        "type": "object",
        "properties": {"mood": {"$ref": "#/$defs/mood"}},
        "required": ["mood"],
        "additionalProperties": False,
        "$defs": {"mood": {"enum": ["good", "bad"]}},
    },
}  # fmt: skip
TOOLS = tuple(
    {"type": "function", "function": {"name": name, "parameters": schema}} for name, schema in SCHEMAS.items()
)
# Families whose names are not quoted.
PLAIN_NAMES = ("mistral heads", "mistral ids", "kimi_k2", "deepseek", "deepseek in code", "solar", "functionary")
NAMES = list(FAMILIES)
# Each with its markers as tokens, and as plain text; one family is told by its tokens alone.
CASES = [
    pytest.param(name, tokens, marks=() if tokens else pytest.mark.slow)
    for name in NAMES
    for tokens in (True, False)
    if tokens or name != "kimi_k3"
]


@cache
def model(name: str, folder: Path, tokens: bool) -> tuple[Any, GrammarCompiler, Markup]:
    """A tokenizer of the family, in which its markers are tokens or text like any other."""
    family = FAMILIES[name]
    tokenizer = byte_tokenizer(folder, family, family.markers if tokens else ())
    return (
        tokenizer,
        GrammarCompiler(tokenizer, len(tokenizer), frozenset(tokenizer.eos_token_ids)),
        Markup.of(tokenizer),
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tokenizers")


def form_of(markup: Markup) -> CallNotation | None:
    return markup.calls and markup.calls.notation


def draw(
    tokenizer: Any,
    grammars: GrammarCompiler,
    request: GenerationRequest,
    markup: Markup,
    seed: int,
    start: str = "",
) -> str:
    """An answer of random tokens out of those that may come, the end among them, from a beginning on."""
    (answer,) = draws(tokenizer, grammars, request, markup, [seed], start)
    return answer


def draws(
    tokenizer: Any,
    grammars: GrammarCompiler,
    request: GenerationRequest,
    markup: Markup,
    seeds: Iterable[int],
    start: str = "",
) -> Iterator[str]:
    """Such answers, one of each seed."""
    matcher = grammars.compile_request(request, form_of(markup))
    assert matcher is not None
    for seed in seeds:
        yield _draw(tokenizer, matcher.fork(), random.Random(seed), start)


def _draw(tokenizer: Any, matcher: Matcher, chance: random.Random, start: str) -> str:
    ids = tokenizer.encode(start, add_special_tokens=False)
    assert matcher.begin_with(ids), start
    end = tokenizer.eos_token_id
    for _ in range(3000):
        allowed = np.flatnonzero(matcher.mask()).tolist()
        letters = [token for token in allowed if token != end]
        token = end if end in allowed and (not letters or chance.random() < 0.3) else chance.choice(letters)
        if token == end:
            return str(tokenizer.decode(ids, skip_special_tokens=False))
        matcher.consume(token)
        ids.append(token)
    raise AssertionError("it never ends")


def calls_of(text: str, markup: Markup, request: GenerationRequest) -> list[Any]:
    parser = OutputParser(markup, tools=request.tools, one_call=not request.tool_choice.parallel)
    parts = merge_parts(parser.feed(text) + parser.finish())
    calls = [part for part in parts if isinstance(part, tuple)]
    assert parser.complete_calls == len(calls)
    return parts


@pytest.mark.parametrize(("name", "tokens"), CASES)
def test_what_is_required_comes_and_nothing_else(name: str, tokens: bool, folder: Path) -> None:
    tokenizer, grammars, markup = model(name, folder, tokens)
    tools = TOOLS[:1] if name in PLAIN_NAMES or not FAMILIES[name].streams else TOOLS
    several = 0
    request = GenerationRequest(tools=tools, tool_choice=ToolChoice("required"))
    for answer in draws(tokenizer, grammars, request, markup, range(8)):
        parts = calls_of(answer, markup, request)
        assert parts
        for part in parts:
            assert isinstance(part, tuple), part
            jsonschema.validate(json.loads(part[2]), SCHEMAS[part[1]])
        several += len(parts) > 1
    assert several or name in ("llama", "gigachat", "gigachat_role")


@pytest.mark.parametrize("name", NAMES)
def test_a_named_tool_is_the_only_one(name: str, folder: Path) -> None:
    tokenizer, grammars, markup = model(name, folder, True)
    request = GenerationRequest(tools=TOOLS, tool_choice=ToolChoice("required", names=("add",), parallel=False))
    for answer in draws(tokenizer, grammars, request, markup, range(3)):
        ((index, called, arguments),) = calls_of(answer, markup, request)
        assert (index, called) == (0, "add")
        jsonschema.validate(json.loads(arguments), SCHEMAS["add"])


@pytest.mark.parametrize("name", NAMES)
def test_the_familys_own_writing_is_allowed(name: str, folder: Path) -> None:
    tokenizer, grammars, markup = model(name, folder, True)
    loose = {"type": "function", "function": {"name": "add"}}
    request = GenerationRequest(tools=(loose,), tool_choice=ToolChoice("required"))
    matcher = grammars.compile_request(request, form_of(markup))
    assert matcher is not None
    call = FAMILIES[name].calls[0].rstrip()
    if name == "mistral list":
        call = '[TOOL_CALLS][{"name": "add", "arguments": {"a": "y", "b": -3}, "id": "abcdefghi"}]'
    ids = tokenizer.encode(call, add_special_tokens=False)
    assert matcher.begin_with(ids)
    assert matcher.is_accepting


def test_an_answer_of_a_schema_or_a_call(folder: Path) -> None:
    tokenizer, grammars, markup = model("json_tools", folder, True)
    answer = Constraint("json_schema", '{"enum": ["yes", "no"]}', "response_format")
    request = GenerationRequest(tools=TOOLS, constraint=answer, tool_choice=ToolChoice(strict=frozenset(SCHEMAS)))
    drawn = draws(tokenizer, grammars, request, markup, range(12))
    answers = [calls_of(answer, markup, request) for answer in drawn]
    for parts in answers:
        assert parts in ([['"yes"', False]], [['"no"', False]]) or all(isinstance(part, tuple) for part in parts)
    assert len({type(parts[0]) for parts in answers}) == 2


def test_auto_and_none_need_no_grammar_of_the_whole_answer(folder: Path) -> None:
    _, grammars, markup = model("json_tools", folder, True)
    strict = frozenset({"add"})
    for choice in (
        ToolChoice(),
        ToolChoice("none", strict=strict),
        ToolChoice(parallel=False),
        ToolChoice(strict=strict),
    ):
        assert grammars.compile_request(GenerationRequest(tools=TOOLS, tool_choice=choice), form_of(markup)) is None


@pytest.mark.parametrize(
    "choice", [ToolChoice("required"), ToolChoice(strict=frozenset({"add"}), param="tools.0.strict")]
)
def test_calls_of_which_nothing_is_known_are_refused(choice: ToolChoice, folder: Path) -> None:
    _, grammars, _ = model("pythonic", folder, True)
    request = GenerationRequest(tools=TOOLS, tool_choice=choice)
    with pytest.raises(InvalidRequest, match="how this model writes calls is not known") as refused:
        grammars.compile_request(request, None)
    assert (refused.value.param, refused.value.code) == (choice.param, "calls_not_enforceable")


@pytest.mark.parametrize(
    "parameters",
    [
        {"not": {"type": "string"}},
        {"type": "object", "properties": None, "required": None},
        {
            "type": "object",
            "properties": {"a": {"type": "string"}},
            "required": ["a", "b"],
            "additionalProperties": False,
        },
        {"$ref": "#/$defs/nothing"},
        {"type": "array", "items": {"type": "string"}},
        {"type": "object", "properties": {"a": {"type": "integer", "minimum": 5, "maximum": 1}}, "required": ["a"]},
        {"type": "object", "properties": {"next": {"$ref": "#"}}, "required": ["next"]},
    ],
)
def test_one_tool_with_an_odd_schema_takes_no_other_down(parameters: dict[str, Any], folder: Path) -> None:
    tokenizer, grammars, markup = model("json_tools", folder, True)
    odd = {"type": "function", "function": {"name": "odd", "parameters": parameters}}
    request = GenerationRequest(tools=(*TOOLS, odd), tool_choice=ToolChoice("required", parallel=False))
    names = set()
    for answer in draws(tokenizer, grammars, request, markup, range(12)):
        ((_, called, arguments),) = calls_of(answer, markup, request)
        names.add(called)
        if called == "odd":
            assert isinstance(json.loads(arguments), dict)
        else:
            jsonschema.validate(json.loads(arguments), SCHEMAS[called])
    assert len(names) > 1
    only = replace(request, tool_choice=ToolChoice("required", names=("odd",), parallel=False))
    ((_, called, arguments),) = calls_of(draw(tokenizer, grammars, only, markup, 1), markup, only)
    assert called == "odd"
    assert isinstance(json.loads(arguments), dict)


@pytest.mark.parametrize("marker", ["</tool_call>", "<tool_call>", "<|end|>"])
def test_arguments_may_have_the_text_of_a_marker(marker: str, folder: Path) -> None:
    tokenizer, grammars, markup = model("json_tools", folder, True)
    schema = {
        "type": "object",
        "properties": {"tag": {"enum": [marker]}},
        "required": ["tag"],
        "additionalProperties": False,
    }
    tool = {"type": "function", "function": {"name": "add", "parameters": schema}}
    request = GenerationRequest(tools=(tool,), tool_choice=ToolChoice("required", parallel=False))
    matcher = grammars.compile_request(request, form_of(markup))
    assert matcher is not None
    written: list[int] = []
    for _ in range(200):
        token = int(np.flatnonzero(matcher.mask())[0])
        if matcher.is_stopped:
            break
        assert matcher.consume(token)
        written.append(token)
    assert json.dumps({"tag": marker}) in str(tokenizer.decode(written, skip_special_tokens=False))


def test_an_answer_that_has_begun_is_no_call(folder: Path) -> None:
    tokenizer, grammars, markup = model("json_tools", folder, True)
    constraint = Constraint("json_schema", '{"enum": ["yes", "no"]}', "response_format")
    request = GenerationRequest(
        messages=(Message("user", "?"), Message("assistant", '"y')),
        continue_final_message=True,
        tools=TOOLS,
        constraint=constraint,
        tool_choice=ToolChoice(strict=frozenset(SCHEMAS)),
    )
    assert set(draws(tokenizer, grammars, request, markup, range(3))) == {'es"'}
    free = replace(request, tool_choice=ToolChoice("required", parallel=False))
    ((_, called, _),) = calls_of(draw(tokenizer, grammars, free, markup, 1), markup, free)
    assert called in SCHEMAS
