"""What llama.cpp's Web UI sends, new and old ones, and what it reads of the answers."""

import json
import threading
from typing import Any

import httpx
import pytest

from tests.conftest import Server, events, said

# What a message of the newest Web UI carries besides its conversation.
SENT: dict[str, Any] = {
    "return_progress": True,
    "sse_ping_interval": 1,
    "timings_per_token": True,
    "backend_sampling": False,
    "reasoning_format": "auto",
    "reasoning_control": True,
}
# Its two tools that run in the browser go with every message.
TOOLS = [
    {"type": "function", "function": {"name": name, "description": "of the browser", "parameters": {"type": "object"}}}
    for name in ("get_datetime", "get_info")
]
# What its settings can add, each where its user set it.
SETTINGS: dict[str, Any] = {
    "temperature": 0.5,
    "max_tokens": -1,
    "dynatemp_range": 0,
    "dynatemp_exponent": 1,
    "top_k": 40,
    "top_p": 0.95,
    "min_p": 0.05,
    "xtc_probability": 0,
    "xtc_threshold": 0.1,
    "typ_p": 1,
    "repeat_last_n": -1,
    "repeat_penalty": 1,
    "presence_penalty": 0,
    "frequency_penalty": 0,
    "dry_multiplier": 0,
    "dry_base": 1.75,
    "dry_allowed_length": 2,
    "dry_penalty_last_n": -1,
    "samplers": ["top_k", "typ_p", "top_p", "min_p", "temperature"],
}
THINKING = {"chat_template_kwargs": {"enable_thinking": True}, "ignore_eos": True, "max_tokens": 400, "seed": 1}
PARTIAL = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello, I"}]


def test_a_message_with_every_setting_is_answered_and_has_what_is_read(server: Server) -> None:
    chunks = server.stream("Hello there", **SENT, tools=TOOLS, **SETTINGS | {"max_tokens": 12})
    assert len({chunk["id"] for chunk in chunks}) == 1
    assert {chunk["model"] for chunk in chunks} == {"tiny"}
    assert all(len(chunk["choices"]) == 1 for chunk in chunks)
    spoken = [chunk for chunk in chunks if chunk["choices"][0]["delta"].get("content")]
    for chunk in [*spoken, chunks[-1]]:
        timings = chunk["timings"]
        assert all(timings[name] >= 0 for name in ("prompt_n", "prompt_ms", "predicted_n", "predicted_ms", "cache_n"))
    assert spoken


def test_a_user_may_set_every_unlimited_value(server: Server) -> None:
    answer = server.chat(**SETTINGS, stop=["e", "a", "o"])
    assert answer.status_code == 200, answer.text


@pytest.mark.slow
@pytest.mark.parametrize(
    "setting",
    [
        {"dynatemp_range": 5},
        {"dynatemp_range": 5, "dynatemp_exponent": 0.2},
        {"typ_p": 0.05},
        {"samplers": ["top_k"]},
        {"samplers": ["temperature", "typ_p"], "typ_p": 0.05},
        {"dry_multiplier": 50, "dry_allowed_length": 0},
        {"dry_multiplier": 50, "dry_allowed_length": 0, "dry_base": 3},
        {"dry_multiplier": 50, "dry_allowed_length": 0, "dry_penalty_last_n": 40},
        {"top_n_sigma": 0.5},
        {"repeat_penalty": 5, "repeat_last_n": 64},
    ],
)
def test_each_sampling_setting_has_an_effect(server: Server, setting: dict[str, Any]) -> None:
    usual = {"seed": 5, "max_tokens": 60, "ignore_eos": True, "temperature": 0.9, "top_k": 0, "top_p": 1, "min_p": 0}
    plain, other, again = (server.chat("Set it", **usual | more) for more in ({}, setting, setting))
    assert other.status_code == 200, other.text
    said = [answer.json()["choices"][0]["message"]["content"] for answer in (plain, other, again)]
    assert said[0] != said[1] == said[2]
    assert not set(setting) & set(other.headers.get("x-tiles-ignored", "").split(", "))


def test_a_window_longer_than_the_context_costs_no_memory(server: Server) -> None:
    answer = server.chat(repeat_last_n=2**31 - 1, repeat_penalty=1.1, dry_multiplier=1, dry_penalty_last_n=2**31 - 1)
    assert answer.status_code == 200, answer.text


def test_the_prompt_begins_at_0_percent(server: Server) -> None:
    chunks = server.stream("Twelve words that no other test has said to this server", **SENT, max_tokens=2)
    told = [chunk["prompt_progress"] for chunk in chunks if "prompt_progress" in chunk]
    assert told[0]["processed"] == told[0]["cache"]
    assert told[-1]["processed"] == told[-1]["total"]
    assert all(progress["total"] > progress["cache"] for progress in told)
    again = server.stream("Twelve words that no other test has said to this server", **SENT, max_tokens=2)
    assert all(p["total"] > p["cache"] > 0 for chunk in again if (p := chunk.get("prompt_progress")))


def test_a_stream_is_what_the_oldest_parsers_take(server: Server) -> None:
    text = server.chat("Hello", **SENT, stream=True, max_tokens=3).text
    lines = text.split("\n")
    assert all(line == "" or line.startswith(("data: ", ":")) for line in lines)
    assert text.endswith("data: [DONE]\n\n")
    assert all(chunk["choices"] for chunk in events(text))


def test_old_ones_say_no_to_thinking_each_time(server: Server) -> None:
    answer = server.chat(chat_template_kwargs={"enable_thinking": False}, **SENT)
    assert answer.status_code == 200


class Thinking:
    """A stream that thinks, read in a thread of its own."""

    def __init__(self, server: Server) -> None:
        self.id = ""
        self.begun = threading.Event()
        self.chunks: list[dict[str, Any]] = []
        self._thread = threading.Thread(target=self._read, args=(server.url,))
        self._thread.start()
        assert self.begun.wait(60)

    def _read(self, url: str) -> None:
        body = {"messages": [{"role": "user", "content": "Think of it"}], "stream": True, **SENT, **THINKING}
        with httpx.stream("POST", f"{url}/v1/chat/completions", json=body, timeout=60) as answer:
            for line in answer.iter_lines():
                if line.startswith("data: {"):
                    self.chunks.append(json.loads(line.removeprefix("data: ")))
                    self.id = self.chunks[-1]["id"]
                    if self.chunks[-1]["choices"][0]["delta"].get("reasoning_content"):
                        self.begun.set()

    def end(self) -> list[dict[str, Any]]:
        self._thread.join(60)
        return self.chunks


def test_reasoning_can_be_skipped(server: Server) -> None:
    alone = server.stream("Think of it", **THINKING)
    thinking = Thinking(server)
    body = {"action": "reasoning_end", "id": thinking.id, "model": "tiny"}
    answer = server.client.post("/v1/chat/completions/control", json=body)
    assert (answer.status_code, answer.json()["success"]) == (200, True)
    chunks = thinking.end()
    assert said(chunks)
    assert chunks[-1]["choices"][0]["finish_reason"] == "length"
    assert len(said(chunks, "reasoning_content")) < len(said(alone, "reasoning_content"))
    late = server.client.post("/v1/chat/completions/control", json=body).json()
    assert late == {"success": False, "message": "no active completion for this id"}


@pytest.mark.parametrize("body", [{"action": "reasoning_end"}, {"id": "x", "action": "stop"}, {"id": "x"}])
def test_other_controls_are_refused(server: Server, body: dict[str, Any]) -> None:
    answer = server.client.post("/v1/chat/completions/control", json=body)
    assert answer.status_code == 422
    assert answer.json()["error"]["message"]


def prefilled(server: Server, **more: Any) -> dict[str, Any]:
    body = {"messages": PARTIAL, "max_tokens": 8, "temperature": 0, "ignore_eos": True} | more
    answer: dict[str, Any] = server.client.post("/v1/chat/completions", json=body).json()
    return answer


def prefilled_stream(server: Server, **more: Any) -> str:
    body = {"messages": PARTIAL, "max_tokens": 8, "temperature": 0, "ignore_eos": True, "stream": True} | more
    return said(events(server.client.post("/v1/chat/completions", json=body).text))


GOES_ON = {"continue_final_message": True, "add_generation_prompt": False}


def test_an_answer_is_continued_without_an_echo_where_the_stream_was_asked_to(server: Server) -> None:
    whole = prefilled(server)["choices"][0]["message"]["content"]
    assert whole.startswith("Hello, I")
    assert len(whole) > len("Hello, I")
    assert prefilled(server, **GOES_ON)["choices"][0]["message"]["content"] == whole
    assert prefilled_stream(server, **GOES_ON) == whole.removeprefix("Hello, I")
    assert prefilled_stream(server) == whole


def test_a_thought_is_continued_as_a_thought(server: Server) -> None:
    cut = [PARTIAL[0], {"role": "assistant", "content": "", "reasoning_content": "They greet"}]
    message = prefilled(server, messages=cut, **THINKING | {"max_tokens": 20})["choices"][0]["message"]
    assert message["reasoning_content"].startswith("They greet")
    assert len(message["reasoning_content"]) > len("They greet")


def test_the_next_turn_is_computed_ahead(server: Server) -> None:
    turn = [PARTIAL[0], {"role": "assistant", "content": "Hello, I am the one who greets."}]
    ahead = server.client.post("/v1/chat/completions", json={"messages": turn, "n_predict": 0, "stream": False})
    assert ahead.status_code == 200
    assert ahead.json()["usage"]["completion_tokens"] == 0
    next_turn = [*turn, {"role": "user", "content": "Bye"}]
    answer = server.client.post("/v1/chat/completions", json={"messages": next_turn, "max_tokens": 2}).json()
    least = ahead.json()["usage"]["prompt_tokens"] - 1
    assert answer["usage"]["prompt_tokens_details"]["cached_tokens"] >= least, answer["tiles"]


@pytest.mark.parametrize(("method", "path"), [("GET", "/tools"), ("POST", "/tools")])
def test_the_server_has_no_tools_in_words_that_old_and_new_ones_read(server: Server, method: str, path: str) -> None:
    answer = server.client.request(method, path, json={"tool": "file_glob_search", "params": {}})
    assert answer.status_code == 403
    assert "not found" in answer.json()["error"]["message"]


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_the_server_is_nobodys_proxy(server: Server, method: str) -> None:
    answer = server.client.request(method, "/cors-proxy", params={"url": server.url})
    assert answer.status_code == 403
    assert server.client.get("/props").json()["cors_proxy_enabled"] is False


def test_the_properties_are_those_that_are_read(server: Server) -> None:
    props = server.client.get("/props", params={"autoload": "false", "model": "some/other"}).json()
    assert props["role"] == "model"
    assert props["model_alias"] == "tiny"
    assert props["model_path"].endswith("tiny")
    assert props["default_generation_settings"]["n_ctx"] > 0
    params = props["default_generation_settings"]["params"]
    assert set(SETTINGS) <= set(params)
    assert params["samplers"] == [
        *("penalties", "dry", "top_n_sigma", "top_k", "typ_p", "top_p", "min_p", "xtc", "temperature")
    ]
    assert (params["repeat_last_n"], params["dry_penalty_last_n"], params["typ_p"]) == (-1, 64, 1.0)
    assert props["modalities"] == {"vision": False, "audio": False, "video": False}
    assert "enable_thinking" in props["chat_template"]
    assert props["total_slots"] > 0
    assert props["build_info"]
    assert (props["ui_settings"], props["webui_settings"]) == ({}, {})


def test_an_admin_sets_what_its_settings_begin_with(guarded: Server) -> None:
    props = guarded.client.get("/props", headers={"Authorization": "Bearer another-key"}).json()
    assert props["ui_settings"] == props["webui_settings"] == {"theme": "dark", "temperature": 0.3}


def test_the_model_is_listed_with_what_is_read(server: Server) -> None:
    models = server.client.get("/v1/models").json()
    (row,), (named,) = models["data"], models["models"]
    assert row["id"] == named["name"] == named["model"] == "tiny"
    assert {"n_ctx_train", "n_ctx_source", "size", "n_params", "n_embd", "n_vocab", "vocab_type"} <= set(row["meta"])
    assert row["status"]["value"] == "loaded"
    assert "tools" in named["capabilities"]


MEDIA: list[dict[str, Any]] = [
    {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}},
    {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}},
    {"type": "input_video", "input_video": {"data": "AAAA", "format": "auto"}},
]


@pytest.mark.parametrize("part", MEDIA, ids=lambda part: part["type"])
@pytest.mark.parametrize("stream", [True, False])
def test_media_are_refused_before_the_first_byte(server: Server, part: Any, stream: bool) -> None:
    content = [{"type": "text", "text": "\n\n--- File: a.txt ---\nwords"}, part]
    answer = server.chat(messages=[{"role": "user", "content": content}], stream=stream)
    assert answer.status_code == 400
    assert "text only" in answer.json()["error"]["message"]


def test_files_of_text_are_read(server: Server) -> None:
    content = [{"type": "text", "text": "\n\n--- File: a.txt ---\nwords"}, {"type": "text", "text": "What is in it?"}]
    assert server.chat(messages=[{"role": "user", "content": content}], **SENT, stream=True).status_code == 200


def test_a_tool_turn_comes_back(server: Server) -> None:
    call = {"id": "tool_1", "type": "function", "function": {"name": "get_info", "arguments": "{}"}}
    turn = [
        {"role": "user", "content": "What browser is this?"},
        {"role": "assistant", "reasoning_content": "Look.", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "tool_1", "content": [{"type": "text", "text": "Chromium"}]},
    ]
    answer = server.chat(messages=turn, tools=TOOLS, **SENT, stream=True)
    assert answer.status_code == 200, answer.text


def test_what_does_not_fit_says_both_numbers_before_the_first_byte(guarded: Server) -> None:
    key = {"Authorization": "Bearer another-key"}
    body = {"messages": [{"role": "user", "content": "many words " * 2000}], "stream": True, **SENT}
    answer = guarded.client.post("/v1/chat/completions", json=body, headers=key)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["n_prompt_tokens"] > error["n_ctx"] > 0


def test_custom_fields_never_hurt(server: Server) -> None:
    assert server.chat(**{"0": "of an array", "seed": 3, "stop": ["zz"], "anything": {"a": [1]}}).status_code == 200


def test_an_answer_that_is_gone_on_with_does_not_begin_to_think_again(server: Server) -> None:
    (think,) = server.client.post("/tokenize", json={"content": "<think>"}).json()["tokens"]
    bound = {"regex": "(Hello, I)?(la )+", "logit_bias": [[think, 100]]}
    message = prefilled(server, **bound, **GOES_ON)["choices"][0]["message"]
    assert (message["content"][:14], "reasoning_content" in message) == ("Hello, Ila la ", False)
    anew = prefilled(server, **bound, messages=PARTIAL[:1])["choices"][0]["message"]
    assert anew["reasoning_content"]


def test_an_answer_without_an_end_goes_on_as_long_as_its_grammar_lets_it(server: Server) -> None:
    body = {"messages": PARTIAL[:1], "regex": "(la )+", "ignore_eos": True, "max_tokens": 40}
    body |= {"chat_template_kwargs": {"enable_thinking": False}}
    endless = server.client.post("/v1/chat/completions", json=body).json()
    assert endless["choices"][0]["finish_reason"] == "length"
    ended = server.client.post("/v1/chat/completions", json=body | {"regex": "(la ){3}"}).json()
    assert (ended["choices"][0]["message"]["content"], ended["choices"][0]["finish_reason"]) == ("la la la ", "stop")
