"""Tools and pieces of conversations of kinds that are not ours: no session ends of one, and what is text is read."""

import json
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from anthropic.types.beta.beta_content_block_param import BetaContentBlockParam
from anthropic.types.beta.beta_tool_union_param import BetaToolUnionParam
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types.chat.chat_completion_tool_union_param import ChatCompletionToolUnionParam
from openai.types.responses.response_input_param import ResponseInputItemParam
from openai.types.responses.tool_param import ToolParam

import app.services.generation as gen
from app.dto.anthropic.messages import MessagesRequest
from app.dto.openai.chat import ChatRequest
from app.dto.openai.chat_reply import ChatCompletion, ChatStream
from app.dto.openai.responses import ResponsesRequest
from app.dto.openai.responses_items import InputItem
from app.dto.openai.responses_stored import StoredResponse
from app.dto.openai.responses_stream import ResponseStream
from app.dto.shared.base import RequestBody, RequestLimits
from app.services.errors import InvalidRequest
from tests.scripted import answer
from tests.sdk_values import ANYTHING, kind, members, values

pytestmark = pytest.mark.slow

USER = {"role": "user", "content": "Hi"}
SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}}
NOVEL = st.fixed_dictionaries(
    {"type": st.sampled_from(["hologram", "web_search_2031_01_01", "wéird kind", "x" * 200])},
    optional=dict.fromkeys(("name", "id", "call_id", "content", "text", "output", "input", "source"), ANYTHING),
)
IMAGES: list[dict[str, Any]] = [
    {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}},
    {"type": "image", "source": {"type": "url", "url": "https://tiles.example/a.png"}},
    {"type": "image", "source": {"type": "file", "file_id": "f"}},
    {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "AAAA"}},
    {"type": "input_image", "image_url": "data:image/png;base64,AAAA", "detail": "auto"},
    {"type": "input_image", "file_id": "f"},
    {"type": "input_file", "file_data": "AAAA", "filename": "a.pdf"},
    {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
    {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
    {"type": "file", "file": {"file_id": "f"}},
]


def chat(**more: Any) -> ChatRequest:
    return ChatRequest.model_validate({"messages": [USER]} | more)


def responses(**more: Any) -> ResponsesRequest:
    return ResponsesRequest.model_validate({"input": "Hi"} | more)


def messages(**more: Any) -> MessagesRequest:
    return MessagesRequest.model_validate({"messages": [USER]} | more)


def said(body: Any, *earlier: Any) -> list[tuple[str, str]]:
    """Who says what in a conversation; calls are said by their names."""
    return [
        (message.role, message.content or " ".join(call.name for call in message.tool_calls))
        for message in body.to_generation(RequestLimits(), *earlier).messages
    ]


def named(body: RequestBody) -> list[str]:
    return body.ignored.split(", ") if body.ignored else []


def names(body: Any) -> list[str]:
    return [tool["function"]["name"] for tool in body.to_generation(RequestLimits()).tools]


# Tools.

FUNCTION: dict[Any, dict[str, Any]] = {
    chat: {"type": "function", "function": {"name": "mine", "parameters": SCHEMA}},
    responses: {"type": "function", "name": "mine", "parameters": SCHEMA},
    messages: {"name": "mine", "input_schema": SCHEMA},
}
dialects = pytest.mark.parametrize("dialect", [chat, responses, messages])
KINDS = [
    *((chat, member) for member in members(ChatCompletionToolUnionParam)),
    *((responses, member) for member in members(ToolParam)),
    *((messages, member) for member in members(BetaToolUnionParam)),
]


@pytest.mark.parametrize(("dialect", "member"), KINDS, ids=lambda value: getattr(value, "__name__", None))
@settings(max_examples=10, deadline=None)
@given(st.data())
def test_a_tool_of_any_kind_of_the_packages_leaves_the_others_to_be_called(
    dialect: Callable[..., Any], member: Any, data: st.DataObject
) -> None:
    tool = data.draw(values(member))
    body = dialect(tools=[tool, FUNCTION[dialect]])
    assert names(body)[-1] == "mine"
    left_out = kind(member) not in {"function", "custom", "namespace", ""}
    assert (f"tools.{tool['type']}" in named(body)) == left_out if "type" in tool else not left_out
    assert len(names(body)) == 1 or not left_out


@dialects
@settings(max_examples=30, deadline=None)
@given(NOVEL)
def test_a_tool_of_a_kind_that_nobody_knows_is_left_out_and_named(
    dialect: Callable[..., Any], tool: dict[str, Any]
) -> None:
    body = dialect(tools=[tool, FUNCTION[dialect]])
    assert names(body) == ["mine"]
    assert len(named(body)) == 1 and named(body)[0].startswith("tools.")


WANTED: list[tuple[Any, Any]] = [
    (chat, "required"),
    (chat, {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [{"type": "web_search"}]}}),
    *((responses, {"type": kind}) for kind in ("web_search", "file_search", "shell", "image_generation")),
    (responses, {"type": "mcp", "server_label": "x"}),
    (responses, "required"),
    (responses, {"type": "allowed_tools", "mode": "required", "tools": [{"type": "web_search"}]}),
    (messages, {"type": "any"}),
    (messages, {"type": "tool", "name": "web_search"}),
]


@pytest.mark.parametrize(("dialect", "choice"), WANTED)
def test_only_a_choice_that_wants_a_tool_that_is_left_out_is_refused(dialect: Callable[..., Any], choice: Any) -> None:
    tools = [{"type": "web_search", "name": "web_search"}]
    with pytest.raises(InvalidRequest) as refusal:
        dialect(tools=tools, tool_choice=choice).to_generation(RequestLimits())
    assert refusal.value.param == "tool_choice"
    assert names(dialect(tools=tools)) == []


def test_tools_that_are_left_out_do_not_count_among_those_that_are_allowed() -> None:
    tools = [FUNCTION[responses], {"type": "web_search"}]
    search, mine = {"type": "web_search"}, {"type": "function", "name": "mine"}

    def choice(*allowed: Any, mode: str = "auto") -> gen.ToolChoice:
        asked = {"type": "allowed_tools", "mode": mode, "tools": list(allowed)}
        return responses(tools=tools, tool_choice=asked).to_generation(RequestLimits()).tool_choice

    assert choice(search, mine, mode="required") == gen.ToolChoice("required", ("mine",))
    assert choice(search).mode == "none"
    with pytest.raises(InvalidRequest):
        choice(search, mode="required")


# Namespaces and custom tools.

SPACE = {
    "type": "namespace",
    "name": "crm",
    "description": "Customers",
    "tools": [
        {"type": "web_search"},
        {"type": "function", "name": "find", "description": "Finds", "parameters": SCHEMA, "strict": True},
        {"type": "custom", "name": "note"},
    ],
}
PATCH = {
    "type": "custom",
    "name": "patch",
    "description": "Patches",
    "format": {"type": "grammar", "syntax": "lark", "definition": "start: /.+/"},
}


def test_a_namespace_is_flattened() -> None:
    body = responses(tools=[FUNCTION[responses], SPACE])
    asked = body.to_generation(RequestLimits())
    assert names(body) == ["mine", "crm__find", "crm__note"]
    assert asked.tools[1]["function"]["description"] == "Customers\n\nFinds"
    assert asked.tool_choice == gen.ToolChoice(strict=frozenset({"crm__find"}), param="tools.1.tools.1.strict")
    assert named(body) == ["tools.tools.web_search"]
    slashed = SPACE | {"name": "mcp__crm__"}
    assert names(responses(tools=[slashed])) == ["mcp__crm__find", "mcp__crm__note"]


@pytest.mark.parametrize(
    ("choice", "called"),
    [
        ({"type": "function", "name": "find", "namespace": "crm"}, ("crm__find",)),
        ({"type": "function", "name": "find"}, ("crm__find",)),
        ({"type": "function", "name": "crm__find"}, ("crm__find",)),
        ({"type": "custom", "name": "note"}, ("crm__note",)),
        ({"type": "allowed_tools", "mode": "auto", "tools": [{"type": "namespace", "name": "crm"}]}, None),
    ],
)
def test_a_tool_of_a_namespace_can_be_chosen(choice: dict[str, Any], called: tuple[str, ...] | None) -> None:
    asked = responses(tools=[FUNCTION[responses], SPACE], tool_choice=choice).to_generation(RequestLimits())
    assert asked.tool_choice.names == (called or ("crm__find", "crm__note"))


def fed(body: ResponsesRequest, events: list[gen.Event]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    stream = ResponseStream(body)
    told = [msgspec.to_builtins(reply) for event in events for reply in stream.feed(event)]
    return told, msgspec.to_builtins(stream.response)


def test_a_call_of_a_namespace_is_told_by_the_names_that_the_client_knows() -> None:
    told, whole = fed(responses(tools=[SPACE]), answer(gen.ToolCall(0, "call_1", "crm__find", '{"a": "b"}')))
    (item,) = whole["output"]
    assert (item["type"], item["namespace"], item["name"]) == ("function_call", "crm", "find")
    items = [event["item"] for event in told if "item" in event]
    assert all((item["namespace"], item["name"]) == ("crm", "find") for item in items)
    again = responses(
        tools=[SPACE], input=[USER, item, {"type": "function_call_output", "call_id": "call_1", "output": ""}]
    )
    assert said(again) == [("user", "Hi"), ("assistant", "crm__find"), ("tool", "")]
    assert whole["tools"][0]["tools"][0] == {"type": "web_search"}


def test_many_tools_and_items_are_gone_through_once() -> None:
    space = SPACE | {
        "tools": [{"type": "web_search"}] * 4000 + [FUNCTION[responses] | {"name": f"f{i}"} for i in range(4000)]
    }
    choice = {"type": "allowed_tools", "tools": [{"type": "function", "name": f"f{i}"} for i in range(4000)]}
    thoughts = [{"type": "message", "role": "assistant", "content": "a"}] * 4000
    body = responses(tools=[space], tool_choice=choice, input=[*thoughts, USER])
    asked = body.to_generation(RequestLimits(messages=5000))
    assert len(asked.tool_choice.names) == 4000
    assert asked.messages[0].content == "\n".join("a" * 4000)


TEXTS = st.text(st.one_of(st.sampled_from('"\\/\n\t\u2028😀e'), st.characters(exclude_categories=["Cs"])), max_size=20)


@settings(max_examples=100, deadline=None)
@given(TEXTS, st.booleans(), st.lists(st.integers(0, 60), max_size=5), st.sampled_from(["", " ", "\n "]))
def test_the_text_of_a_custom_tool_comes_in_pieces_and_whole(
    text: str, ascii_only: bool, cuts: list[int], space: str
) -> None:
    arguments = f"{space}{{{space}" + json.dumps({"input": text}, ensure_ascii=ascii_only)[1:]
    places = sorted({0, len(arguments), *(min(cut, len(arguments)) for cut in cuts)})
    pieces = [arguments[a:b] for a, b in pairwise(places)]
    call = gen.ToolCall(0, "call_1", "patch", "")
    told, whole = fed(
        responses(tools=[PATCH]), answer("Well.", call, *(gen.ToolArguments(0, piece) for piece in pieces), "Done.")
    )
    kinds = [event["type"].removeprefix("response.") for event in told]
    deltas = [event["delta"] for event in told if event["type"] == "response.custom_tool_call_input.delta"]
    assert "".join(deltas) == text and all(deltas)
    (done,) = [event for event in told if event["type"] == "response.custom_tool_call_input.done"]
    item = whole["output"][1]
    assert done["input"] == item["input"] == text
    assert (item["type"], item["call_id"], item["name"], item["status"]) == (
        *("custom_tool_call", "call_1", "patch"),
        "completed",
    )
    assert kinds.index("custom_tool_call_input.done") < kinds.index(
        "output_item.done", kinds.index("output_item.done") + 1
    )
    back = [USER, item, {"type": "custom_tool_call_output", "call_id": "call_1", "output": "ok"}]
    conversation = responses(input=back).to_generation(RequestLimits()).messages
    assert conversation[1].tool_calls[0].values == {"input": text}
    assert conversation[2] == gen.Message("tool", "ok", tool_call_id="call_1")


@pytest.mark.parametrize(
    ("arguments", "text", "status"),
    [
        ('{"patch": "a"}', "a", "completed"),
        ('{"why": "b", "input": "a"}', "a", "completed"),
        ('{"input": "a", "input": "b"}', "a", "completed"),
        ('{"input": 5}', '{"input": 5}', "completed"),
        ("{}", "{}", "completed"),
        ('{"input": "a\\ud83d b"}', "a\ufffd b", "completed"),
        ('{"input": "a\nb"}', "a\nb", "incomplete"),
        ('{"input": "a\\n', "a\n", "incomplete"),
        ('{"input": "a\\ud83d', "a", "incomplete"),
        ('{"inp', '{"inp', "incomplete"),
    ],
)
def test_what_a_model_writes_otherwise_is_understood_as_far_as_it_goes(arguments: str, text: str, status: str) -> None:
    call = gen.ToolCall(0, "call_1", "patch", "")
    told, whole = fed(responses(tools=[PATCH]), answer(call, *(gen.ToolArguments(0, piece) for piece in arguments)))
    assert (whole["output"][0]["input"], whole["output"][0]["status"]) == (text, status)
    assert "".join(event["delta"] for event in told if event["type"].endswith("input.delta")) == text


def test_a_custom_tool_is_a_function_of_one_string_that_shows_its_grammar() -> None:
    body = responses(tools=[PATCH])
    (tool,) = body.to_generation(RequestLimits()).tools
    parameters = tool["function"]["parameters"]
    assert parameters["required"] == ["input"]
    assert "start: /.+/" in parameters["properties"]["input"]["description"]
    assert named(body) == ["tools.format.grammar"]
    assert named(responses(tools=[PATCH | {"format": {"type": "text"}}])) == []
    assert fed(body, answer("a"))[1]["tools"] == [PATCH]


CHAT_PATCH = {
    "type": "custom",
    "custom": {
        "name": "patch",
        "format": {"type": "grammar", "grammar": {"syntax": "lark", "definition": "start: /.+/"}},
    },
}


def test_chat_calls_custom_tools_too() -> None:
    body = chat(tools=[CHAT_PATCH, FUNCTION[chat]])
    assert names(body) == ["patch", "mine"]
    assert "start: /.+/" in json.dumps(body.to_generation(RequestLimits()).tools[0])
    events = answer(
        *(gen.ToolCall(0, "call_1", "patch", '{"inp'), gen.ToolArguments(0, 'ut": "a\\n'), gen.ToolArguments(0, 'b"}')),
        *(gen.ToolCall(1, "call_2", "mine", ""), gen.ToolArguments(1, "{}")),
    )
    stream = ChatStream(body)
    deltas = [
        call
        for event in events
        for chunk in stream.feed(event)
        for choice in msgspec.to_builtins(chunk)["choices"]
        for call in choice["delta"].get("tool_calls", [])
    ]
    assert deltas[0] == {"index": 0, "id": "call_1", "type": "custom", "custom": {"name": "patch", "input": ""}}
    assert "".join(delta["custom"]["input"] for delta in deltas if "custom" in delta) == "a\nb"
    assert deltas[-1] == {"index": 1, "function": {"arguments": "{}"}}
    completion = gen.Completion()
    for event in events:
        completion.add(event)
    message = msgspec.to_builtins(ChatCompletion.of([completion], body.custom_tools))["choices"][0]["message"]
    assert message["tool_calls"] == [
        {"id": "call_1", "type": "custom", "custom": {"name": "patch", "input": "a\nb"}},
        {"id": "call_2", "type": "function", "function": {"name": "mine", "arguments": "{}"}},
    ]
    results = [{"role": "tool", "tool_call_id": call["id"], "content": "ok"} for call in message["tool_calls"]]
    back = chat(messages=[USER, message, *results]).to_generation(RequestLimits()).messages
    assert back[1].tool_calls[0].values == {"input": "a\nb"}


# Items and blocks of conversations.

ITEMS = members(ResponseInputItemParam)
BLOCKS = members(BetaContentBlockParam)
RIGHTLY = ("reads text only", "not found", "does not belong here", "needs 'call_id'")


@pytest.mark.parametrize("member", ITEMS, ids=lambda member: member.__name__)
@settings(max_examples=20, deadline=None)
@given(st.data())
def test_an_item_of_any_kind_of_the_package_lets_the_conversation_go_on(member: Any, data: st.DataObject) -> None:
    item = data.draw(values(member))
    body = responses(input=[USER, item, USER])
    try:
        assert said(body)[-1] == ("user", "Hi")
    except InvalidRequest as error:
        assert any(words in error.message for words in RIGHTLY)
        return
    again = StoredResponse.read(StoredResponse.of([], body.items, ResponseStream(body).response).encode())
    assert again is not None
    assert said(body, again.conversation()) == [*said(body), *said(body)]


@settings(max_examples=100, deadline=None)
@given(st.lists(NOVEL, max_size=3))
def test_items_that_nobody_knows_let_the_conversation_go_on(items: list[dict[str, Any]]) -> None:
    body = responses(input=[USER, *items, USER])
    assert said(body)[-1] == ("user", "Hi")
    assert all(name.startswith("input.") for name in named(body))


@pytest.mark.parametrize("member", BLOCKS, ids=lambda member: member.__name__)
@pytest.mark.parametrize("role", ["user", "assistant"])
@settings(max_examples=15, deadline=None)
@given(st.data())
def test_a_block_of_any_kind_of_the_package_lets_the_conversation_go_on(
    role: str, member: Any, data: st.DataObject
) -> None:
    block = data.draw(values(member))
    body = messages(messages=[USER, {"role": role, "content": [{"type": "text", "text": "a"}, block]}, USER])
    try:
        assert said(body)[-1] == ("user", "Hi")
    except InvalidRequest as error:
        assert role == "user" and any(words in error.message for words in RIGHTLY)


@settings(max_examples=100, deadline=None)
@given(st.lists(NOVEL, max_size=3), st.sampled_from(["user", "assistant"]))
def test_blocks_that_nobody_knows_let_the_conversation_go_on(blocks: list[dict[str, Any]], role: str) -> None:
    assert said(messages(messages=[USER, {"role": role, "content": blocks}, USER]))[-1] == ("user", "Hi")
    parts = {"messages": [USER, {"role": role, "content": blocks}, USER]}
    assert said(chat(**parts))[-1] == ("user", "Hi")


READ: list[tuple[dict[str, Any], list[tuple[str, str]], list[str]]] = [
    (
        {"type": "local_shell_call", "id": "i", "call_id": "c", "status": "completed", "action": {"command": ["ls"]}},
        [("assistant", "local_shell")],
        [],
    ),
    (
        {"type": "shell_call_output", "call_id": "c", "output": [{"stdout": "a", "stderr": ""}]},
        [("tool", "stdout: a")],
        [],
    ),
    ({"type": "apply_patch_call_output", "call_id": "c", "status": "failed", "output": "no"}, [("tool", "no")], []),
    (
        {"type": "mcp_call", "id": "m", "name": "find", "server_label": "crm", "arguments": "{}", "output": "Ada"},
        [("assistant", "crm__find"), ("tool", "Ada")],
        [],
    ),
    (
        {
            "type": "code_interpreter_call",
            "id": "x",
            "code": "1",
            "container_id": "k",
            "outputs": [{"type": "logs", "logs": "1"}, {"type": "image", "url": "u"}],
        },
        [("assistant", "code_interpreter"), ("tool", "1\n[images left out: this model reads text only]")],
        ["input.code_interpreter_call.image"],
    ),
    (
        {
            "type": "file_search_call",
            "id": "f",
            "queries": ["q"],
            "results": [{"file_id": "1", "filename": "a.md", "text": "b"}],
        },
        [("assistant", "file_search"), ("tool", "filename: a.md\ntext: b")],
        [],
    ),
    (
        {"type": "computer_call_output", "call_id": "c", "output": {"type": "computer_screenshot", "image_url": "u"}},
        [("tool", "[screenshots left out: this model reads text only]")],
        ["input.computer_call_output.computer_screenshot"],
    ),
    ({"type": "web_search_call", "id": "w", "action": {"type": "search", "query": "q"}}, [], ["input.web_search_call"]),
    ({"type": "image_generation_call", "id": "g", "result": "AAAA"}, [], ["input.image_generation_call"]),
    ({"type": "compaction", "encrypted_content": "AAAA"}, [], ["input.compaction"]),
    ({"type": "item_reference", "id": "rs_1"}, [], ["input.item_reference"]),
    ({"type": "novel_note", "content": [{"type": "output_text", "text": "So"}]}, [("assistant", "So")], []),
]


@pytest.mark.parametrize(
    ("item", "expected", "left_out"), READ, ids=lambda value: value["type"] if isinstance(value, dict) else ""
)
def test_what_an_item_says_is_read_and_what_it_does_not_say_is_named(
    item: dict[str, Any], expected: list[tuple[str, str]], left_out: list[str]
) -> None:
    body = responses(input=[USER, item, USER])
    assert said(body)[1:-1] == expected
    assert named(body) == left_out


def test_nothing_but_an_id_is_a_reference() -> None:
    for reference in ({"id": "msg_1"}, {"id": "msg_1", "type": None}, {"type": "item_reference", "id": "msg_1"}):
        with pytest.raises(InvalidRequest) as refusal:
            said(responses(input=[reference]))
        assert refusal.value.code == "item_not_found"


@pytest.mark.parametrize("image", IMAGES, ids=lambda image: image["type"])
def test_images_in_what_a_tool_gives_back_become_a_sentence(image: dict[str, Any]) -> None:
    text = {"type": "text", "text": "a"}
    result = {"type": "tool_result", "tool_use_id": "c", "content": [text, image]}
    used = {"type": "tool_use", "id": "c", "name": "look", "input": {}}
    made = {"type": "function_call", "call_id": "c", "name": "look", "arguments": "{}"}
    call = {"id": "c", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    bodies = {
        "messages.content.content.": messages(
            messages=[USER, {"role": "assistant", "content": [used]}, {"role": "user", "content": [result]}]
        ),
        "input.output.": responses(
            input=[USER, made, {"type": "function_call_output", "call_id": "c", "output": [text, image]}]
        ),
        "messages.content.": chat(
            messages=[
                *(USER, {"role": "assistant", "tool_calls": [call]}),
                {"role": "tool", "tool_call_id": "c", "content": [text, image]},
            ]
        ),
    }
    for path, body in bodies.items():
        role, words = said(body)[-1]
        assert role == "tool" and words.startswith("a\n[") and "reads text only" in words
        assert named(body) == [f"{path}{image['type']}"]


SHOWN = ("image", "input_image", "image_url")


@pytest.mark.parametrize("image", [image for image in IMAGES if image["type"] not in SHOWN], ids=lambda it: it["type"])
def test_other_media_among_the_users_own_words_are_refused(image: dict[str, Any]) -> None:
    turn = [{"role": "user", "content": [image]}]
    for body in (messages(messages=turn), responses(input=turn), chat(messages=turn)):
        with pytest.raises(InvalidRequest) as refusal:
            said(body)
        assert "reads text only" in refusal.value.message
        assert (refusal.value.param or "").endswith(".0.content.0")


@pytest.mark.parametrize("image", [image for image in IMAGES if image["type"] in SHOWN], ids=lambda it: it["type"])
def test_images_among_the_users_own_words_are_for_the_model_to_see_or_refuse(image: dict[str, Any]) -> None:
    turn = [{"role": "user", "content": [image]}]
    for body in (messages(messages=turn), responses(input=turn), chat(messages=turn)):
        (shown,) = body.to_generation(RequestLimits()).messages[-1].images
        assert shown.is_required
        assert shown.param.endswith(".0.content.0")
        assert shown.source == image.get("source", {}).get("data", shown.source)


@pytest.mark.parametrize(
    ("block", "text"),
    [
        ({"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "Oslo"}}, "Oslo"),
        (
            {"type": "document", "title": "T", "context": "C", "source": {"type": "content", "content": "Oslo"}},
            "T\nC\nOslo",
        ),
        (
            {"type": "document", "source": {"type": "content", "content": [{"type": "text", "text": "Oslo"}]}},
            "Oslo",
        ),
        (
            {"type": "search_result", "title": "T", "source": "S", "content": [{"type": "text", "text": "Oslo"}]},
            "title: T\nsource: S\ncontent: Oslo",
        ),
        ({"type": "compaction", "content": "So far: Oslo", "encrypted_content": "AAAA"}, "So far: Oslo"),
    ],
)
def test_what_is_text_is_taken_whatever_it_is_called(block: dict[str, Any], text: str) -> None:
    result = {"type": "tool_result", "tool_use_id": "c", "content": [block]}
    assert said(messages(messages=[{"role": "user", "content": [block]}])) == [("user", text)]
    assert said(messages(messages=[{"role": "user", "content": [result]}])) == [("tool", text)]
    assert said(messages(messages=[{"role": "assistant", "content": [block]}, USER]))[0] == ("assistant", text)
    assert named(messages(messages=[{"role": "user", "content": [block]}])) == []


def test_what_a_server_looked_up_stands_between_the_words_that_were_said_of_it() -> None:
    content = [
        {"type": "text", "text": "Let me see."},
        {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {"query": "Oslo"}},
        {
            "type": "web_search_tool_result",
            "tool_use_id": "s",
            "content": [{"type": "web_search_result", "title": "Oslo", "url": "u", "encrypted_content": "AAAA"}],
        },
        {"type": "text", "text": "It is in Norway."},
    ]
    body = messages(messages=[USER, {"role": "assistant", "content": content}, USER])
    conversation = body.to_generation(RequestLimits()).messages
    call = gen.ToolCall(0, "s", "web_search", '{"query": "Oslo"}')
    assert conversation[1:-1] == (
        gen.Message("assistant", "Let me see.", tool_calls=(call,)),
        gen.Message("tool", "title: Oslo\nurl: u", tool_call_id="s"),
        gen.Message("assistant", "It is in Norway."),
    )
    assert named(body) == []


@pytest.mark.parametrize(
    "block", [{"type": "container_upload", "file_id": "f"}, {"type": "redacted_thinking", "data": "x"}]
)
def test_a_block_that_says_nothing_is_left_out_and_named(block: dict[str, Any]) -> None:
    body = messages(messages=[{"role": "user", "content": [{"type": "text", "text": "a"}, block]}])
    assert said(body) == [("user", "a")]
    assert named(body) == [f"messages.content.{block['type']}"]


def test_stored_items_of_other_kinds_come_back_as_they_were() -> None:
    item = {"type": "mcp_call", "id": "m", "name": "find", "arguments": "{}", "output": "Ada", "error": None}
    assert InputItem.model_validate(item).to_stored() == {name: item[name] for name in item if name != "error"}
