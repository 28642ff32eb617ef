"""Sessions of agents: what Codex, Claude Code and their kin send as they come, and what clients read of it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import httpx
import openai
import pytest

from app.services.generation import ToolArguments, ToolCall
from tests.conftest import Server
from tests.conftest import events as server_events
from tests.response_events import events
from tests.scripted import ScriptedModel, answer, serving

pytestmark = pytest.mark.slow

USER = {"role": "user", "content": "Hi"}
SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}}
CODEX_TOOLS: list[Any] = [
    {"type": "function", "name": "exec_command", "description": "Runs", "strict": False, "parameters": SCHEMA},
    {
        "type": "namespace",
        "name": "multi_agent_v1",
        "description": "Agents",
        "tools": [{"type": "function", "name": "spawn_agent", "parameters": SCHEMA}],
    },
    {
        "type": "custom",
        "name": "apply_patch",
        "format": {"type": "grammar", "syntax": "lark", "definition": "start: /.+/"},
    },
    {"type": "web_search", "external_web_access": False},
    {"type": "image_generation", "output_format": "png"},
]
LEFT_OUT = "tools.format.grammar, tools.image_generation, tools.web_search"
CLAUDE_TOOLS: list[Any] = [
    {"name": "Read", "input_schema": SCHEMA},
    {"type": "web_search_20250305", "name": "web_search", "max_uses": 5},
    {"type": "computer_toolset_20260801"},
    {"type": "mcp_toolset", "mcp_server_name": "x"},
]
PICTURE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}}


def post(server: Server, route: str, **body: Any) -> httpx.Response:
    return server.client.post(route, json=body)


def ignored(answer: httpx.Response) -> str:
    assert answer.status_code == 200, answer.text
    return answer.headers.get("x-tiles-ignored", "")


@pytest.mark.parametrize(
    "route", ["/v1/responses", "/responses", "/v1/responses/input_tokens", "/responses/input_tokens"]
)
def test_codex_is_answered_with_the_tools_that_it_always_sends(server: Server, route: str) -> None:
    for stream in (False, True):
        body = {"input": "Hi", "max_output_tokens": 2, "store": False, "tools": CODEX_TOOLS, "stream": stream}
        assert ignored(post(server, route, **body)) == LEFT_OUT


@pytest.mark.parametrize("route", ["/v1/messages", "/v1/messages/count_tokens"])
def test_claude_code_is_answered_with_tools_of_all_kinds(server: Server, route: str) -> None:
    named = "tools.computer_toolset_20260801, tools.mcp_toolset, tools.web_search_20250305"
    body = {"messages": [USER], "max_tokens": 2, "tools": CLAUDE_TOOLS}
    assert ignored(post(server, route, **body)) == named
    wanted = post(server, route, **body, tool_choice={"type": "tool", "name": "web_search"})
    assert wanted.status_code == 400 and "tool_choice" in wanted.json()["error"]["message"]


def test_what_is_left_out_does_not_change_the_prompt(server: Server) -> None:
    def counted(*tools: Any) -> int:
        answer = post(server, "/v1/responses/input_tokens", input="Hi", tools=list(tools))
        return int(answer.json()["input_tokens"])

    function, space, _, *others = CODEX_TOOLS
    assert counted(function, *others) == counted(function) < counted(function, space)


def test_a_session_goes_on_after_a_picture_was_looked_at(server: Server) -> None:
    used = {"type": "tool_use", "id": "c", "name": "Read", "input": {"a": "a.png"}}
    looked = {"type": "tool_result", "tool_use_id": "c", "content": [PICTURE]}
    turns = [USER, {"role": "assistant", "content": [used]}, {"role": "user", "content": [looked]}]
    for more in ([], [{"role": "assistant", "content": "A tile."}, {"role": "user", "content": "never mind"}]):
        for route in ("/v1/messages", "/v1/messages/count_tokens"):
            answer = post(server, route, messages=turns + more, max_tokens=2, tools=CLAUDE_TOOLS[:1])
            assert ignored(answer) == "messages.content.content.image"
    asked = post(server, "/v1/messages", messages=[{"role": "user", "content": [PICTURE]}], max_tokens=2)
    assert asked.status_code == 400


@pytest.mark.parametrize(
    ("route", "field", "call", "result", "picture"),
    [
        (
            "/v1/chat/completions",
            "messages",
            {"role": "assistant", "tool_calls": [{"id": "c", "type": "function", "function": {"name": "look"}}]},
            {"role": "tool", "tool_call_id": "c", "content": "(see the next message)"},
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}},
        ),
        (
            "/v1/responses",
            "input",
            {"type": "function_call", "call_id": "c", "name": "look", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c", "output": "(see the next message)"},
            {"type": "input_image", "image_url": "data:image/png;base64,AA=="},
        ),
    ],
)
def test_a_picture_of_a_tool_may_come_as_the_words_of_the_user(
    server: Server, route: str, field: str, call: Any, result: Any, picture: Any
) -> None:
    shown = {"role": "user", "content": [picture]}
    more: Any = {"max_tokens": 2} if field == "messages" else {"max_output_tokens": 2, "store": False}
    for rest in ([], [{"role": "assistant", "content": "I see."}, USER]):
        answer = post(server, route, **{field: [USER, call, result, shown, *rest]}, **more)
        assert ignored(answer) == f"{field}.content.{picture['type']}"
    for refused in (
        [shown],
        [USER, call, result, {"role": "user", "content": [picture, {"type": "text", "text": "?"}]}],
    ):
        assert post(server, route, **{field: refused}, **more).status_code == 400


def test_a_response_of_other_kinds_of_items_is_kept_and_gone_on_with(server: Server) -> None:
    items = [
        USER,
        {"type": "local_shell_call", "id": "l", "call_id": "c", "status": "completed", "action": {"command": ["ls"]}},
        {"type": "local_shell_call_output", "id": "c", "output": "a.txt"},
        {"type": "web_search_call", "id": "w", "status": "completed", "action": {"type": "search", "query": "q"}},
        {"type": "compaction", "encrypted_content": "AAAA"},
        {"role": "user", "content": "And now?"},
    ]
    first = post(server, "/v1/responses", input=items, max_output_tokens=2)
    assert ignored(first) == "input.compaction, input.web_search_call"
    kept = server.client.get(f"/v1/responses/{first.json()['id']}/input_items?order=asc").json()["data"]
    assert [item["type"] for item in kept] == [item.get("type", "message") for item in items]
    assert kept[1]["action"] == {"command": ["ls"]}
    second = post(server, "/v1/responses", input="Go on", previous_response_id=first.json()["id"], max_output_tokens=2)
    assert second.status_code == 200, second.text
    assert second.json()["usage"]["input_tokens"] > first.json()["usage"]["input_tokens"]


@pytest.mark.parametrize("item", [{"type": "compaction", "encrypted_content": "A"}, {"type": "web_search_call"}])
def test_an_input_that_says_nothing_is_refused_unless_there_are_instructions(server: Server, item: Any) -> None:
    for route in ("/v1/responses", "/v1/responses/input_tokens"):
        answer = post(server, route, input=[item], store=False, max_output_tokens=1)
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "input")
        assert post(server, route, input=[item], instructions="Hi", max_output_tokens=1).status_code == 200


def test_what_was_given_out_comes_back_without_a_word_on_what_is_ignored(server: Server) -> None:
    form = {"type": "json_schema", "name": "a", "description": "A", "strict": True, "schema": SCHEMA}
    tools = [CODEX_TOOLS[0], {"type": "custom", "name": "apply_patch"}]
    more: Any = {"store": False, "max_output_tokens": 60, "seed": 1, "tools": tools}
    outputs = []
    for choice in ({"type": "function", "name": "exec_command"}, {"type": "custom", "name": "apply_patch"}, "none"):
        first = post(server, "/v1/responses", input="Hi", tool_choice=choice, **more)
        assert ignored(first) == ""
        outputs += first.json()["output"]
    assert {"function_call", "custom_tool_call", "message"} <= {item["type"] for item in outputs}
    results = [
        {"type": f"{item['type']}_output", "call_id": item["call_id"], "output": "x"}
        for item in outputs
        if "call_id" in item
    ]
    assert ignored(post(server, "/v1/responses", input=[USER, *outputs, *results, USER], **more)) == ""
    assert (
        ignored(post(server, "/v1/responses", input="Hi", text={"format": form}, store=False, max_output_tokens=8))
        == ""
    )


# The official clients read what is told of custom tools and namespaces.


@pytest.fixture
def scripted(tmp_path: Path) -> Iterator[tuple[str, ScriptedModel]]:
    model = ScriptedModel([])
    with serving(model, tmp_path) as url:
        yield url, model


CALLS = answer(
    ToolCall(0, "call_1", "apply_patch", '{"input": "*** Begin'),
    ToolArguments(0, ' Patch\\n"}'),
    ToolCall(1, "call_2", "multi_agent_v1__spawn_agent", "{}"),
)


def test_openais_client_reads_calls_of_custom_tools_and_namespaces(scripted: tuple[str, ScriptedModel]) -> None:
    url, model = scripted
    model.scripts += [CALLS, CALLS]
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="none")
    whole = client.responses.create(input="Hi", model="any", tools=CODEX_TOOLS, store=False)
    with client.responses.stream(input="Hi", model="any", tools=CODEX_TOOLS, store=False) as stream:
        told = list(stream)
        streamed = stream.get_final_response()
    for response in (whole, streamed):
        custom, spawned = response.output
        assert custom.type == "custom_tool_call" and spawned.type == "function_call"
        assert (custom.name, custom.input) == ("apply_patch", "*** Begin Patch\n")
        assert (spawned.name, spawned.namespace, spawned.arguments) == ("spawn_agent", "multi_agent_v1", "{}")
    deltas = [event.delta for event in told if event.type == "response.custom_tool_call_input.delta"]
    assert deltas == ["*** Begin", " Patch\n"]


def test_openais_client_reads_custom_calls_of_a_chat(scripted: tuple[str, ScriptedModel]) -> None:
    url, model = scripted
    model.scripts += [answer(CALLS[2], CALLS[3])]
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="none")
    tool: Any = {"type": "custom", "custom": {"name": "apply_patch"}}
    reply = client.chat.completions.create(messages=[{"role": "user", "content": "Hi"}], model="any", tools=[tool])
    (call,) = reply.choices[0].message.tool_calls or []
    assert call.type == "custom" and call.custom.input == "*** Begin Patch\n"


def test_anthropics_client_is_told_that_the_context_is_full(scripted: tuple[str, ScriptedModel]) -> None:
    url, model = scripted
    model.scripts += [answer("a", reason="length", cause="context"), answer("a", reason="length", cause="repetition")]
    client = anthropic.Anthropic(base_url=url, api_key="none")
    reasons = [
        client.messages.create(messages=[{"role": "user", "content": "Hi"}], model="any", max_tokens=9).stop_reason
        for _ in range(2)
    ]
    assert reasons == ["model_context_window_exceeded", "end_turn"]


# Fields.


@pytest.mark.parametrize(
    ("route", "body", "named"),
    [
        (
            "/v1/chat/completions",
            {"messages": [USER], "max_tokens": 1, "backend_sampling": False, "reasoning_control": True, "user": ""},
            "",
        ),
        ("/v1/chat/completions", {"messages": [USER], "max_tokens": 1, "new_in_2031": False, "store": False}, ""),
        (
            "/v1/chat/completions",
            {"messages": [USER], "max_tokens": 1, "cache_prompt": True, "verbosity": "medium"},
            "",
        ),
        ("/v1/chat/completions", {"messages": [USER], "max_tokens": 1, "cache_prompt": False}, "cache_prompt"),
        ("/v1/chat/completions", {"messages": [USER], "max_tokens": 1, "backend_sampling": True}, "backend_sampling"),
        ("/completion", {"prompt": "Hi", "n_predict": 1, "reasoning_control": False, "metadata": {}}, ""),
        ("/v1/responses", {"input": "Hi", "store": False, "max_output_tokens": 1, "prompt_cache_options": {}}, ""),
        ("/v1/messages", {"messages": [USER], "max_tokens": 1, "betas": [], "speed": "standard"}, ""),
        ("/v1/messages", {"messages": [USER], "max_tokens": 1, "betas": ["x"], "speed": "fast"}, "betas, speed"),
    ],
)
def test_a_value_that_asks_for_nothing_is_not_named(server: Server, route: str, body: Any, named: str) -> None:
    assert ignored(post(server, route, **body)) == named


@pytest.mark.parametrize("effort", ["none", "minimal", "low", "medium", "high", "xhigh", "max"])
def test_every_effort_is_taken(server: Server, effort: str) -> None:
    assert server.chat(reasoning_effort=effort, max_tokens=2).status_code == 200
    assert (
        post(server, "/v1/responses", input="Hi", reasoning={"effort": effort}, max_output_tokens=1).status_code == 200
    )


def test_a_format_of_text_is_taken_everywhere(server: Server) -> None:
    for route in ("/v1/completions", "/completion"):
        text = {"prompt": "Hi", "max_tokens": 1, "response_format": {"type": "text"}}
        assert post(server, route, **text).status_code == 200
        assert post(server, route, **text | {"response_format": {"type": "json_object"}}).status_code == 400


def test_truncation_is_taken_and_what_does_not_fit_is_still_said(server: Server) -> None:
    body = {"truncation": "auto", "store": False, "max_output_tokens": 1}
    answer = post(server, "/v1/responses", input="Hi", **body)
    assert answer.json()["truncation"] == "auto"
    long = post(server, "/v1/responses", input="the river " * 9000, **body)
    assert (long.status_code, long.json()["error"]["code"]) == (400, "context_length_exceeded")


OPEN_RESPONSES = {
    *("id", "object", "created_at", "completed_at", "status", "incomplete_details", "model", "previous_response_id"),
    *("instructions", "output", "error", "tools", "tool_choice", "truncation", "parallel_tool_calls", "text", "top_p"),
    *("presence_penalty", "frequency_penalty", "top_logprobs", "temperature", "reasoning", "usage"),
    *("max_output_tokens", "max_tool_calls", "store", "background", "service_tier", "metadata"),
    *("safety_identifier", "prompt_cache_key"),
}


def test_a_response_has_all_that_open_responses_requires(server: Server) -> None:
    body = {"input": "Hi", "store": False, "max_output_tokens": 2, "presence_penalty": 0.5, "max_tool_calls": 3}
    said = events(post(server, "/v1/responses", **body, stream=True, prompt_cache_key="k").text)
    for response in [event["response"] for event in said if "response" in event]:
        assert response.keys() >= OPEN_RESPONSES
        assert (response["presence_penalty"], response["frequency_penalty"], response["max_tool_calls"]) == (
            0.5,
            0.0,
            3,
        )
        assert (response["prompt_cache_key"], response["safety_identifier"]) == ("k", None)
        assert all(isinstance(response[name], float) for name in ("temperature", "top_p"))
    used = server.client.get("/props").json()["default_generation_settings"]["params"]
    assert said[-1]["response"]["temperature"] == pytest.approx(used["temperature"])
    assert post(server, "/v1/responses", **body, temperature=0.25).json()["temperature"] == 0.25
    form = {"type": "json_schema", "name": "a", "schema": SCHEMA}
    answer = post(server, "/v1/responses", **body | {"text": {"format": form}})
    assert answer.json()["text"]["format"] == form | {"description": None, "strict": True}


def test_responses_tell_progress_and_timings_where_they_are_asked_for(server: Server) -> None:
    body = {"input": "the river " * 200, "store": False, "max_output_tokens": 6, "stream": True, "seed": 1}
    said = events(post(server, "/v1/responses", **body, return_progress=True, timings_per_token=True).text)
    progress = [event for event in said if "prompt_progress" in event]
    assert progress and all(event["type"] == "response.in_progress" for event in progress)
    last = progress[-1]["prompt_progress"]
    assert last["processed"] == last["total"] == said[-1]["response"]["usage"]["input_tokens"]
    assert all(event["timings"]["prompt_n"] >= 0 for event in progress)
    tokens = [event for event in said if event["type"].endswith(("output_text.delta", "reasoning_text.delta"))]
    assert all(event["timings"]["predicted_n"] for event in tokens)
    plain = events(post(server, "/v1/responses", **body).text)
    assert not any("prompt_progress" in event or "timings" in event for event in plain[:-1])


# What llama.cpp's own clients ask for.


def test_a_template_without_the_beginning_of_an_answer(server: Server) -> None:
    def prompt(**more: Any) -> str:
        return str(post(server, "/apply-template", messages=[USER], **more).json()["prompt"])

    bare = prompt(add_generation_prompt=False)
    assert prompt() == prompt(add_generation_prompt=True)
    assert prompt().startswith(bare) and prompt() != bare


def test_biases_by_text_in_an_object(server: Server) -> None:
    (token,) = post(server, "/tokenize", content="q").json()["tokens"]
    answers = [
        server.chat(temperature=0, logit_bias=bias).json()["choices"][0]["message"]
        for bias in ({"q": 100}, {str(token): 100}, [["q", 100]], {"q": 100, "7": False})
    ]
    assert all(answer == answers[0] for answer in answers)
    assert "qqq" in str(answers[0])


def test_embeddings_of_parts(server: Server) -> None:
    def vector(given: Any) -> Any:
        return post(server, "/v1/embeddings", input=given).json()["data"][0]["embedding"]

    parts = [{"type": "text", "text": "Hello"}, {"type": "text", "text": " world"}]
    assert vector({"content": parts}) == vector([{"content": parts}]) == vector("Hello world")
    picture = {"type": "image_url", "image_url": {"url": "data:,"}}
    assert post(server, "/v1/embeddings", input={"content": [picture]}).status_code == 400
    assert post(server, "/v1/embeddings", input={}).status_code == 422


def test_the_speed_of_an_answer_is_exact(server: Server) -> None:
    timings = server.chat(ignore_eos=True, max_tokens=16).json()["timings"]
    assert timings["predicted_per_second"] == pytest.approx(1000 / timings["predicted_ms"] * 15, abs=1e-6)


def test_progress_has_timings_where_they_are_asked_for(server: Server) -> None:
    more = {"return_progress": True, "timings_per_token": True, "stream": True}
    for route, body in (
        ("/completion", {"prompt": "the river " * 60, "n_predict": 2}),
        ("/v1/completions", {"prompt": "the lake " * 60, "max_tokens": 2}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "the sea " * 60}], "max_tokens": 2}),
    ):
        text = post(server, route, **body, **more).text
        lines = [line for line in text.split("\n\n") if "prompt_progress" in line]
        assert lines and all('"timings"' in line for line in lines)


def test_chunks_of_a_stream_have_their_tokens(server: Server) -> None:
    body = {"prompt": "The river", "n_predict": 24, "seed": 3, "ignore_eos": True}
    chunks = server_events(post(server, "/completion", **body, stream=True).text, ended=False)
    streamed = [token for chunk in chunks for token in chunk["tokens"]]
    assert all(chunk["tokens"] for chunk in chunks if chunk["content"])
    assert streamed == post(server, "/completion", **body, return_tokens=True).json()["tokens"]


def test_metrics_say_since_when_they_count(server: Server) -> None:
    assert int(server.client.get("/metrics").headers["process-start-time-unix"]) > 1_700_000_000
