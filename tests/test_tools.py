"""Tools over HTTP on a model of random weights, which calls nothing unless a grammar has it do so."""

import json
from datetime import date
from typing import Any

import jsonschema
import pytest

from tests.conftest import Server, events
from tests.tools import CHAT_TOOLS, MESSAGES_TOOLS, NAMES, RESPONSES_TOOLS, SCHEMA, pieced

ASK = [{"role": "user", "content": "Hi"}]
HOT: dict[str, Any] = {"temperature": 1.5, "top_p": 1}
SILENT: dict[str, Any] = {"chat_template_kwargs": {"enable_thinking": False}}


def chat(server: Server, **more: Any) -> dict[str, Any]:
    body = {"messages": ASK, "tools": CHAT_TOOLS, "max_tokens": 400} | SILENT | HOT | more
    answer = server.client.post("/v1/chat/completions", json=body)
    assert answer.status_code == 200, answer.text
    choice: dict[str, Any] = answer.json()["choices"][0]
    return choice


def calls(choice: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    assert choice["message"]["content"] == ""
    return [
        (call["function"]["name"], json.loads(call["function"]["arguments"]))
        for call in choice["message"]["tool_calls"]
    ]


@pytest.mark.parametrize("thinking", [False, True])
def test_required_calls_come_whole_and_streamed_alike(server: Server, thinking: bool) -> None:
    more: dict[str, Any] = {"chat_template_kwargs": {"enable_thinking": thinking}, "thinking_budget_tokens": 5}
    for seed in (1, 2):
        choice = chat(server, tool_choice="required", seed=seed, parallel_tool_calls=False, **more)
        assert choice["finish_reason"] == "tool_calls"
        assert ("reasoning_content" in choice["message"]) == thinking
        ((name, arguments),) = calls(choice)
        assert name in NAMES
        jsonschema.validate(arguments, SCHEMA)
        body = {"messages": ASK, "tools": CHAT_TOOLS, "max_tokens": 400, "stream": True} | HOT | more
        body |= {"tool_choice": "required", "seed": seed, "parallel_tool_calls": False}
        chunks = events(server.client.post("/v1/chat/completions", json=body).text)
        assert pieced(chunks) == [(name, choice["message"]["tool_calls"][0]["function"]["arguments"])]
        assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"


def test_a_named_tool_is_called_and_no_other(server: Server) -> None:
    named = {"type": "function", "function": {"name": "get_time"}}
    for seed in (3, 4, 5):
        ((name, arguments),) = calls(chat(server, tool_choice=named, seed=seed))
        assert name == "get_time"
        jsonschema.validate(arguments, SCHEMA)


def test_one_call_ends_the_answer_and_says_so(server: Server) -> None:
    body = {"messages": ASK, "tools": CHAT_TOOLS, "max_tokens": 400, "tool_choice": "required", "seed": 1}
    body |= SILENT | HOT
    whole = server.client.post("/v1/chat/completions", json=body | {"parallel_tool_calls": False}).json()
    assert whole["tiles"]["finish"] == "tool_call"
    assert len(whole["choices"][0]["message"]["tool_calls"]) == 1


def test_a_cut_call_is_told_as_far_as_it_came(server: Server) -> None:
    body = {"messages": ASK, "tools": CHAT_TOOLS, "tool_choice": "required", "seed": 1, "parallel_tool_calls": False}
    body |= SILENT | HOT
    whole = server.client.post("/v1/chat/completions", json=body).json()
    body["max_tokens"] = whole["usage"]["completion_tokens"] - 1
    (choice,) = server.client.post("/v1/chat/completions", json=body).json()["choices"]
    assert choice["finish_reason"] == "length"
    arguments = choice["message"]["tool_calls"][0]["function"]["arguments"]
    assert whole["choices"][0]["message"]["tool_calls"][0]["function"]["arguments"].startswith(arguments)
    with pytest.raises(ValueError):
        json.loads(arguments)


def test_several_answers_call_side_by_side(server: Server) -> None:
    body = (
        {"messages": ASK, "tools": CHAT_TOOLS, "max_tokens": 400, "tool_choice": "required", "n": 3, "seed": 1}
        | SILENT
        | HOT
    )
    answer = server.client.post("/v1/chat/completions", json=body | {"parallel_tool_calls": False}).json()
    said = [calls(choice)[0] for choice in answer["choices"]]
    assert len({json.dumps(one) for one in said}) > 1
    for _, arguments in said:
        jsonschema.validate(arguments, SCHEMA)


def test_an_answer_of_a_schema_goes_with_tools(server: Server) -> None:
    wanted = {"type": "json_schema", "json_schema": {"schema": {"enum": ["yes", "no"]}}}
    seen = set()
    for seed in range(8):
        tools = [{"type": "function", "function": CHAT_TOOLS[0]["function"] | {"strict": True}}]
        choice = chat(server, tools=tools, response_format=wanted, seed=seed, parallel_tool_calls=False)
        if "tool_calls" in choice["message"]:
            jsonschema.validate(calls(choice)[0][1], SCHEMA)
        else:
            assert choice["message"]["content"] in ('"yes"', '"no"')
        seen.add("tool_calls" in choice["message"])
    assert False in seen


def test_responses_call_what_is_required(server: Server) -> None:
    body = {"input": "Hi", "tools": RESPONSES_TOOLS, "max_output_tokens": 400, "store": False, "seed": 2} | HOT
    body["reasoning"] = {"effort": "none"}
    named = {"type": "function", "name": "get_time"}
    whole = server.client.post("/v1/responses", json=body | {"tool_choice": named}).json()
    (call,) = whole["output"]
    assert (call["type"], call["name"], call["status"]) == ("function_call", "get_time", "completed")
    jsonschema.validate(json.loads(call["arguments"]), SCHEMA)
    assert (whole["tool_choice"], whole["parallel_tool_calls"]) == (named, True)
    text = server.client.post("/v1/responses", json=body | {"tool_choice": named, "stream": True}).text
    said = [json.loads(line.removeprefix("data: ")) for line in text.splitlines() if line.startswith("data: ")]
    deltas = [event["delta"] for event in said if event["type"] == "response.function_call_arguments.delta"]
    assert len(deltas) > 2
    assert "".join(deltas) == call["arguments"]


def test_messages_call_what_is_required(server: Server) -> None:
    body = {"messages": ASK, "tools": MESSAGES_TOOLS, "max_tokens": 400, "seed": 2} | HOT
    body["thinking"] = {"type": "disabled"}
    for choice, names in (({"type": "any"}, NAMES), ({"type": "tool", "name": "get_time"}, ("get_time",))):
        asked = body | {"tool_choice": choice | {"disable_parallel_tool_use": True}}
        whole = server.client.post("/v1/messages", json=asked).json()
        (use,) = whole["content"]
        assert (use["type"], whole["stop_reason"]) == ("tool_use", "tool_use")
        assert use["name"] in names
        jsonschema.validate(use["input"], SCHEMA)
        text = server.client.post("/v1/messages", json=asked | {"stream": True}).text
        said = [json.loads(line.removeprefix("data: ")) for line in text.splitlines() if line.startswith("data: ")]
        deltas = [event["delta"]["partial_json"] for event in said if "partial_json" in event.get("delta", {})]
        assert len(deltas) > 2
        assert json.loads("".join(deltas)) == use["input"]


@pytest.mark.parametrize("stream", [False, True])
def test_what_a_tools_schema_cannot_hold_is_named_and_takes_no_other_tool_down(server: Server, stream: bool) -> None:
    parameters = {"type": "object", "properties": {"a": {"type": "array", "items": {"const": 1}, "uniqueItems": True}}}
    impossible = {"type": "object", "required": ["b"], "additionalProperties": False}
    nothing = {"type": "object", "properties": None, "required": None}
    schemas = {"odd": parameters, "impossible": impossible, "nothing": nothing}
    tools = [{"name": name, "strict": True, "parameters": schema} for name, schema in schemas.items()]
    bodies = {
        "/v1/chat/completions": {
            "messages": ASK,
            "tools": [*CHAT_TOOLS, *({"type": "function", "function": tool} for tool in tools)],
            "max_tokens": 5,
        },
        "/v1/responses": {
            "input": "Hi",
            "tools": [*RESPONSES_TOOLS, *({"type": "function"} | tool for tool in tools)],
            "max_output_tokens": 5,
            "store": False,
        },
        "/v1/messages": {
            "messages": ASK,
            "tools": [
                *MESSAGES_TOOLS,
                *({"name": tool["name"], "strict": True, "input_schema": tool["parameters"]} for tool in tools),
            ],
            "max_tokens": 5,
        },
    }
    for route, body in bodies.items():
        answer = server.client.post(route, json=body | {"stream": stream})
        assert answer.status_code == 200, answer.text
        assert answer.headers["X-Tiles-Ignored"] == "tools.additionalProperties, tools.uniqueItems"
        loose = [tool | {"strict": False} for tool in tools] if route == "/v1/responses" else None
        if loose:
            body["tools"] = [{"type": "function"} | tool for tool in loose]
            assert "X-Tiles-Ignored" not in server.client.post(route, json=body | {"stream": stream}).headers


@pytest.mark.parametrize("stream", [False, True])
def test_what_a_format_cannot_hold_is_named_in_every_dialect(server: Server, stream: bool) -> None:
    schema: dict[str, Any] = {
        "type": "object",
        "properties": {
            "when": {"type": "string", "format": "date"},
            "where": {"type": "string", "format": "path", "maxLength": 3},
            "tags": {"type": "array", "items": {"enum": ["a", "b"]}, "uniqueItems": True, "maxItems": 2},
            "m": {"type": "object", "propertyNames": {"type": "string"}, "maxProperties": 0},
            "link": {"$ref": "#/$defs/missing"},
        },
        "required": ["when", "where", "tags", "m", "link"],
        "additionalProperties": False,
    }
    named = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    flat = {"type": "json_schema", "name": "x", "schema": schema}
    bodies: dict[str, list[tuple[dict[str, Any], str]]] = {
        "/v1/chat/completions": [
            ({"messages": ASK, "response_format": named}, "response_format"),
            ({"messages": ASK, "response_format": {"type": "json_object", "schema": schema}}, "response_format"),
            ({"messages": ASK, "json_schema": schema}, "json_schema"),
        ],
        "/v1/completions": [({"prompt": "Hi", "json_schema": schema}, "json_schema")],
        "/completion": [({"prompt": "Hi", "json_schema": schema}, "json_schema")],
        "/v1/responses": [({"input": "Hi", "text": {"format": flat}, "store": False}, "text.format")],
        "/v1/messages": [
            ({"messages": ASK, "output_config": {"format": flat}}, "output_config.format"),
            ({"messages": ASK, "output_format": flat}, "output_format"),
        ],
    }
    for route, several in bodies.items():
        for body, param in several:
            length = {"max_output_tokens" if route == "/v1/responses" else "max_tokens": 5}
            answer = server.client.post(route, json=body | length | {"stream": stream})
            assert answer.status_code == 200, answer.text
            names = {f"{param}.{keyword}" for keyword in ("$ref", "format", "uniqueItems")}
            assert set(answer.headers["X-Tiles-Ignored"].split(", ")) - {f"{param}.name"} == names
    schema["properties"]["link"] = {"type": "null"}
    value = json.loads(chat(server, tools=[], seed=1, response_format=named)["message"]["content"])
    date.fromisoformat(value["when"])
    assert len(value["where"]) <= 3


def test_a_schema_that_nothing_matches_is_a_400_that_says_so(server: Server) -> None:
    for schema, why in (
        ({"type": "object", "properties": {"a": {"enum": []}}, "required": ["a"]}, "required property 'a'"),
        ({"$ref": "#/$defs/none"}, "leads nowhere"),
        (False, "false"),
    ):
        wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
        answer = server.client.post("/v1/chat/completions", json={"messages": ASK, "response_format": wanted})
        assert answer.status_code == 400
        assert answer.json()["error"]["param"] == "response_format"
        assert why in answer.json()["error"]["message"]


def test_an_answer_that_was_begun_is_gone_on_with_under_its_schema(server: Server) -> None:
    schema = {
        "type": "object",
        "properties": {"a": {"type": "boolean"}},
        "required": ["a"],
        "additionalProperties": False,
    }
    for start in ('{"a":', "{"):
        messages = [*ASK, {"role": "assistant", "content": start}]
        body = {"messages": messages, "max_tokens": 50} | SILENT
        whole = server.client.post("/v1/chat/completions", json=body | {"json_schema": schema}).json()
        assert json.loads(whole["choices"][0]["message"]["content"]).keys() == {"a"}
        form = {"format": {"type": "json_schema", "schema": schema}}
        asked = {"messages": messages, "max_tokens": 50, "output_config": form}
        blocks = server.client.post("/v1/messages", json=asked).json()["content"]
        assert json.loads(start + blocks[0]["text"]).keys() == {"a"}
    wrong = {"messages": [*ASK, {"role": "assistant", "content": "Well"}], "json_schema": schema}
    answer = server.client.post("/v1/chat/completions", json=wrong)
    assert answer.status_code == 400
    assert "cannot begin an answer" in answer.json()["error"]["message"]


def test_where_no_call_is_wanted_none_is_begun(server: Server) -> None:
    opened = server.client.post("/tokenize", json={"content": "<tool_call>"}).json()["tokens"]
    assert len(opened) == 1
    forced = {"logit_bias": {str(opened[0]): 100}, "max_tokens": 4, "temperature": 0}
    assert "<tool_call>" in chat(server, tools=[], **forced)["message"]["content"]
    assert "<tool_call>" not in chat(server, tool_choice="none", **forced)["message"]["content"]


def test_what_was_called_and_what_came_of_it_goes_back_in_any_order(server: Server) -> None:
    made = [{"id": f"call_{n}", "type": "function", "function": {"name": NAMES[n], "arguments": "{}"}} for n in (0, 1)]
    results = [{"role": "tool", "tool_call_id": f"call_{n}", "content": f"result {n}"} for n in (1, 0)]
    turn = {"role": "assistant", "content": None, "tool_calls": made, "reasoning_content": "Hm."}
    body = {"messages": [*ASK, turn, *results], "tools": CHAT_TOOLS, "max_tokens": 4}
    assert server.client.post("/v1/chat/completions", json=body).status_code == 200
    prompt = server.client.post("/apply-template", json=body).json()["prompt"]
    assert prompt.index("result 1") < prompt.index("result 0")
    assert prompt.count("<tool_call>\n") == 2
