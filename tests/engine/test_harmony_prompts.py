"""Conversations and grammars for models that answer in harmony: what goes into the prompt, and what may come."""

import json
import random
from typing import Any

import jsonschema
import numpy as np
import pytest

from app.services.engine.model.chat_template import ChatTemplate
from app.services.engine.output import harmony
from app.services.engine.output.markup import Markup
from app.services.engine.sampling.grammar import GrammarCompiler, GrammarConstraint
from app.services.generation import Constraint, GenerationRequest, Message, ToolCall, ToolChoice
from tests.engine.harmony_answers import harmony_tokenizer, marked, parse_messages

SCHEMA = {
    "type": "object",
    "properties": {"a": {"type": "string", "maxLength": 3}, "b": {"type": "integer", "minimum": 0, "maximum": 9}},
    "required": ["a"],
    "additionalProperties": False,
}
TOOL: dict[str, Any] = {"type": "function", "function": {"name": "add", "parameters": SCHEMA}}
OTHER: dict[str, Any] = {"type": "function", "function": {"name": "add_more", "parameters": SCHEMA}}
FINAL = "<|channel|>final<|message|>"
NEXT = "<|end|><|start|>assistant"
OFF = {"enable_thinking": False}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return harmony_tokenizer(tmp_path_factory.mktemp("harmony"))


@pytest.fixture(scope="module")
def template(tokenizer: Any) -> ChatTemplate:
    return ChatTemplate(tokenizer)


@pytest.fixture(scope="module")
def grammars(tokenizer: Any) -> GrammarCompiler:
    return GrammarCompiler(tokenizer, len(tokenizer), Markup.of(tokenizer).end_tokens(tokenizer))


# Conversations.


def user(text: str) -> Message:
    return Message("user", text)


def assistant(text: str, *calls: ToolCall, reasoning: str | None = None) -> Message:
    return Message("assistant", text, reasoning=reasoning, tool_calls=calls)


def call(identity: str, word: str) -> ToolCall:
    return ToolCall(0, identity, "add", json.dumps({"a": word}))


def result(identity: str, text: str) -> Message:
    return Message("tool", text, tool_call_id=identity)


def prompt(template: ChatTemplate, *messages: Message, **more: Any) -> str:
    """The prompt behind the messages that say who the model is and what tools it has."""
    text = template.render(GenerationRequest(messages=messages, **more))
    return text[text.index("<|start|>user") :].removeprefix("<|start|>user<|message|>Hi<|end|>")


def test_reasoning_and_calls_go_back_as_messages(template: ChatTemplate) -> None:
    calls = assistant("", call("1", "x"), reasoning="I add.")
    text = prompt(template, user("Hi"), calls, result("1", "three"), tools=(TOOL,))
    assert text == (
        "<|start|>assistant<|channel|>analysis<|message|>I add.<|end|>"
        '<|start|>assistant to=functions.add<|channel|>commentary json<|message|>{"a": "x"}<|call|>'
        '<|start|>functions.add to=assistant<|channel|>commentary<|message|>"three"<|end|><|start|>assistant'
    )


def test_text_beside_reasoning_and_calls_joins_the_reasoning(template: ChatTemplate) -> None:
    calls = assistant("One moment.", call("1", "x"), reasoning="I add.")
    text = prompt(template, user("Hi"), calls, result("1", "three"), tools=(TOOL,))
    assert text.startswith("<|start|>assistant<|channel|>analysis<|message|>I add.\n\nOne moment.<|end|>")


def test_each_call_is_a_message_with_its_result_behind_it(template: ChatTemplate) -> None:
    calls = assistant("", call("1", "x"), call("2", "y"))
    text = prompt(template, user("Hi"), calls, result("2", "two"), result("1", "one"), tools=(TOOL,))
    order = [text.index(part) for part in ('{"a": "y"}', '"two"', '{"a": "x"}', '"one"')]
    assert order == sorted(order)


def test_the_reasoning_of_earlier_turns_is_dropped_by_the_template(template: ChatTemplate) -> None:
    text = prompt(template, user("Hi"), assistant("Hello", reasoning="They greet."), user("And?"))
    assert text == f"<|start|>assistant{FINAL}Hello<|end|><|start|>user<|message|>And?<|end|><|start|>assistant"


def test_a_last_message_is_continued_in_its_channel(template: ChatTemplate) -> None:
    final = assistant("Hel", reasoning="They greet.")
    analysis = "<|start|>assistant<|channel|>analysis<|message|>They greet."
    text = prompt(template, user("Hi"), final, continue_final_message=True)
    assert text == f"{analysis}{NEXT}{FINAL}Hel"
    reasoning = assistant("", reasoning="They greet.")
    assert prompt(template, user("Hi"), reasoning, continue_final_message=True) == analysis


def test_without_reasoning_the_answer_is_begun(template: ChatTemplate) -> None:
    assert prompt(template, user("Hi"), template_kwargs=OFF) == f"<|start|>assistant{FINAL}"
    text = prompt(template, user("Hi"), template_kwargs=OFF, tools=(TOOL,))
    assert text == f"<|start|>assistant<|channel|>analysis<|message|>{NEXT}"
    never = ToolChoice("none")
    assert prompt(template, user("Hi"), template_kwargs=OFF, tools=(TOOL,), tool_choice=never).endswith(FINAL)


# End tokens.


def test_calls_end_a_turn_and_messages_do_not(tokenizer: Any) -> None:
    ids = {token: tokenizer.convert_tokens_to_ids(token) for token in harmony.TOKENS}
    expected = {ids["<|return|>"], ids["<|call|>"]}
    for named in ({ids["<|return|>"]}, {ids["<|end|>"], ids["<|return|>"]}):
        assert harmony.end_tokens(tokenizer, named) == expected


# Grammars.


def draw(tokenizer: Any, grammars: GrammarCompiler, request: GenerationRequest, seed: int) -> str:
    """An answer of random tokens out of those that may come. Ends are rarely put off."""
    form = Markup.of(tokenizer).calls
    assert form is not None
    assert form.format is not None
    matcher = grammars.compile_request(request, form.format)
    header = grammars.compile_header(request, form.format, in_message=False)
    ends = Markup.of(tokenizer).end_tokens(tokenizer)
    constraint = GrammarConstraint(
        matcher,  # type: ignore[arg-type]
        think_start=[],
        think_end=[],
        blank=[],
        end_tokens=ends,
        thinking=False,
        may_think=False,
        header=header,
    )
    answer: list[int] = []
    chance, control = random.Random(seed), set(tokenizer.convert_tokens_to_ids(list(harmony.TOKENS))) | ends
    for _ in range(4000):
        allowed = [int(token) for token in np.flatnonzero(constraint.mask())]
        final = [token for token in allowed if token in control]
        token = chance.choice(final) if final and chance.random() < 0.2 else chance.choice(allowed)
        if token in ends:
            assert not constraint.failed
            return str(tokenizer.decode(answer, skip_special_tokens=False))
        answer.append(token)
        constraint.catch_up(answer)
    raise AssertionError("it never ends")


@pytest.mark.parametrize("names", [(), ("add",)])
def test_what_is_required_comes_after_any_reasoning(
    tokenizer: Any, grammars: GrammarCompiler, names: tuple[str, ...]
) -> None:
    request = GenerationRequest(tools=(TOOL, OTHER), tool_choice=ToolChoice("required", names=names))
    for seed in range(8):
        parts, _ = parse_messages([marked(draw(tokenizer, grammars, request, seed))], tools=request.tools)
        (index, name, arguments) = parts[-1]
        assert (index, name in (names or ("add", "add_more"))) == (0, True)
        jsonschema.validate(json.loads(arguments), SCHEMA)


@pytest.mark.parametrize("off", [False, True])
def test_none_allows_every_message_but_a_call(tokenizer: Any, grammars: GrammarCompiler, off: bool) -> None:
    request = GenerationRequest(
        tools=(TOOL,), tool_choice=ToolChoice("none"), template_kwargs=OFF if off else {}, messages=(user("Hi"),)
    )
    kinds = set()
    for seed in range(12):
        text = draw(tokenizer, grammars, request, seed)
        assert " to=functions" not in text
        kinds.add("<|channel|>analysis" in text)
    assert kinds == ({False} if off else {False, True})


def test_a_schema_binds_the_final_message_alone(tokenizer: Any, grammars: GrammarCompiler) -> None:
    schema = Constraint("json_schema", '{"enum": ["yes", "no"]}', "response_format")
    for seed in range(8):
        text = draw(tokenizer, grammars, GenerationRequest(constraint=schema), seed)
        parts, _ = parse_messages([marked(text)])
        assert parts[-1] in (['"yes"', False], ['"no"', False])
        assert all(reasoning for _, reasoning in parts[:-1])


def test_an_answer_of_a_schema_or_a_call(tokenizer: Any, grammars: GrammarCompiler) -> None:
    schema = Constraint("json_schema", '{"enum": ["yes", "no"]}', "response_format")
    request = GenerationRequest(tools=(TOOL,), constraint=schema, tool_choice=ToolChoice())
    kinds = set()
    for seed in range(16):
        parts, _ = parse_messages([marked(draw(tokenizer, grammars, request, seed))], tools=request.tools)
        last = parts[-1]
        assert isinstance(last, tuple) or last in (['"yes"', False], ['"no"', False])
        kinds.add(type(last))
    assert kinds == {tuple, list}


def test_an_answer_that_starts_over_is_bound_as_before(tokenizer: Any, grammars: GrammarCompiler) -> None:
    schema = Constraint("json_schema", '{"enum": ["yes"]}', "response_format")
    form = Markup.of(tokenizer).calls
    assert form is not None
    assert form.format is not None
    request = GenerationRequest(constraint=schema)
    constraint = GrammarConstraint(
        grammars.compile_request(request, form.format),  # type: ignore[arg-type]
        think_start=[],
        think_end=[],
        blank=[],
        end_tokens=(),
        thinking=False,
        may_think=False,
        header=grammars.compile_header(request, form.format, in_message=False),
    )
    first = constraint.mask()
    constraint.catch_up(tokenizer.encode(f'{FINAL}"ye', add_special_tokens=False))
    later = constraint.mask()
    constraint.catch_up([])
    assert (constraint.mask() == first).all()
    constraint.catch_up(tokenizer.encode(f'{FINAL}"ye', add_special_tokens=False))
    assert (constraint.mask() == later).all()
    assert not constraint.failed
