"""Text to tokens and back, and what a conversation becomes."""

from pathlib import Path
from typing import Any

import httpx
import pytest
from tokenizers import Tokenizer

from tests.conftest import Server

TEXTS = [
    "Hello world",
    " leading and trailing ",
    "",
    "日本語と😀と👩‍👩‍👧‍👦",
    "<|im_start|>user\nHi<|im_end|>",
    "tabs\tand\r\nlines\x00",
    "é" * 300,
    "<think>no</think>",
]
USER = {"role": "user", "content": "What is the capital of Norway?"}
TOOL = {"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object", "properties": {}}}}


@pytest.fixture(scope="module")
def vocabulary(tiny: Path) -> Tokenizer:
    return Tokenizer.from_file(str(tiny / "tokenizer.json"))


def post(server: Server, route: str, body: Any) -> Any:
    answer = server.client.post(route, json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def refused(answer: httpx.Response, status: int) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    error: dict[str, Any] = answer.json()["error"]
    return error


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_comes_back_from_its_tokens(server: Server, vocabulary: Tokenizer, text: str) -> None:
    tokens = post(server, "/tokenize", {"content": text})["tokens"]
    assert tokens == vocabulary.encode(text, add_special_tokens=False).ids
    assert post(server, "/detokenize", {"tokens": tokens}) == {"content": text}


@pytest.mark.parametrize("text", TEXTS)
def test_pieces_are_text_or_the_bytes_of_a_part_of_a_character(server: Server, text: str) -> None:
    pieces = post(server, "/tokenize", {"content": text, "with_pieces": True})["tokens"]
    assert [piece["id"] for piece in pieces] == post(server, "/tokenize", {"content": text})["tokens"]
    spelled = [piece["piece"] for piece in pieces]
    assert b"".join(p.encode() if isinstance(p, str) else bytes(p) for p in spelled).decode() == text
    for piece in spelled:
        if isinstance(piece, list):
            with pytest.raises(UnicodeDecodeError):
                bytes(piece).decode()


def test_a_character_of_several_tokens_is_told_in_bytes(server: Server) -> None:
    pieces = post(server, "/tokenize", {"content": "日", "with_pieces": True})["tokens"]
    assert len(pieces) > 1
    assert [byte for piece in pieces for byte in piece["piece"]] == list("日".encode())


def test_text_and_tokens_may_be_mixed(server: Server) -> None:
    tokens = post(server, "/tokenize", {"content": "Hello"})["tokens"]
    world = post(server, "/tokenize", {"content": " world"})["tokens"]
    assert post(server, "/tokenize", {"content": [*tokens, " world"]})["tokens"] == tokens + world
    assert post(server, "/tokenize", {"content": []}) == {"tokens": []}


def test_what_a_model_wants_before_a_text_is_added_where_it_is_asked_for(server: Server) -> None:
    plain = post(server, "/tokenize", {"content": "Hello"})["tokens"]
    special = post(server, "/tokenize", {"content": "Hello", "add_special": True})["tokens"]
    assert special[-len(plain) :] == plain


def test_part_of_a_character_becomes_the_replacement_character(server: Server) -> None:
    first = post(server, "/tokenize", {"content": "日"})["tokens"][0]
    assert "\ufffd" in post(server, "/detokenize", {"tokens": [first]})["content"]


@pytest.mark.parametrize(
    ("route", "body", "status", "param"),
    [
        ("/tokenize", {}, 422, "content"),
        ("/tokenize", {"content": 5}, 422, "content"),
        ("/tokenize", {"content": [1.5]}, 422, "content"),
        ("/tokenize", {"content": [[1]]}, 422, "content"),
        ("/tokenize", {"content": "a", "with_pieces": "yes"}, 422, "with_pieces"),
        ("/tokenize", {"content": [768_000]}, 400, "content"),
        ("/tokenize", {"content": [-1]}, 400, "content"),
        ("/detokenize", {}, 422, "tokens"),
        ("/detokenize", {"tokens": "a"}, 422, "tokens"),
        ("/detokenize", {"tokens": ["a"]}, 422, "tokens"),
        ("/detokenize", {"tokens": [True]}, 422, "tokens"),
        ("/detokenize", {"tokens": [768_000]}, 400, "tokens"),
        ("/detokenize", {"tokens": [-1]}, 400, "tokens"),
        ("/apply-template", {}, 422, "messages"),
        ("/apply-template", {"messages": []}, 422, "messages"),
        ("/v1/chat/completions/input_tokens", {"messages": "a"}, 422, "messages"),
        ("/v1/chat/completions/input_tokens", {"messages": [USER], "audio": {}}, 400, "audio"),
    ],
)
def test_what_cannot_be_taken_is_refused_by_name(
    server: Server, route: str, body: dict[str, Any], status: int, param: str
) -> None:
    error = refused(server.client.post(route, json=body), status)
    assert (error["param"] or "").startswith(param)
    assert param in error["message"]


# What a conversation becomes.


def test_the_rendered_prompt_is_what_a_chat_continues(server: Server) -> None:
    body = {"messages": [USER], "temperature": 0, "max_tokens": 12, "reasoning_format": "none", "tools": [TOOL]}
    prompt = post(server, "/apply-template", body)["prompt"]
    assert USER["content"] in prompt
    assert "get_weather" in prompt
    said = post(server, "/v1/chat/completions", body | {"tool_choice": "none"})
    continued = post(server, "/completion", {"prompt": prompt, "temperature": 0, "n_predict": 12})
    assert continued["content"] == said["choices"][0]["message"]["content"]
    assert continued["tokens_evaluated"] == said["usage"]["prompt_tokens"]


def test_the_rendered_prompt_ends_with_a_beginning_that_was_given(server: Server) -> None:
    messages = [USER, {"role": "assistant", "content": "The cap"}]
    assert post(server, "/apply-template", {"messages": messages})["prompt"].endswith("The cap")


def test_what_begins_an_answer_can_be_left_out(server: Server) -> None:
    body = {"messages": [USER]}
    whole = post(server, "/apply-template", body)["prompt"]
    bare = post(server, "/apply-template", body | {"add_generation_prompt": False})["prompt"]
    assert whole.startswith(bare)
    assert whole.removeprefix(bare) == "<|im_start|>assistant\n"


def test_the_arguments_of_the_template_reach_it(server: Server) -> None:
    def prompt(thinking: bool) -> str:
        kwargs = {"enable_thinking": thinking}
        return str(post(server, "/apply-template", {"messages": [USER], "chat_template_kwargs": kwargs})["prompt"])

    assert prompt(True) != prompt(False)


@pytest.mark.parametrize("route", ["/v1/chat/completions/input_tokens", "/chat/completions/input_tokens"])
def test_the_tokens_of_a_conversation_are_counted_as_a_chat_counts_them(server: Server, route: str) -> None:
    for more in ({}, {"tools": [TOOL]}, {"max_tokens": 1}):
        body = {"messages": [USER]} | more
        counted = post(server, route, body)
        assert set(counted) == {"input_tokens", "object"}
        assert counted["object"] == "response.input_tokens"
        usage = post(server, "/v1/chat/completions", body | {"max_tokens": 0})["usage"]
        assert counted["input_tokens"] == usage["prompt_tokens"]


def test_what_is_too_long_to_be_answered_is_counted_all_the_same(server: Server) -> None:
    long = {"role": "user", "content": "the river " * 20_000}
    assert post(server, "/v1/chat/completions/input_tokens", {"messages": [long]})["input_tokens"] > 20_000
    assert post(server, "/apply-template", {"messages": [long]})["prompt"]


def test_what_has_no_effect_is_named(server: Server) -> None:
    for route, body in [
        ("/tokenize", {"content": "a"}),
        ("/detokenize", {"tokens": [1]}),
        ("/apply-template", {"messages": [USER]}),
        ("/v1/chat/completions/input_tokens", {"messages": [USER]}),
    ]:
        answer = server.client.post(route, json=body | {"frobnicate": 1})
        assert answer.headers["x-tiles-ignored"] == "frobnicate"
