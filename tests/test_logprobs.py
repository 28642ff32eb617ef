"""Log-probabilities in every dialect: the same whole and streamed, of the answer's text, never of the end token."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from tests.conftest import Server, events

pytestmark = pytest.mark.slow

Json = dict[str, Any]
ASK = [{"role": "user", "content": "Tell me"}]
FREE: Json = {"temperature": 1, "seed": 11, "chat_template_kwargs": {"enable_thinking": False}}


def chat(server: Server, stream: bool, more: Json) -> tuple[list[Json], str, list[str]]:
    body = {"messages": ASK, "logprobs": True, "top_logprobs": 1, "stream": stream} | FREE | more
    answer = server.client.post("/v1/chat/completions", json=body)
    assert answer.status_code == 200, answer.text
    parts = events(answer.text) if stream else [answer.json()]
    choices = sorted((choice for part in parts for choice in part["choices"]), key=lambda choice: int(choice["index"]))
    scores = [score for choice in choices for score in (choice.get("logprobs") or {}).get("content", [])]
    text = "".join(choice.get("message", choice.get("delta"))["content"] or "" for choice in choices if _says(choice))
    return scores, text, [choice["finish_reason"] for choice in choices if choice["finish_reason"]]


def _says(choice: Json) -> bool:
    return "content" in choice.get("message", choice.get("delta", {}))


def completion(server: Server, stream: bool, more: Json) -> tuple[list[Json], str, list[str]]:
    body = {"prompt": "Tell me", "logprobs": 1, "stream": stream, "temperature": 1, "seed": 11} | more
    answer = server.client.post("/v1/completions", json=body)
    assert answer.status_code == 200, answer.text
    parts = events(answer.text) if stream else [answer.json()]
    choices = sorted((choice for part in parts for choice in part["choices"]), key=lambda choice: int(choice["index"]))
    scores = [score for choice in choices for score in (choice["logprobs"] or {}).get("content", [])]
    text = "".join(choice["text"] for choice in choices)
    return scores, text, [choice["finish_reason"] for choice in choices if choice["finish_reason"]]


def native(server: Server, stream: bool, more: Json) -> tuple[list[Json], str, list[str]]:
    body = {"prompt": "Tell me", "n_probs": 1, "return_tokens": True, "stream": stream, "temperature": 1, "seed": 11}
    answer = server.client.post("/completion", json=body | more)
    assert answer.status_code == 200, answer.text
    parts = events(answer.text, ended=False) if stream else [answer.json()]
    scores = [score for part in parts for score in part.get("completion_probabilities", [])]
    assert [score["id"] for score in scores] == [token for part in parts for token in part["tokens"]]
    return scores, "".join(part["content"] for part in parts), [parts[-1]["stop_type"]]


def responses(server: Server, stream: bool, more: Json) -> tuple[list[Json], str, list[str]]:
    body: Json = {"input": "Tell me", "include": ["message.output_text.logprobs"], "top_logprobs": 1, "stream": stream}
    limit = {"max_output_tokens": more["max_tokens"]} | {
        key: value for key, value in more.items() if key != "max_tokens"
    }
    body |= {"temperature": 1, "seed": 11, "reasoning": {"effort": "none"}} | limit
    answer = server.client.post("/v1/responses", json=body)
    assert answer.status_code == 200, answer.text
    if stream:
        blocks = [block.split("data: ", 1)[1] for block in answer.text.split("\n\n") if "data: {" in block]
        told = [json.loads(block) for block in blocks]
        deltas = [event for event in told if event["type"] == "response.output_text.delta"]
        done = [score for event in told if event["type"] == "response.output_text.done" for score in event["logprobs"]]
        scores = [score for event in deltas for score in event["logprobs"]]
        assert scores == done
        return scores, "".join(event["delta"] for event in deltas), [told[-1]["response"]["status"]]
    parts = [part for item in answer.json()["output"] if item["type"] == "message" for part in item["content"]]
    scores = [score for part in parts for score in part["logprobs"]]
    return scores, "".join(part["text"] for part in parts), [answer.json()["status"]]


Asked = Callable[[Server, bool, Json], tuple[list[Json], str, list[str]]]


@pytest.fixture(scope="module")
def end(tiny: Path) -> int:
    token = Tokenizer.from_file(str(tiny / "tokenizer.json")).token_to_id("<|im_end|>")
    assert token is not None
    return int(token)


@pytest.mark.parametrize("ask", [chat, completion, native, responses])
def test_an_answer_that_ends_by_itself_says_the_same_whole_and_streamed(server: Server, ask: Asked, end: int) -> None:
    for bias in (5, 8):  # how soon it ends depends on the weights
        more = {"max_tokens": 200, "logit_bias": {str(end): bias}} if ask is not responses else {"max_tokens": 200}
        whole = ask(server, False, more)
        assert ask(server, True, more) == whole
        scores, text, _ = whole
        assert end not in {score["id"] for score in scores}
        assert b"".join(bytes(score["bytes"]) for score in scores).decode(errors="replace").startswith(text)


@pytest.mark.parametrize("ask", [chat, completion, native])
@pytest.mark.parametrize("more", [{"max_tokens": 12}, {"max_tokens": 60, "stop": ["e", "on"]}])
def test_so_does_one_that_is_cut_or_stopped(server: Server, ask: Asked, more: Json) -> None:
    whole = ask(server, False, more)
    assert ask(server, True, more) == whole
    assert whole[0]


@pytest.mark.parametrize("ask", [chat, completion])
def test_so_do_several_answers(server: Server, ask: Asked, end: int) -> None:
    more = {"n": 3, "max_tokens": 40, "logit_bias": {str(end): 7}}
    whole = ask(server, False, more)
    assert ask(server, True, more) == whole
    assert len(whole[2]) == 3


def test_a_call_has_none(server: Server) -> None:
    tool = {"type": "function", "function": {"name": "add", "parameters": {"type": "object", "properties": {}}}}
    more = {"tools": [tool], "tool_choice": "required", "max_tokens": 200, "temperature": 0}
    for stream in (False, True):
        scores, _, reasons = chat(server, stream, more)
        assert (scores, reasons) == ([], ["tool_calls"])
