"""Conversations in any order of roles, under templates of every manner."""

import json
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from app.services.engine.model.chat_template import ChatTemplate
from app.services.engine.model.conversation import EVERY_ORDER, Capabilities, adapt_messages
from app.services.engine.output.tool_call_formats import call_format, write_calls
from app.services.errors import InvalidRequest
from app.services.generation import GenerationRequest, Message, ToolCall
from tests.engine.chat_templates import TEMPLATES
from tests.engine.families import LLAMA, Family, byte_tokenizer

pytestmark = pytest.mark.slow

TOOL = {
    "type": "function",
    "function": {"name": "look_up", "parameters": {"type": "object", "properties": {"word": {"type": "string"}}}},
}
AS_SENT = Capabilities()


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], ChatTemplate]:
    """Give the template of a manner, or of a source."""
    calls: dict[str, ChatTemplate] = {}

    def make(name: str) -> ChatTemplate:
        if name not in calls:
            family = Family(None, TEMPLATES.get(name, name))
            calls[name] = ChatTemplate(byte_tokenizer(tmp_path_factory.mktemp("template"), family, ()))
        return calls[name]

    return make


def system(text: str) -> Message:
    return Message("system", text)


def user(text: str) -> Message:
    return Message("user", text)


def assistant(text: str, *calls: ToolCall, thought: str | None = None) -> Message:
    return Message("assistant", text, reasoning=thought, tool_calls=calls)


def call(identity: str, word: str = "sea") -> ToolCall:
    return ToolCall(0, identity, "look_up", json.dumps({"word": word}))


def result(identity: str | None, text: str) -> Message:
    return Message("tool", text, tool_call_id=identity)


def rendered(template: ChatTemplate, *messages: Message, **more: Any) -> str:
    return template.render(GenerationRequest(messages=messages, **more))


def plain(template: ChatTemplate, *messages: Message) -> str:
    """What the template makes of messages as they are, without what begins an answer."""
    return template.apply(messages, (), AS_SENT, add_generation_prompt=False)


# Any conversation: the text of a turn is a word of its own, or nothing.
_KINDS = ("system", "user", "assistant", "calls", "two calls", "text and calls", "result", "stray result")


@st.composite
def conversations(draw: st.DrawFn) -> list[Message]:
    messages: list[Message] = []
    open_calls: list[str] = []
    for index, kind in enumerate(draw(st.lists(st.sampled_from(_KINDS), min_size=1, max_size=9))):
        word = "" if kind != "calls" and draw(st.integers(0, 5)) == 0 else f"word{index}word"
        calls = [call(f"call_{index}_{number}", f"word{index}{number}word") for number in range(2)]
        match kind:
            case "system" | "user" | "assistant":
                messages.append(Message(kind, word))
            case "result" | "stray result":
                stray = draw(st.sampled_from(["", "x", "call_0_0"])) if kind != "result" or not open_calls else None
                messages.append(result(open_calls.pop(0) if stray is None else stray, word))
            case _:
                calls = calls if kind == "two calls" else calls[:1]
                open_calls += [call.id for call in calls]
                thought = draw(st.sampled_from([None, "Hm."]))
                messages.append(assistant(word if kind == "text and calls" else "", *calls, thought=thought))
    return messages


@pytest.mark.parametrize("manner", TEMPLATES)
@settings(max_examples=30, deadline=None)
@given(messages=conversations(), with_tools=st.booleans())
def test_any_order_of_roles_is_rendered_and_nothing_is_lost(
    template: Callable[[str], ChatTemplate], manner: str, messages: list[Message], with_tools: bool
) -> None:
    prompt = rendered(template(manner), *messages, tools=(TOOL,) if with_tools else ())
    for message in messages:
        assert message.content in prompt
        for one in message.tool_calls:
            assert json.loads(one.arguments)["word"] in prompt


@st.composite
def ordinary_conversations(draw: st.DrawFn) -> list[Message]:
    """Conversations as they usually are: of a system prompt, questions, calls with their results, and answers."""
    messages = [system("systemword")] if draw(st.booleans()) else []
    for turn in range(draw(st.integers(1, 3))):
        messages.append(user(f"asked{turn}word"))
        for step in range(draw(st.integers(0, 2))):
            identity = f"{turn}{step}abcdefg"
            messages += [assistant("", call(identity, f"call{identity}")), result(identity, f"result{turn}{step}word")]
        messages.append(assistant(f"answer{turn}word"))
    return messages[: draw(st.sampled_from([None, -1]))]


@pytest.mark.parametrize("manner", sorted(TEMPLATES.keys() - {"system with the last words of the user"}))
@settings(max_examples=20, deadline=None)
@given(messages=ordinary_conversations())
def test_what_the_template_takes_comes_out_as_it_was_sent(
    template: Callable[[str], ChatTemplate], manner: str, messages: list[Message]
) -> None:
    one = template(manner)
    try:
        prompt = one.apply(messages, (), AS_SENT, add_generation_prompt=True)
    except Exception:
        return
    words = [message.content for message in messages]
    words += [json.loads(one.arguments)["word"] for message in messages for one in message.tool_calls]
    if all(word in prompt for word in words):
        assert rendered(one, *messages) == prompt


@pytest.mark.parametrize("manner", TEMPLATES)
@settings(max_examples=30, deadline=None)
@given(messages=conversations(), more=st.sampled_from([system("more"), user("more"), assistant("more")]))
def test_a_conversation_that_goes_on_keeps_its_beginning(
    template: Callable[[str], ChatTemplate], manner: str, messages: list[Message], more: Message
) -> None:
    one = template(manner)
    capabilities = one.capabilities[False]
    # An answer that another one follows is not over yet: where it is empty, nothing has to stand for it any more.
    assume(not (messages and messages[-1] == assistant("") and more.role == "assistant"))
    if any(message.role == "user" for message in messages):
        before = adapt_messages(messages, capabilities, one.write_calls)
        after = adapt_messages([*messages, more], capabilities, one.write_calls)
        assert after[: len(before) - 1] == before[:-1]
        assert after[len(before) - 1].content.startswith(before[-1].content)


@settings(max_examples=30, deadline=None)
@given(messages=conversations())
def test_a_prompt_is_the_beginning_of_the_next_where_the_template_allows_it(
    template: Callable[[str], ChatTemplate], messages: list[Message]
) -> None:
    one = template("takes everything")
    prompts = [plain(one, *messages[: end + 1]) for end in range(len(messages))]
    assert all(longer.startswith(shorter) for shorter, longer in pairwise(prompts))
    assert rendered(one, *messages) == prompts[-1] + "<assistant>"


LATER = (system("A"), user("B"), assistant("C"), system("D"), user("E"))


@pytest.mark.parametrize(
    ("manner", "messages", "expected"),
    [
        ("system at the beginning", LATER, "<system>A<end><user>B<end><assistant>C<end><user>D\n\nE<end>"),
        ("system at the beginning", (system("A"), system("B"), user("C")), "<system>A\n\nB<end><user>C<end>"),
        ("system at the beginning", (user("A"), system("B"), user("C")), "<user>A\n\nB<end><user>C<end>"),
        (
            "system at the beginning",
            (user("A"), assistant("B"), system("C")),
            "<user>A<end><assistant>B<end><user>C<end>",
        ),
        ("system messages moved to the beginning", LATER, "A <user>B<end><assistant>C<end><user>D\n\nE<end>"),
        ("later system messages left out", LATER, "<system>A<end><user>B<end><assistant>C<end><user>D\n\nE<end>"),
        ("no system, roles alternate", LATER, "<user>A\n\nB<end><assistant>C<end><user>D\n\nE<end>"),
        (
            "calls in the place of words",
            (user("A"), assistant("B", call("1"), thought="C"), result("1", "D")),
            '<user>A<end><assistant>B<end><assistant>[look_up{"word": "sea"}]<end><tool>D<end>',
        ),
        ("no system, roles alternate", (system("A"),), "<user>A<end>"),
        ("no system, roles alternate", (user("A"), user("B")), "<user>A\n\nB<end>"),
        ("no system, roles alternate", (assistant("A"), user("B")), "<user><end><assistant>A<end><user>B<end>"),
        (
            "no system, roles alternate",
            (user("A"), assistant("B"), assistant("C"), user("D")),
            "<user>A<end><assistant>B\n\nC<end><user>D<end>",
        ),
        (
            "no system, roles alternate",
            (user("A"), assistant("", call("1")), result("1", "B"), user("C")),
            '<user>A<end><assistant><tool_call>\n{"name": "look_up", "arguments": {"word": "sea"}}\n</tool_call><end>'
            "<user><tool_response>\nB\n</tool_response>\n\nC<end>",
        ),
        (
            "roles alternate around tools",
            (user("A"), assistant("", call("123456789")), result("123456789", "B"), user("C")),
            '<user>A<end><assistant>[look_up{"word": "sea"}]<end><tool>B<end><assistant><end><user>C<end>',
        ),
        (
            "roles alternate around tools",
            (user("A"), assistant("", call("123456789")), user("B")),
            '<user>A<end><assistant>[look_up{"word": "sea"}]<end><tool>No result.<end><assistant><end><user>B<end>',
        ),
        (
            "no empty answers",
            (user("A"), assistant("", call("1")), result("1", "B"), user("C")),
            '<user>A<end><assistant>[look_up{"word": "sea"}]<end><tool>B<end><assistant>No answer.<end><user>C<end>',
        ),
        (
            "one call in a turn",
            (user("A"), assistant("B", call("1"), call("2", "sky")), result("2", "C"), result("1", "D")),
            '<user>A<end><assistant>B[look_up{"word": "sky"}]<end><tool>C<end>'
            '<assistant>[look_up{"word": "sea"}]<end><tool>D<end>',
        ),
        ("words of the user needed", (system("A"),), "<system>A<end><user><end>"),
        (
            "system with the last words of the user",
            (system("A"), user("B"), assistant("", call("1")), result("1", "C")),
            '<user>A\n\nB<end><assistant>[look_up{"word": "sea"}]<end><tool>C<end>',
        ),
    ],
)
def test_what_may_not_stand_where_it_does_is_written_there_in_another_way(
    template: Callable[[str], ChatTemplate], manner: str, messages: Sequence[Message], expected: str
) -> None:
    assert rendered(template(manner), *messages) == expected + "<assistant>"


def test_ids_of_calls_are_of_nine_characters_where_the_template_takes_no_others() -> None:
    capabilities = Capabilities(any_call_id=False)
    messages = [assistant("", call("call_1"), call("123456789")), result("call_1", "A"), result("123456789", "B")]
    turn, first, second = adapt_messages(messages, capabilities, lambda calls: "")
    assert [one.id for one in turn.tool_calls] == [first.tool_call_id, second.tool_call_id]
    assert second.tool_call_id == "123456789"
    assert len(first.tool_call_id or "") == 9
    assert (turn, first, second) == adapt_messages(messages, capabilities, lambda calls: "")


def test_a_result_without_an_id_belongs_to_the_next_call() -> None:
    messages = [assistant("", call("a"), call("b")), result(None, "1"), result("", "2")]
    turns = adapt_messages(messages, AS_SENT, lambda calls: "")
    assert [turn.tool_call_id for turn in turns[1:]] == ["a", "b"]


def test_a_final_message_is_continued_whatever_precedes_it(template: Callable[[str], ChatTemplate]) -> None:
    for manner in ("no system, roles alternate", "no empty answers", "takes everything"):
        for messages in ([], [system("A")], [user("A"), assistant("B")]):
            prompt = rendered(template(manner), *messages, assistant("Hel"), continue_final_message=True)
            assert prompt.endswith("Hel")
            assert all(message.content in prompt for message in messages)


PLAIN = '{"a": "x y", "b": 2}'


@pytest.mark.parametrize(
    ("parser", "source", "expected"),
    [
        (None, "", f'<tool_call>\n{{"name": "add", "arguments": {PLAIN}}}\n</tool_call>'),
        ("json_tools", "", f'<tool_call>\n{{"name": "add", "arguments": {PLAIN}}}\n</tool_call>'),
        (None, LLAMA, f'{{"name": "add", "parameters": {PLAIN}}}'),
        ("mistral", "[TOOL_CALLS]", f'[TOOL_CALLS][{{"name": "add", "arguments": {PLAIN}, "id": "abcdefghi"}}]'),
        ("mistral", "[ARGS]", f"[TOOL_CALLS]add[ARGS]{PLAIN}"),
        ("mistral", "[CALL_ID][ARGS]", f"[TOOL_CALLS]add[CALL_ID]abcdefghi[ARGS]{PLAIN}"),
        (
            "kimi_k2",
            "",
            "<|tool_calls_section_begin|><|tool_call_begin|>functions.add:0<|tool_call_argument_begin|>"
            f"{PLAIN}<|tool_call_end|><|tool_calls_section_end|>",
        ),
        ("pythonic", "", '<|tool_call_start|>[add(a="x y", b=2)]<|tool_call_end|>'),
    ],
)
def test_a_call_in_the_text_is_written_as_the_family_writes_it(parser: str | None, source: str, expected: str) -> None:
    assert write_calls([ToolCall(0, "abcdefghi", "add", PLAIN)], parser, call_format(parser, source)) == expected


# Arguments.

ARGUMENTS = [
    ("", "{}"),
    (" \n", "{}"),
    ("null", "{}"),
    ('{"a": 1, "a": 2}', '{"a": 2}'),
    ('"{\\"a\\": 1}"', '{"a": 1}'),
    ('{"a":', '{"INVALID_JSON": "{\\"a\\":"}'),
    ("[1]", '{"INVALID_JSON": "[1]"}'),
    ('"x"', '{"INVALID_JSON": "\\"x\\""}'),
    ("5", '{"INVALID_JSON": "5"}'),
    ("NaN", '{"INVALID_JSON": "NaN"}'),
    ("hello", '{"INVALID_JSON": "hello"}'),
    ('{"a": "\\ud83d"}', '{"a": "\ufffd"}'),
    ('{"\\ud83d": "\\ude00\\ud83d\\ude00"}', '{"\ufffd": "\ufffd😀"}'),
]


@pytest.mark.parametrize(("text", "expected"), ARGUMENTS)
@pytest.mark.parametrize("manner", ["takes everything", "arguments as text"])
def test_arguments_are_an_object_whatever_came(
    template: Callable[[str], ChatTemplate], manner: str, text: str, expected: str
) -> None:
    one = ToolCall(0, "a", "look_up", text)
    assert f"[look_up{expected}]" in rendered(template(manner), user("A"), assistant("", one), result("a", "B"))


@pytest.mark.parametrize("manner", TEMPLATES)
@pytest.mark.parametrize(
    "text",
    [
        *(text for text, _ in ARGUMENTS),
        '{"a": ' * 5000 + "1" + "}" * 5000,
        '{"a": ' + "[" * 300 + "]" * 300 + "}",
        "[" * 100_000,
        '{"a": ' + "9" * 5000 + "}",
        '{"a": -' + "9" * 4400 + ".5}",
        '{"a": [1, {"b": NaN, "c": -Infinity, "d": 1e999}]}',
        '{"": null, " ": [], "\\u0000": {}}',
        "\ud83d",
    ],
)
def test_no_arguments_end_a_conversation(template: Callable[[str], ChatTemplate], manner: str, text: str) -> None:
    one = ToolCall(0, "a", "look_up", text)
    rendered(template(manner), user("A"), assistant("", one), result("a", "B")).encode()


@settings(max_examples=100, deadline=None)
@given(text=st.text(st.characters(codec=None), max_size=60) | st.text('{}[]":,\\ud8a1 ', max_size=40))
def test_whatever_stands_in_a_conversation_can_be_tokenized(template: Callable[[str], ChatTemplate], text: str) -> None:
    one = ToolCall(0, text, text, text)
    tool = {"type": "function", "function": {"name": text, "description": text, "parameters": {text: text}}}
    messages = (system(text), user(text), assistant(text, one, thought=text), result(text, text))
    for manner in (
        "takes everything",
        "roles alternate around tools",
        "no system, roles alternate",
        "arguments walked",
    ):
        rendered(template(manner), *messages, tools=(tool,), template_kwargs={"words": text}).encode()


# Tools.


def function(**more: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": "now"} | more}


WHOLE = {"type": "object", "properties": {"word": {"type": "string"}}, "required": ["word"]}
BARE = [
    function(),
    function(description="x"),
    function(parameters=None),
    function(parameters={}),
    function(parameters={"type": "object"}),
    function(parameters={"type": "object", "properties": None}),
    function(parameters={"type": "object", "properties": {}, "required": None}),
    function(parameters={"properties": {"a": {}, "b": {"type": None}, "c": True}}),
    function(parameters={"properties": []}),
]


@pytest.mark.parametrize("tool", BARE)
def test_tools_without_parameters_are_taken(template: Callable[[str], ChatTemplate], tool: dict[str, Any]) -> None:
    one = template("arguments walked")
    for tools in ((tool,), (TOOL, tool)):
        first = rendered(one, user("A"), tools=tools)
        assert "{now" in first
        assert rendered(one, user("A"), tools=tools) == first


def test_tools_that_the_template_takes_are_written_as_they_came(template: Callable[[str], ChatTemplate]) -> None:
    one = template("{{- tools | tojson -}}" + TEMPLATES["takes everything"])
    for tool in (*BARE, function(parameters=WHOLE)):
        assert rendered(one, user("A"), tools=(tool,)).startswith(json.dumps([tool]))


def test_only_what_is_missing_is_added_to_a_tool(template: Callable[[str], ChatTemplate]) -> None:
    one = template("{{- tools[0].function.parameters.properties.items() | list | length -}}{{- tools | tojson -}}")
    added = function(parameters={"type": "object", "properties": {}})
    for tool in (function(), function(parameters=None), function(parameters={"required": None})):
        assert rendered(one, user("A"), tools=(tool,)) == "0" + json.dumps([added])
    assert rendered(one, user("A"), tools=(TOOL,)) == "1" + json.dumps([TOOL])
    strict = "{%- for tool in tools -%}{{- '' + tool.function.description -}}{%- endfor -%}{{- tools | tojson -}}"
    assert '"description": ""' in rendered(template(strict), user("A"), tools=(function(),))


_TYPES = """\
{%- macro spelled(schema) -%}
{%- if schema.type == "array" -%}{{- "list of " + spelled(schema["items"]) -}}
{%- elif schema.type == "object" -%}{{- "map of " + spelled(schema.additionalProperties) -}}
{%- elif schema.type in ["string", "number", "integer", "boolean"] -%}{{- schema.type -}}
{%- else -%}{{- spelled({"type": schema.type}) -}}{%- endif -%}
{%- endmacro -%}
{%- for tool in tools -%}{%- for name, schema in tool.function.parameters.properties.items() -%}
{{- name + ": " + spelled(schema) + " " + schema.description.strip() + "," -}}
{%- endfor -%}{%- endfor -%}
"""


@pytest.mark.parametrize(
    ("schema", "spelled"),
    [
        ({"type": ["null", "integer"], "description": "x"}, "a: integer x,"),
        ({"type": "any"}, "a: string ,"),
        ({"type": "object", "properties": {"b": {"type": ["string", "null"]}}}, "a: map of string ,"),
        ({"type": "array", "items": {"type": ["object", "array"]}, "description": 5}, "a: list of map of string 5,"),
        ({"type": "array", "items": True}, "a: list of string ,"),
        ({"type": []}, "a: string ,"),
        ({"$ref": "#/$defs/A"}, "a: string ,"),
    ],
)
def test_types_that_a_template_cannot_spell_become_plain_ones(
    template: Callable[[str], ChatTemplate], schema: Any, spelled: str
) -> None:
    one = template(_TYPES + TEMPLATES["takes everything"])
    tool = function(parameters={"type": "object", "properties": {"a": schema}, "required": None})
    assert rendered(one, user("A"), tools=(tool,)).startswith(spelled)


def test_a_template_that_walks_a_list_of_tools_is_given_one(template: Callable[[str], ChatTemplate]) -> None:
    one = template("{%- for tool in tools -%}{{- tool.function.name -}}{%- endfor -%}" + TEMPLATES["takes everything"])
    assert rendered(one, user("A")) == "<user>A<end><assistant>"


# Templates that are broken.


@pytest.mark.parametrize("source", ["{{- raise_exception('never') -}}", "{{- 1 // 0 -}}", "{{- messages.nothing() -}}"])
def test_a_template_that_takes_nothing_says_why(template: Callable[[str], ChatTemplate], source: str) -> None:
    one = template(source)
    assert one.capabilities[True].order == EVERY_ORDER
    with pytest.raises(InvalidRequest, match="chat template refuses this conversation: "):
        rendered(one, user("A"), tools=(TOOL,))
