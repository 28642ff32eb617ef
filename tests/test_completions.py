"""Prompts that go past the chat template: OpenAI's and llama.cpp's completions, as clients see them."""

import json
import socket
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from tokenizers import Tokenizer

from tests.conftest import CONTEXT, KEY, Server, events, wait_for

GREEDY = {"temperature": 0, "max_tokens": 12}
SAMPLED = {"temperature": 1.0, "top_k": 0, "top_p": 1, "min_p": 0, "seed": 7, "ignore_eos": True, "max_tokens": 12}
PROMPTS = ["The quick brown fox", "Once upon a time", "Hello"]
TIMINGS = {"cache_n", "prompt_n", "prompt_ms", "prompt_per_second", "predicted_n", "predicted_ms"}


@pytest.fixture(scope="module")
def vocabulary(tiny: Path) -> Tokenizer:
    return Tokenizer.from_file(str(tiny / "tokenizer.json"))


def complete(server: Server, prompt: Any, **more: Any) -> dict[str, Any]:
    answer = server.client.post("/v1/completions", json={"prompt": prompt} | more)
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def texts(answer: dict[str, Any]) -> list[str]:
    assert [choice["index"] for choice in answer["choices"]] == list(range(len(answer["choices"])))
    return [choice["text"] for choice in answer["choices"]]


def chunks(server: Server, prompt: Any, **more: Any) -> list[dict[str, Any]]:
    answer = server.client.post("/v1/completions", json={"prompt": prompt, "stream": True} | more)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/event-stream")
    return events(answer.text)


def native(server: Server, prompt: Any, **more: Any) -> Any:
    answer = server.client.post("/completion", json={"prompt": prompt} | more)
    assert answer.status_code == 200, answer.text
    return answer.json()


def native_events(server: Server, prompt: Any, **more: Any) -> list[dict[str, Any]]:
    answer = server.client.post("/completion", json={"prompt": prompt, "stream": True} | more)
    assert answer.status_code == 200, answer.text
    return events(answer.text, ended=False)


def refused(server: Server, body: dict[str, Any], *statuses: int, route: str = "/v1/completions") -> dict[str, Any]:
    answer = server.client.post(route, json=body)
    assert answer.status_code in statuses, answer.text
    error: dict[str, Any] = answer.json()["error"]
    return error


# Shapes.


def test_an_answer_has_the_shape_of_openai(server: Server) -> None:
    answer = complete(server, "The quick brown fox", **GREEDY)
    assert answer["id"].startswith("cmpl-")
    assert answer["object"] == "text_completion"
    assert answer["model"] == "tiny"
    assert answer["usage"]["total_tokens"] == answer["usage"]["prompt_tokens"] + answer["usage"]["completion_tokens"]
    assert set(answer["timings"]) >= TIMINGS
    (choice,) = answer["choices"]
    assert set(choice) == {"text", "index", "logprobs", "finish_reason"}
    assert choice["logprobs"] is None
    assert choice["finish_reason"] in {"stop", "length"}


def test_a_stream_is_chunks_of_text_and_ends_with_the_usage(server: Server) -> None:
    said = chunks(server, "The quick brown fox", **SAMPLED)
    assert len({(chunk["id"], chunk["created"], chunk["model"]) for chunk in said}) == 1
    *pieces, last = said
    for piece in pieces:
        assert piece["object"] == "text_completion"
        assert "usage" not in piece
        assert "timings" not in piece
        assert piece["choices"][0]["finish_reason"] is None
    assert last["choices"] == [{"text": "", "index": 0, "logprobs": None, "finish_reason": "length"}]
    assert last["usage"]["completion_tokens"] == 12
    assert set(last["timings"]) >= TIMINGS


def test_usage_moves_to_a_chunk_of_its_own_where_it_is_asked_for(server: Server) -> None:
    *_, finish, last = chunks(server, PROMPTS, stream_options={"include_usage": True}, **SAMPLED)
    assert finish["choices"][0]["finish_reason"] == "length"
    assert "usage" not in finish
    assert last["choices"] == []
    assert last["usage"]["completion_tokens"] == 36


def test_the_official_client_reads_both(server: Server) -> None:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none") as client:
        whole = client.completions.create(model="x", prompt=PROMPTS, max_tokens=4, n=2, logprobs=2, seed=1)
        assert [choice.index for choice in whole.choices] == list(range(6))
        scores = whole.choices[0].logprobs
        assert scores is not None
        assert scores.tokens is not None
        # Of a character that is not whole the text has a mark, and its token nothing.
        assert "".join(scores.tokens) == whole.choices[0].text.replace("\ufffd", "")
        assert scores.text_offset is not None
        assert scores.text_offset[0] == 0
        streamed = [""] * 6
        for chunk in client.completions.create(
            model="x", prompt=PROMPTS, max_tokens=4, n=2, logprobs=2, seed=1, stream=True
        ):
            for choice in chunk.choices:
                streamed[choice.index] += choice.text
        assert streamed == [choice.text for choice in whole.choices]


# Prompts.


def test_prompts_are_answered_in_their_order_as_each_would_be_alone(server: Server) -> None:
    for how in (GREEDY, SAMPLED):
        together = complete(server, PROMPTS, **how)
        alone = [complete(server, prompt, **how) for prompt in PROMPTS]
        assert texts(together) == [texts(answer)[0] for answer in alone]
        for count in ("prompt_tokens", "completion_tokens", "total_tokens"):
            assert together["usage"][count] == sum(answer["usage"][count] for answer in alone)


def test_what_is_streamed_is_what_is_answered_whole(server: Server) -> None:
    whole = complete(server, PROMPTS, **SAMPLED)
    streamed = chunks(server, PROMPTS, **SAMPLED)
    said = [""] * len(PROMPTS)
    for chunk in streamed:
        for choice in chunk["choices"]:
            said[choice["index"]] += choice["text"]
    assert said == texts(whole)
    finished = [choice["index"] for chunk in streamed for choice in chunk["choices"] if choice["finish_reason"]]
    assert sorted(finished) == [0, 1, 2]
    assert streamed[-1]["usage"]["completion_tokens"] == whole["usage"]["completion_tokens"]


@pytest.mark.parametrize("route", ["/v1/completions", "/completion"])
def test_a_prompt_may_be_text_or_tokens_or_both(server: Server, vocabulary: Tokenizer, route: str) -> None:
    text = "The quick brown fox"
    ids = vocabulary.encode(text).ids

    def ask(prompt: Any) -> Any:
        answer = server.client.post(route, json={"prompt": prompt} | GREEDY).json()
        if isinstance(answer, list):
            return [one["content"] for one in answer]
        return answer["content"] if "content" in answer else texts(answer)

    one = ask(text)
    assert ask(ids) == one
    assert ask({"prompt_string": text}) == one
    assert ask([*ids[:2], vocabulary.decode(ids[2:])]) == one
    several = [text, ids, {"prompt_string": text}, [text], [vocabulary.decode(ids[:1]), *ids[1:]]]
    expected = one if isinstance(one, str) else one[0]
    assert ask(several) == [expected] * 5


def test_the_space_that_begins_an_answer_is_kept(server: Server, vocabulary: Tokenizer) -> None:
    spaced = next(token for text, token in vocabulary.get_vocab().items() if text.startswith("Ġ") and len(text) > 2)
    how = {"max_tokens": 2, "temperature": 0, "logit_bias": {str(spaced): 100}}
    text = vocabulary.decode([spaced, spaced])
    assert text.startswith(" ")
    assert texts(complete(server, "The", **how)) == [text]
    assert "".join(chunk["choices"][0]["text"] for chunk in chunks(server, "The", **how)) == text
    assert native(server, "The", **how)["content"] == text


def test_a_prompt_is_not_put_into_the_chat_template(server: Server, vocabulary: Tokenizer) -> None:
    usage = complete(server, "The quick brown fox", max_tokens=1)["usage"]
    assert usage["prompt_tokens"] == len(vocabulary.encode("The quick brown fox").ids)


def test_markup_stays_in_the_text(server: Server, vocabulary: Tokenizer) -> None:
    for mark in ("<think>", "<tool_call>"):
        token = vocabulary.token_to_id(mark)
        answer = complete(server, "Hm", max_tokens=2, temperature=0, logit_bias={str(token): 100})
        assert texts(answer) == [mark * 2]


def test_echo_puts_the_prompt_before_the_answer(server: Server, vocabulary: Tokenizer) -> None:
    prompt = "The quick brown fox"
    for given in (prompt, vocabulary.encode(prompt).ids):
        plain = texts(complete(server, [given, "Once"] if given == prompt else given, **GREEDY))
        echoed = texts(complete(server, [given, "Once"] if given == prompt else given, echo=True, **GREEDY))
        assert echoed[0] == prompt + plain[0]
        streamed = chunks(server, given, echo=True, **GREEDY)
        assert streamed[0]["choices"][0]["text"] == prompt
        assert "".join(chunk["choices"][0]["text"] for chunk in streamed) == echoed[0]
    only = complete(server, prompt, echo=True, max_tokens=0)
    assert texts(only) == [prompt]
    assert only["usage"]["completion_tokens"] == 0
    assert only["choices"][0]["finish_reason"] == "length"


@pytest.mark.parametrize(
    ("prompt", "statuses"),
    [
        ("", (400,)),
        ([""], (400,)),
        (["Hi", ""], (400,)),
        ([], (422,)),
        ([[]], (400,)),
        (5, (422,)),
        ([5.5], (422,)),
        ([True], (422,)),
        ([[["Hi"]]], (422,)),
        ([1, [2]], (422,)),
        ([-1], (400,)),
        ([768_000], (400,)),
        ([["Hi"], [768_000]], (400,)),
        ({"prompt_string": "Hi", "multimodal_data": ["AAAA"]}, (400,)),
        ({}, (422,)),
        ({"prompt_string": 5}, (422,)),
        (["Hi"] * 65, (422,)),
        (None, (422,)),
    ],
)
@pytest.mark.parametrize("route", ["/v1/completions", "/completion"])
def test_a_prompt_that_is_none_is_refused(server: Server, route: str, prompt: Any, statuses: tuple[int, ...]) -> None:
    for stream in (False, True):
        error = refused(server, {"prompt": prompt, "stream": stream, "max_tokens": 1}, *statuses, route=route)
        assert (error["param"] or "").startswith("prompt")
        assert "prompt" in error["message"]


def test_one_prompt_that_does_not_fit_refuses_them_all(server: Server) -> None:
    body = {"prompt": ["Hi", "the river " * 9000], "max_tokens": 8000, "ignore_eos": True}
    for route in ("/v1/completions", "/completion"):
        for stream in (False, True):
            error = refused(server, body | {"stream": stream}, 400, route=route)
            assert error["code"] == "context_length_exceeded"
            assert error["n_ctx"] == 8192
            assert error["n_prompt_tokens"] > 9000


def test_a_suffix_needs_a_model_that_can_fill_in(server: Server) -> None:
    error = refused(server, {"prompt": "def f(", "suffix": "return"}, 400)
    assert (error["param"], error["code"]) == ("suffix", "no_infill")
    assert "fill-in-the-middle" in error["message"]
    assert complete(server, "def f(", suffix="", max_tokens=1)["choices"]
    for stream in (False, True):
        body = {"input_prefix": "def f(", "input_suffix": "", "stream": stream}
        assert refused(server, body, 400, route="/infill")["code"] == "no_infill"
    for missing in ({"input_prefix": "a"}, {"input_suffix": "a"}, {}):
        assert refused(server, missing, 422, route="/infill")["param"] in {"input_prefix", "input_suffix"}


# The answer.


def test_an_answer_ends_at_a_stop_string_before_it(server: Server) -> None:
    whole = texts(complete(server, PROMPTS, **SAMPLED))
    stop = printable(whole[0])
    stopped = complete(server, PROMPTS, stop=stop, **SAMPLED)
    assert texts(stopped) == [text.partition(stop)[0] for text in whole]
    assert stopped["choices"][0]["finish_reason"] == "stop"


def printable(text: str) -> str:
    """A character of a text that is no half of one."""
    return next(letter for letter in text[3:] if letter.isascii() and letter.isprintable())


@pytest.mark.parametrize("limit", [{}, {"max_tokens": -1}, {"n_predict": 9999}])
def test_without_a_limit_an_answer_ends_with_the_context(guarded: Server, limit: dict[str, int]) -> None:
    headers = {"X-Api-Key": KEY}
    body = {"prompt": [5, 6, 7, 8] * (CONTEXT // 4 - 8), "ignore_eos": True} | limit
    answer = guarded.client.post("/v1/completions", json=body, headers=headers).json()
    assert answer["usage"]["total_tokens"] == CONTEXT
    assert answer["choices"][0]["finish_reason"] == "length"
    answer = guarded.client.post("/completion", json=body, headers=headers).json()
    assert (answer["truncated"], answer["stop_type"]) == (True, "limit")
    assert answer["tokens_evaluated"] + answer["tokens_predicted"] == answer["tokens_cached"] + 1 == CONTEXT


def test_several_answers_to_a_prompt_differ_and_count_it_once(server: Server) -> None:
    answer = complete(server, ["The quick", "Once"], n=3, **SAMPLED)
    assert len(set(texts(answer))) == 6
    assert answer == answer | {"usage": answer["usage"] | {"completion_tokens": 72}}
    single = complete(server, ["The quick", "Once"], **SAMPLED)
    assert answer["usage"]["prompt_tokens"] == single["usage"]["prompt_tokens"]
    assert [texts(answer)[0], texts(answer)[3]] == texts(single)
    last = chunks(server, ["The quick", "Once"], n=3, **SAMPLED)[-1]
    assert last["usage"]["prompt_tokens"] == single["usage"]["prompt_tokens"]
    assert refused(server, {"prompt": ["a"] * 40, "n": 2}, 422)["param"] == "prompt"
    assert refused(server, {"prompt": "a", "n": 33}, 400)["param"] == "n"


def test_log_probabilities_are_told_in_both_shapes(server: Server) -> None:
    answer = complete(server, "The quick brown fox", logprobs=3, **SAMPLED)
    text, told = answer["choices"][0]["text"], answer["choices"][0]["logprobs"]
    assert len(told["tokens"]) == len(told["token_logprobs"]) == len(told["text_offset"]) == len(told["content"]) == 12
    assert all(len(top) <= 3 for top in told["top_logprobs"])
    assert all(logprob <= 0 for logprob in told["token_logprobs"])
    assert bytes(byte for token in told["content"] for byte in token["bytes"]).decode(errors="replace") == text
    streamed = [
        chunk["choices"][0]["logprobs"] for chunk in chunks(server, "The quick brown fox", logprobs=3, **SAMPLED)
    ]
    for name in ("tokens", "token_logprobs", "text_offset", "content"):
        assert [item for part in streamed if part for item in part[name]] == told[name]
    none = complete(server, "The quick brown fox", logprobs=0, **SAMPLED)["choices"][0]["logprobs"]
    assert none["top_logprobs"] is None
    assert none["token_logprobs"] == told["token_logprobs"]
    assert refused(server, {"prompt": "Hi", "logprobs": 21}, 422)["param"] == "logprobs"


@pytest.mark.parametrize("route", ["/v1/completions", "/completion"])
def test_a_grammar_binds_the_answer(server: Server, route: str) -> None:
    for how in ({"grammar": 'root ::= "yes" | "no"'}, {"choice": ["yes", "no"]}, {"regex": "yes|no"}):
        answer = server.client.post(route, json={"prompt": "Is it?", "max_tokens": 20} | how).json()
        assert (answer["content"] if "content" in answer else texts(answer)[0]) in {"yes", "no"}


def test_a_bias_may_be_a_list_of_pairs(server: Server, vocabulary: Tokenizer) -> None:
    a, b = vocabulary.token_to_id("a"), vocabulary.token_to_id("b")
    how = {"max_tokens": 3, "temperature": 0}
    assert texts(complete(server, "Say", logit_bias=[[a, 80], [b, 99.5]], **how)) == ["bbb"]
    assert texts(complete(server, "Say", logit_bias=[[a, 90], [b, False]], **how)) == ["aaa"]
    assert texts(complete(server, "Say", logit_bias=[["a", 80], ["b", 99.5]], **how)) == ["bbb"]
    assert texts(complete(server, "Say", logit_bias=[["a", 90], ["b", False]], **how)) == ["aaa"]
    assert set(texts(complete(server, "Say", logit_bias=[["ab", 100]], **how))[0]) <= {"a", "b"}
    for wrong in ([[a]], [[a, True]], [["", 1]], [[a, "1"]], [[a, 101]], [[a, 1, 2]], [a], [[-1, 1]], [[True, 1]]):
        assert refused(server, {"prompt": "Say", "logit_bias": wrong}, 422)["param"].startswith("logit_bias")
    assert refused(server, {"prompt": "Say", "logit_bias": [[768_000, 1]]}, 400)["param"] == "logit_bias"


def test_progress_and_timings_come_where_they_are_asked_for(server: Server) -> None:
    how = {"return_progress": True, "timings_per_token": True} | SAMPLED
    said = chunks(server, ["One two three four", "Five six seven"], **how)
    for index in (0, 1):
        own = [chunk for chunk in said if chunk["choices"][0]["index"] == index]
        steps = [chunk["prompt_progress"] for chunk in own if "prompt_progress" in chunk]
        assert steps[0]["processed"] == steps[0]["cache"]
        assert steps[-1]["processed"] == steps[-1]["total"]
        assert all("timings" in chunk for chunk in own if chunk["choices"][0]["text"])


# llama.cpp's own.


def test_a_native_answer_has_the_shape_of_llama_cpp(server: Server) -> None:
    for route in ("/completion", "/completions"):
        answer = server.client.post(
            route, json={"prompt": "The quick brown fox", "n_predict": 12, "temperature": 0}
        ).json()
        assert set(answer) == {
            *("index", "content", "tokens", "id_slot", "stop", "model", "tokens_predicted", "tokens_evaluated"),
            *("generation_settings", "prompt", "has_new_line", "truncated", "stop_type", "stopping_word"),
            *("tokens_cached", "timings"),
        }
        assert answer["stop"] is True
        assert answer["prompt"] == "The quick brown fox"
        assert answer["content"] == texts(complete(server, "The quick brown fox", **GREEDY))[0]
        assert answer["tokens_cached"] == answer["tokens_evaluated"] + answer["tokens_predicted"] - 1
        assert answer["has_new_line"] == ("\n" in answer["content"])
        settings = answer["generation_settings"]
        assert (settings["temperature"], settings["n_predict"], settings["max_tokens"]) == (0.0, 12, 12)
        assert settings.keys() >= server.client.get("/props").json()["default_generation_settings"]["params"].keys()


def test_a_native_stream_ends_with_the_whole_object_and_nothing_after_it(server: Server) -> None:
    *pieces, last = native_events(server, "The quick brown fox", **SAMPLED)
    assert all(set(piece) == PIECE and piece["stop"] is False for piece in pieces)
    whole = native(server, "The quick brown fox", **SAMPLED)
    assert "".join(piece["content"] for piece in pieces) == whole["content"]
    assert [piece["tokens_predicted"] for piece in pieces] == sorted(piece["tokens_predicted"] for piece in pieces)
    assert set(last) == set(whole)
    assert (last["content"], last["tokens"], last["stop"]) == ("", [], True)
    same = ("tokens_predicted", "tokens_evaluated", "prompt", "stop_type", "stopping_word", "truncated", "has_new_line")
    assert {name: last[name] for name in same} == {name: whole[name] for name in same}


PIECE = {"index", "content", "tokens", "stop", "id_slot", "tokens_predicted", "tokens_evaluated"}


def test_several_native_prompts_are_a_list(server: Server) -> None:
    answers = native(server, PROMPTS, **GREEDY)
    assert [answer["index"] for answer in answers] == [0, 1, 2]
    assert [answer["prompt"] for answer in answers] == PROMPTS
    assert [answer["content"] for answer in answers] == texts(complete(server, PROMPTS, **GREEDY))
    streamed = native_events(server, PROMPTS, **GREEDY)
    ends = [event["index"] for event in streamed if event["stop"]]
    assert sorted(ends) == [0, 1, 2]
    for index, answer in enumerate(answers):
        assert "".join(event["content"] for event in streamed if event["index"] == index) == answer["content"]


def test_the_reason_of_the_end_is_told(server: Server, vocabulary: Tokenizer) -> None:
    end = {str(vocabulary.token_to_id("<|im_end|>")): 100}
    assert native(server, "Hi", n_predict=5, logit_bias=end)["stop_type"] == "eos"
    limited = native(server, "Hi", n_predict=5, ignore_eos=True)
    assert (limited["stop_type"], limited["truncated"]) == ("limit", False)
    text = native(server, "The quick brown fox", **SAMPLED)["content"]
    stop = printable(text)
    stopped = native(server, "The quick brown fox", stop=["never", stop], **SAMPLED)
    assert (stopped["stop_type"], stopped["stopping_word"]) == ("word", stop)


def test_zero_tokens_compute_the_prompt_only(server: Server) -> None:
    prompt = "Computed ahead of its question, and then it is there."
    for answer in (native(server, prompt, n_predict=0), native_events(server, prompt, n_predict=0)[-1]):
        assert (answer["content"], answer["tokens_predicted"], answer["stop_type"]) == ("", 0, "limit")
        assert answer["tokens_cached"] == answer["tokens_evaluated"]
        assert answer["truncated"] is False
    assert native(server, prompt, n_predict=1)["timings"]["prompt_n"] == 1


def test_fields_can_be_picked_and_taken_out(server: Server) -> None:
    names = ["content", "generation_settings/n_predict", "timings/predicted_n", "nothing", "content/x", "/", ""]
    answer = native(server, "The quick", n_predict=3, ignore_eos=True, response_fields=names)
    assert set(answer) == {"content", "generation_settings/n_predict", "timings/predicted_n"}
    assert (answer["generation_settings/n_predict"], answer["timings/predicted_n"]) == (3, 3)
    assert native(server, ["a", "b"], n_predict=1, response_fields=["index"]) == [{"index": 0}, {"index": 1}]
    *pieces, last = native_events(server, "a", n_predict=2, ignore_eos=True, response_fields=["stop"])
    assert last == {"stop": True}
    assert all("content" in piece for piece in pieces)


def test_tokens_and_probabilities_are_told_where_they_are_asked_for(server: Server, vocabulary: Tokenizer) -> None:
    how = {"return_tokens": True, "n_probs": 2} | SAMPLED
    whole = native(server, "The quick brown fox", **how)
    assert len(whole["tokens"]) == 12
    assert vocabulary.decode(whole["tokens"], skip_special_tokens=False) == whole["content"]
    assert [entry["id"] for entry in whole["completion_probabilities"]] == whole["tokens"]
    assert all(len(entry["top_logprobs"]) == 2 for entry in whole["completion_probabilities"])
    pieces = native_events(server, "The quick brown fox", **how)[:-1]
    assert [token for piece in pieces for token in piece["tokens"]] == whole["tokens"]
    told = [entry for piece in pieces for entry in piece["completion_probabilities"]]
    assert told == whole["completion_probabilities"]
    plain = native(server, "The quick brown fox", **SAMPLED)
    assert (plain["content"], plain["tokens"]) == (whole["content"], [])
    assert "completion_probabilities" not in plain


def test_probabilities_after_sampling_are_of_what_is_left(server: Server) -> None:
    how: dict[str, Any] = {"n_probs": 8, "post_sampling_probs": True} | SAMPLED
    plain = native(server, "The quick brown fox", **SAMPLED)
    few = native(server, "The quick brown fox", **how | {"top_k": 5, "min_p": 0, "top_p": 1})
    for token in few["completion_probabilities"]:
        tops = {top["id"]: top["prob"] for top in token["top_probs"]}
        assert len(tops) == 5
        assert sum(tops.values()) == pytest.approx(1, abs=1e-3)
        assert token["prob"] == tops[token["id"]]
        assert list(tops.values()) == sorted(tops.values(), reverse=True)
        assert token.keys() == {"id", "token", "bytes", "prob", "top_probs"}
    assert few["generation_settings"]["post_sampling_probs"] is True
    assert native(server, "The quick brown fox", **how)["content"] == plain["content"], "telling changes nothing"
    pieces = native_events(server, "The quick brown fox", **how | {"temperature": 0})[:-1]
    assert [entry["prob"] for piece in pieces for entry in piece["completion_probabilities"]] == [1.0] * 12


# Hanging up.

ENDLESS = {"prompt": [f"{number} hang up" for number in range(64)], "max_tokens": 8000, "ignore_eos": True}


@pytest.mark.parametrize("route", ["/v1/completions", "/completion"])
def test_a_hang_up_cancels_every_answer_of_a_stream(server: Server, route: str) -> None:
    logged = len(server.logged("request"))
    with (
        httpx.Client(base_url=server.url, timeout=60) as client,
        client.stream("POST", route, json=ENDLESS | {"stream": True}) as answer,
    ):
        next(answer.iter_lines())
    wait_for(lambda: len(server.logged("request")) > logged, 10, what="the line of the request")
    assert there_is_room(server)


def test_a_hang_up_cancels_every_answer_that_was_to_come_whole(server: Server) -> None:
    logged = len(server.logged("request"))
    body = json.dumps(ENDLESS).encode()
    address = (httpx.URL(server.url).host, httpx.URL(server.url).port or 0)
    with closing(socket.create_connection(address)) as connection:
        head = f"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
        connection.sendall(head.encode() + body)
        server.client.post("/tokenize", json={"content": "It is being prepared by now."})
    line = wait_for(lambda: status_499(server, logged), 10, what="the line of the request")
    assert line["route"] == "/v1/completions"
    assert there_is_room(server)


def status_499(server: Server, logged: int) -> dict[str, Any] | None:
    return next((line for line in server.logged("request")[logged:] if line["status"] == 499), None)


def there_is_room(server: Server) -> bool:
    """Whether an answer comes at once; behind 64 endless ones it would not."""
    answer = server.client.post("/v1/completions", json={"prompt": "And now?", "max_tokens": 2}, timeout=10)
    return answer.status_code == 200 and server.errors() == []


# The log.


def test_the_log_line_counts_all_prompts_and_tells_none(server: Server) -> None:
    body = {"prompt": ["xylophone-secret", "another"], "max_tokens": 3, "ignore_eos": True}
    answer = server.client.post("/v1/completions", json=body)
    identity = answer.headers["x-request-id"]
    line = wait_for(lambda: next((n for n in server.logged("request") if n["request_id"] == identity), None))
    assert line["completion_tokens"] == 6
    assert line["prompt_tokens"] == answer.json()["usage"]["prompt_tokens"]
    assert "xylophone" not in server.log
