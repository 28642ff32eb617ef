"""Conversations in any order of roles and with any history, over HTTP, on every dialect and the routes that count."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Server, running
from tests.engine.chat_templates import TEMPLATES

Json = dict[str, Any]
Turn = tuple[str, str]

LATER = [("system", "Be brief."), ("user", "Hi"), ("assistant", "Hello"), ("developer", "Be kind."), ("user", "Bye")]
CONVERSATIONS: list[list[Turn]] = [
    LATER,
    [("system", "Be brief."), ("developer", "Be kind."), ("user", "Hi")],
    [("user", "Hi"), ("system", "Be brief."), ("user", "Bye")],
    [("user", "Hi"), ("user", "Bye")],
    [("assistant", "Hello"), ("user", "Hi")],
    [("user", "Hi"), ("assistant", "Hello"), ("system", "Be brief.")],
    [("user", "")],
    [("system", "Be brief.")],
]


@pytest.fixture(scope="module", params=["system at the beginning", "roles alternate around tools"])
def strict(request: pytest.FixtureRequest, tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose model's template refuses much."""
    home = tmp_path_factory.mktemp("strict")
    shutil.copytree(tiny, home / "model")
    (home / "model" / "chat_template.jinja").write_text(TEMPLATES[request.param])
    with running(home, "--model", str(home / "model")) as server:
        yield server
        assert server.errors() == []


def asked(turns: list[Turn]) -> dict[str, Json]:
    """The same conversation for each route that answers or counts."""
    messages = [{"role": role, "content": text} for role, text in turns]
    spoken = [{"role": role.replace("developer", "system"), "content": text} for role, text in turns]
    return {
        "/v1/chat/completions": {"messages": messages, "max_tokens": 4},
        "/v1/chat/completions/input_tokens": {"messages": messages},
        "/apply-template": {"messages": messages},
        "/v1/responses": {"input": messages, "max_output_tokens": 4},
        "/v1/responses/input_tokens": {"input": messages},
        "/v1/messages": {"messages": spoken, "max_tokens": 4},
        "/v1/messages/count_tokens": {"messages": spoken},
    }


def post(server: Server, route: str, body: Json) -> Any:
    answer = server.client.post(route, json=body)
    assert answer.status_code == 200, (route, answer.text)
    return answer.json()


def check_conversation(server: Server, turns: list[Turn]) -> None:
    """It is answered, and every dialect makes the same prompt of it."""
    answers = {route: post(server, route, body) for route, body in asked(turns).items()}
    prompt = answers["/apply-template"]["prompt"]
    assert all(text in prompt for _, text in turns)
    counted = {
        answers["/v1/chat/completions"]["usage"]["prompt_tokens"],
        *(answers[route]["input_tokens"] for route in answers if route.endswith("_tokens")),
        answers["/v1/responses"]["usage"]["input_tokens"],
    }
    assert len(counted) == 1


@pytest.mark.parametrize("turns", CONVERSATIONS)
def test_any_order_of_roles_is_answered(server: Server, turns: list[Turn]) -> None:
    check_conversation(server, turns)


@pytest.mark.slow
@pytest.mark.parametrize("turns", CONVERSATIONS)
def test_any_order_of_roles_is_answered_under_a_strict_template(strict: Server, turns: list[Turn]) -> None:
    check_conversation(strict, turns)


@pytest.mark.slow
def test_the_second_turn_of_an_agent_finds_the_first_in_the_cache(strict: Server) -> None:
    first = [("system", "Mind the tiles. " * 30), ("user", "Hi")]
    said = post(strict, "/v1/chat/completions", asked(first)["/v1/chat/completions"])
    more = [*first, ("assistant", said["choices"][0]["message"]["content"]), ("system", "It rains."), ("user", "Bye")]
    usage = post(strict, "/v1/chat/completions", asked(more)["/v1/chat/completions"])["usage"]
    assert usage["prompt_tokens_details"]["cached_tokens"] >= said["usage"]["prompt_tokens"]


@pytest.mark.slow
def test_two_turns_of_the_assistant_are_answered(strict: Server) -> None:
    said = [("user", "Hi"), ("assistant", "Hello"), ("assistant", "How are you?")]
    for turns in (said, [*said, ("user", "Bye")]):
        for route, body in asked(turns).items():
            post(strict, route, body)


@pytest.mark.slow
def test_a_response_goes_on_with_a_developer_item(strict: Server) -> None:
    first = post(strict, "/v1/responses", {"input": "Hi", "instructions": "Be brief.", "max_output_tokens": 4})
    items = [{"role": "developer", "content": "Be kind."}, {"role": "user", "content": "Bye"}]
    more = {"input": items, "instructions": "Be brief.", "previous_response_id": first["id"], "max_output_tokens": 4}
    assert post(strict, "/v1/responses", more)["status"] in {"completed", "incomplete"}


@pytest.mark.slow
def test_the_system_field_and_the_messages_are_one_conversation(strict: Server) -> None:
    messages = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi"}]
    blocks = [{"type": "text", "text": "Be brief."}, {"type": "text", "text": "Be quick."}]
    apart = post(strict, "/v1/messages/count_tokens", {"system": blocks, "messages": messages})
    joined = {"system": "Be brief.\n\nBe quick.\n\nBe kind.", "messages": messages[1:]}
    assert apart == post(strict, "/v1/messages/count_tokens", joined)


def history(arguments: Any) -> list[Json]:
    call = {"id": "call_1", "type": "function", "function": {"name": "look_up", "arguments": arguments}}
    result = {"role": "tool", "tool_call_id": "call_1", "content": "4"}
    return [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": None, "tool_calls": [call]}, result]


ARGUMENTS = [
    "",
    '{"a":',
    "[]",
    '"x"',
    "null",
    '{"a": "\\ud83d", "\\ude00": 1}',
    '{"a": ' * 4000 + "1" + "}" * 4000,
    '{"a": ' + "9" * 5000 + "}",
    '{"a": NaN, "a": Infinity}',
]


@pytest.mark.parametrize("arguments", ARGUMENTS)
def test_no_arguments_of_a_call_end_a_conversation(server: Server, arguments: str) -> None:
    check_arguments(server, arguments)


@pytest.mark.slow
@pytest.mark.parametrize("arguments", ARGUMENTS)
def test_no_arguments_of_a_call_end_a_conversation_under_a_strict_template(strict: Server, arguments: str) -> None:
    check_arguments(strict, arguments)


def check_arguments(server: Server, arguments: str) -> None:
    chat = {"messages": history(arguments), "max_tokens": 4}
    for route in ("/v1/chat/completions", "/v1/chat/completions/input_tokens", "/apply-template"):
        post(server, route, chat)
    assert server.client.post("/v1/chat/completions", json=chat | {"stream": True}).text.endswith("data: [DONE]\n\n")
    call = {"type": "function_call", "call_id": "call_1", "name": "look_up", "arguments": arguments}
    output = {"type": "function_call_output", "call_id": "call_1", "output": "4"}
    items = [{"role": "user", "content": "Hi"}, call, output]
    for route in ("/v1/responses", "/v1/responses/input_tokens"):
        post(server, route, {"input": items, "max_output_tokens": 4})


def test_arguments_that_are_no_text_are_read_as_their_json(server: Server) -> None:
    prompts = {
        post(server, "/apply-template", {"messages": history(arguments)})["prompt"]
        for arguments in ({"word": "sea"}, json.dumps({"word": "sea"}))
    }
    assert len(prompts) == 1


def test_results_without_an_id_are_taken(server: Server) -> None:
    question, calls, result = history("{}")
    del result["tool_call_id"]
    assert post(server, "/apply-template", {"messages": [question, calls, result]})["prompt"]
    assert post(server, "/apply-template", {"messages": [result, question]})["prompt"]
