"""OpenAI's harmony format over HTTP: a model that answers in it, in every dialect, whole and streamed."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.services.engine.output import harmony
from tests import message_events, response_events
from tests.conftest import Server, running, said
from tests.engine.harmony_answers import harmony_tokenizer
from tests.reciting import SAY, SO, placeholder, recite, write_model

pytestmark = pytest.mark.slow

FINAL = "<|channel|>final<|message|>"
NEXT = "<|end|><|start|>assistant"
THOUGHT = f"<|channel|>analysis<|message|>They greet.{NEXT}"
ARGUMENTS = '{"a": "x {é} 🙂", "b": 2}'
CALL = f"<|channel|>commentary to=functions.add <|constrain|>json<|message|>{ARGUMENTS}<|call|>"
CALL_BEHIND_ROLE = f" to=functions.add<|channel|>commentary json<|message|>{ARGUMENTS}<|call|>"
HELLO = f"{THOUGHT}{FINAL}Hello 🙂!<|return|>"
SCHEMA = {
    "type": "object",
    "properties": {"a": {"type": "string"}, "b": {"type": "integer"}},
    "required": ["a", "b"],
    "additionalProperties": False,
}
TOOL = {"type": "function", "function": {"name": "add", "parameters": SCHEMA, "strict": False}}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    home = tmp_path_factory.mktemp("harmony")
    folder = home / "model"
    folder.mkdir()
    _write(folder)
    with running(home, "--model", str(folder), program=("-m", "tests.reciting")) as server:
        yield server
        assert server.errors() == []


def _write(folder: Path) -> None:
    tokenizer = harmony_tokenizer(folder, words=[SAY, SO, *map(placeholder, harmony.TOKENS)])
    # A folder that names too few end tokens, and one too many.
    ends = tokenizer.convert_tokens_to_ids(["<|return|>", "<|end|>"])
    write_model(folder, tokenizer, harmony.TOKENS, "<|end|><|start|>assistant", eos_token_id=ends)


def chat(server: Server, answer: str, **more: Any) -> tuple[dict[str, Any], str]:
    """The message of a chat, which is the same if it is streamed."""
    body = {"temperature": 0, "max_tokens": 400} | more
    reply = server.chat(recite(answer, harmony.TOKENS), **body)
    assert reply.status_code == 200, reply.text
    choice = reply.json()["choices"][0]
    message = choice["message"]
    chunks = server.stream(recite(answer, harmony.TOKENS), **body)
    assert (said(chunks), said(chunks, "reasoning_content")) == (
        message["content"],
        message.get("reasoning_content", ""),
    )
    arguments: dict[int, str] = {}
    for delta in (chunk["choices"][0]["delta"] for chunk in chunks):
        for call in delta.get("tool_calls", []):
            arguments[call["index"]] = arguments.get(call["index"], "") + call["function"].get("arguments", "")
    calls = message.get("tool_calls", [])
    assert list(arguments.values()) == [call["function"]["arguments"] for call in calls]
    assert chunks[-1]["choices"][0]["finish_reason"] == choice["finish_reason"]
    return message, choice["finish_reason"]


def call_of(message: dict[str, Any]) -> tuple[str, str]:
    (call,) = message["tool_calls"]
    return call["function"]["name"], call["function"]["arguments"]


def test_analysis_is_reasoning_and_final_is_content(server: Server) -> None:
    expected = {"role": "assistant", "content": "Hello 🙂!", "reasoning_content": "They greet."}
    assert chat(server, HELLO) == (expected, "stop")


@pytest.mark.parametrize("call", [CALL, CALL_BEHIND_ROLE])
def test_a_message_to_a_function_is_a_call_that_ends_the_turn(server: Server, call: str) -> None:
    made_up = "<|start|>functions.add to=assistant<|channel|>commentary<|message|>3<|end|>"
    message, reason = chat(server, THOUGHT + call + made_up, tools=[TOOL])
    assert (message["content"], message["reasoning_content"], reason) == ("", "They greet.", "tool_calls")
    assert call_of(message) == ("add", ARGUMENTS)


def test_a_preamble_is_content_beside_the_call(server: Server) -> None:
    answer = f"{THOUGHT}<|channel|>commentary<|message|>I will add them.{NEXT}{CALL_BEHIND_ROLE}"
    message, reason = chat(server, answer, tools=[TOOL])
    assert (message["content"], reason, call_of(message)) == ("I will add them.", "tool_calls", ("add", ARGUMENTS))


def test_two_calls_are_two_calls(server: Server) -> None:
    answer = f"{CALL_BEHIND_ROLE.removesuffix('<|call|>')}{NEXT}{CALL}"
    message, reason = chat(server, answer, tools=[TOOL])
    assert [call["function"]["arguments"] for call in message["tool_calls"]] == [ARGUMENTS] * 2
    message, reason = chat(server, answer, tools=[TOOL], parallel_tool_calls=False)
    assert (call_of(message), reason) == (("add", ARGUMENTS), "tool_calls")


def test_an_answer_may_be_cut_off_anywhere(server: Server) -> None:
    answer = f"{THOUGHT}<|channel|>commentary<|message|>I add.{NEXT}{CALL}"
    for limit in range(1, 130, 4):
        choice = server.chat(recite(answer, harmony.TOKENS), tools=[TOOL], max_tokens=limit, temperature=0).json()
        message, reason = choice["choices"][0]["message"], choice["choices"][0]["finish_reason"]
        assert "They greet.".startswith(message.get("reasoning_content", ""))
        assert "I add.".startswith(message["content"])
        for call in message.get("tool_calls", []):
            assert ARGUMENTS.startswith(call["function"]["arguments"].rstrip("\ufffd"))  # half a character
            assert (call["function"]["arguments"] == ARGUMENTS) or reason == "length"


def test_responses_have_the_same(server: Server) -> None:
    tool = {"type": "function", "name": "add", "parameters": SCHEMA}
    body = {"input": recite(THOUGHT + CALL, harmony.TOKENS), "tools": [tool], "temperature": 0}
    whole = server.client.post("/v1/responses", json=body).json()
    assert [item["type"] for item in whole["output"]] == ["reasoning", "function_call"]
    assert whole["output"][0]["content"][0]["text"] == "They greet."
    assert (whole["output"][1]["name"], whole["output"][1]["arguments"]) == ("add", ARGUMENTS)
    streamed = response_events.events(server.client.post("/v1/responses", json=body | {"stream": True}).text)
    deltas = [event["delta"] for event in streamed if event["type"] == "response.function_call_arguments.delta"]
    assert "".join(deltas) == ARGUMENTS
    assert len(deltas) > 5
    body = {"input": recite(HELLO, harmony.TOKENS), "temperature": 0}
    assert server.client.post("/v1/responses", json=body).json()["output"][1]["content"][0]["text"] == "Hello 🙂!"


def test_messages_have_the_same(server: Server) -> None:
    user = {"role": "user", "content": recite(THOUGHT + CALL, harmony.TOKENS)}
    tool = {"name": "add", "input_schema": SCHEMA}
    body = {"messages": [user], "tools": [tool], "max_tokens": 400, "temperature": 0}
    whole = server.client.post("/v1/messages", json=body).json()
    assert [block["type"] for block in whole["content"]] == ["thinking", "tool_use"]
    assert (whole["content"][0]["thinking"], whole["content"][1]["input"]) == ("They greet.", json.loads(ARGUMENTS))
    assert whole["stop_reason"] == "tool_use"
    streamed = message_events.events(server.client.post("/v1/messages", json=body | {"stream": True}).text)
    pieces = [event["delta"] for event in streamed if event["type"] == "content_block_delta"]
    assert "".join(piece.get("thinking", "") for piece in pieces) == "They greet."
    assert "".join(piece.get("partial_json", "") for piece in pieces) == ARGUMENTS


def test_reasoning_stays_in_the_content_where_that_is_asked(server: Server) -> None:
    expected = {"role": "assistant", "content": "<|channel|>analysis<|message|>They greet.<|end|>Hello 🙂!"}
    assert chat(server, HELLO, reasoning_format="none") == (expected, "stop")


def test_a_completion_shows_all_of_the_text(server: Server) -> None:
    prompt = f"<|start|>user<|message|>{recite(HELLO, harmony.TOKENS)}<|end|><|start|>assistant"
    body = {"prompt": prompt, "max_tokens": 400, "temperature": 0}
    reply = server.client.post("/v1/completions", json=body).json()
    assert reply["choices"][0]["text"] == HELLO.removesuffix("<|return|>")


def test_stop_strings_count_in_what_is_said(server: Server) -> None:
    message, reason = chat(server, f"{THOUGHT}{FINAL}I greet, finally.", stop=["greet", "final"])
    assert (message["content"], message["reasoning_content"], reason) == ("I ", "They greet.", "stop")


def test_log_probabilities_are_those_of_the_answer(server: Server) -> None:
    body = {"temperature": 0, "max_tokens": 400, "logprobs": True}
    choice = server.chat(recite(HELLO, harmony.TOKENS), **body).json()["choices"][0]
    told = b"".join(bytes(entry["bytes"]) for entry in choice["logprobs"]["content"])
    assert told.decode() == choice["message"]["content"] == "Hello 🙂!"


@pytest.mark.parametrize("budget", [0, 3])
def test_a_budget_goes_on_to_the_final_message(server: Server, budget: int) -> None:
    long = f"<|channel|>analysis<|message|>{'so ' * 40}{NEXT}{FINAL}Hi"
    message, _ = chat(server, long, thinking_budget_tokens=budget, max_tokens=100)
    assert len(message.get("reasoning_content", "")) <= budget + 2
    assert "so so" in message["content"]  # which the model went on with there


def test_a_budget_leaves_the_choice_of_a_call(server: Server) -> None:
    # After the budget, which counts the marker, the next message is begun for the model, as it would have done it.
    thought = "<|channel|>analysis<|message|>" + "x" * 4 + NEXT + CALL_BEHIND_ROLE
    message, reason = chat(server, thought, thinking_budget_tokens=5, tools=[TOOL])
    assert (call_of(message), reason) == (("add", ARGUMENTS), "tool_calls")


@pytest.mark.parametrize("tools", [False, True])
def test_without_thinking_no_reasoning_comes(server: Server, tools: bool) -> None:
    off: dict[str, Any] = {"chat_template_kwargs": {"enable_thinking": False}}
    begin = f"<|channel|>analysis<|message|>{NEXT}" if tools else ""  # is the prompt's
    message, _ = chat(server, f"{begin}{FINAL}Hello!<|return|>", **off, **({"tools": [TOOL]} if tools else {}))
    assert message == {"role": "assistant", "content": "Hello!"}
    if tools:
        message, _ = chat(server, begin + CALL, **off, tools=[TOOL])
        assert call_of(message) == ("add", ARGUMENTS)


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "add"}}, "auto"])
def test_a_grammar_of_calls_allows_the_reasoning_before(server: Server, choice: Any) -> None:
    tool = {"type": "function", "function": TOOL["function"] | {"strict": True}}  # type: ignore[operator]
    for call in (CALL, CALL_BEHIND_ROLE):
        message, reason = chat(server, THOUGHT + call, tools=[tool], tool_choice=choice)
        assert (call_of(message), message["reasoning_content"], reason) == (
            ("add", ARGUMENTS),
            "They greet.",
            "tool_calls",
        )
    if choice == "auto":
        assert chat(server, HELLO, tools=[tool], tool_choice=choice)[0]["content"] == "Hello 🙂!"
    else:
        message, _ = chat(server, f"{THOUGHT}{FINAL}No", tools=[tool], tool_choice=choice, max_tokens=60)
        assert message["content"] == ""


def test_where_no_call_is_wanted_none_comes(server: Server) -> None:
    assert chat(server, HELLO, tools=[TOOL], tool_choice="none")[0]["content"] == "Hello 🙂!"
    message, _ = chat(server, THOUGHT + CALL, tools=[TOOL], tool_choice="none", max_tokens=60)
    assert "tool_calls" not in message


@pytest.mark.parametrize("kind", ["", " <|constrain|>json"])
@pytest.mark.parametrize("tools", [False, True])
def test_a_schema_holds_in_the_final_message(server: Server, kind: str, tools: bool) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "sum", "schema": SCHEMA}}
    more: dict[str, Any] = {"response_format": form} | ({"tools": [TOOL]} if tools else {})
    final = f"<|channel|>final{kind}<|message|>"
    message, reason = chat(server, f'{THOUGHT}{final}{{"a": "x", "b": 3}}<|return|>', **more)
    assert (message["content"], reason) == ('{"a": "x", "b": 3}', "stop")
    assert message["reasoning_content"] == "They greet."
    if tools:
        assert call_of(chat(server, THOUGHT + CALL, **more)[0]) == ("add", ARGUMENTS)


def test_other_grammars_hold_in_the_final_message_too(server: Server) -> None:
    for more in ({"regex": "(yes|no) <\\|end\\|>"}, {"choice": ["yes <|end|>", "no"]}):
        message, reason = chat(server, f"{THOUGHT}{FINAL}yes", **more)
        assert message["content"] in ("yes <|end|>", "no")
        assert (message["reasoning_content"], reason) == ("They greet.", "stop")


def test_a_final_message_is_gone_on_with(server: Server) -> None:
    ask = {"role": "user", "content": recite(f"{FINAL}Hello there!<|return|>", harmony.TOKENS)}
    body = {
        "messages": [ask, {"role": "assistant", "content": "Hello"}],
        "continue_final_message": True,
        "temperature": 0,
        "max_tokens": 50,
    }
    reply = server.client.post("/v1/chat/completions", json=body).json()
    assert reply["choices"][0]["message"]["content"] == "Hello there!"


def test_reasoning_is_gone_on_with(server: Server) -> None:
    ask = {"role": "user", "content": recite(HELLO, harmony.TOKENS)}
    body = {
        "messages": [ask, {"role": "assistant", "content": "", "reasoning_content": "They"}],
        "continue_final_message": True,
        "temperature": 0,
        "max_tokens": 90,
    }
    message = server.client.post("/v1/chat/completions", json=body).json()["choices"][0]["message"]
    assert (message["reasoning_content"], message["content"]) == ("They greet.", "Hello 🙂!")


def test_many_at_once_get_their_own(server: Server) -> None:
    body = {"temperature": 0, "max_tokens": 400, "n": 3, "tools": [TOOL]}
    choices = server.chat(recite(THOUGHT + CALL, harmony.TOKENS), **body).json()["choices"]
    assert [call_of(choice["message"]) for choice in choices] == [("add", ARGUMENTS)] * 3


@pytest.mark.parametrize("effort", ["low", "medium", "high"])
def test_an_effort_goes_into_the_prompt_and_bounds_nothing(server: Server, effort: str) -> None:
    thought = " ".join(map(str, range(200)))  # longer than low effort is elsewhere
    long = f"<|channel|>analysis<|message|>{thought}{NEXT}{FINAL}Hi<|return|>"
    message, _ = chat(server, long, reasoning_effort=effort, max_tokens=1200)
    assert (message["reasoning_content"], message["content"]) == (thought, "Hi")
    body = {"messages": [{"role": "user", "content": "Hi"}], "reasoning_effort": effort}
    prompt = server.client.post("/apply-template", json=body).json()["prompt"]
    assert prompt.startswith(f"<|start|>system<|message|>Reasoning: {effort}<|end|>")


def test_the_effort_of_messages_and_responses_goes_into_the_prompt(server: Server) -> None:
    lengths = []
    for effort in ("low", "medium"):
        user = {"role": "user", "content": recite(HELLO, harmony.TOKENS)}
        body = {"messages": [user], "max_tokens": 50, "output_config": {"effort": effort}}
        anthropic = server.client.post("/v1/messages", json=body).json()["usage"]
        body = {"input": recite(HELLO, harmony.TOKENS), "reasoning": {"effort": effort}, "max_output_tokens": 50}
        responses = server.client.post("/v1/responses", json=body).json()["usage"]
        lengths.append(responses["input_tokens"])
        assert anthropic["input_tokens"] + anthropic["cache_read_input_tokens"] == lengths[-1]
    assert lengths[1] - lengths[0] == len("medium") - len("low")
