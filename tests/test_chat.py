"""Chat completions, as clients see them."""

import json
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from tokenizers import Tokenizer

from tests.conftest import CONTEXT, KEY, Server, events, said, wait_for

TIMINGS = {
    "cache_n",
    "prompt_n",
    "prompt_ms",
    "prompt_per_second",
    "predicted_n",
    "predicted_ms",
    "predicted_per_second",
}
METRICS = {"ttft_ms", "total_tokens", "tokens_per_second", "total_latency_s"}
SAMPLED = {"temperature": 1.0, "top_k": 0, "top_p": 1, "min_p": 0, "seed": 7, "ignore_eos": True}


@pytest.fixture(scope="module")
def vocabulary(tiny: Path) -> Tokenizer:
    return Tokenizer.from_file(str(tiny / "tokenizer.json"))


def long_text(tokens: int, tiny: Path, salt: str) -> str:
    """Text of about so many tokens."""
    words, vocabulary = (
        f"{salt} the river and the house and the bird ",
        Tokenizer.from_file(str(tiny / "tokenizer.json")),
    )
    return words * (tokens // len(vocabulary.encode(words).ids))


@pytest.fixture(scope="module")
def readable(vocabulary: Tokenizer) -> dict[str, Any]:
    """Sampling that makes the random model write plain letters."""
    ids = [i for text, i in vocabulary.get_vocab().items() if text.replace("Ġ", "").isalpha() and text.isprintable()]
    letters = [i for i in ids if (text := vocabulary.decode([i])) and text.isascii()]
    return SAMPLED | {"logit_bias": {str(i): 12 for i in letters}}


def content(answer: httpx.Response) -> str:
    assert answer.status_code == 200, answer.text
    text: str = answer.json()["choices"][0]["message"]["content"]
    return text


def finish(answer: httpx.Response) -> str:
    reason: str = answer.json()["choices"][0]["finish_reason"]
    return reason


# Shapes.


@pytest.mark.parametrize("route", ["/v1/chat/completions", "/chat/completions"])
def test_an_answer_has_the_shape_of_openai(server: Server, route: str) -> None:
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 8, "ignore_eos": True}
    answer = server.client.post(route, json=body).json()
    assert answer["object"] == "chat.completion"
    assert answer["id"].startswith("chatcmpl-")
    assert answer["model"] == "tiny"  # a foreign name is answered by what is served
    assert isinstance(answer["created"], int)
    (choice,) = answer["choices"]
    assert choice["index"] == 0
    assert choice["message"]["role"] == "assistant"
    assert isinstance(choice["message"]["content"], str)
    assert choice["finish_reason"] == "length"
    usage = answer["usage"]
    assert usage["completion_tokens"] == 8
    assert usage["total_tokens"] == usage["prompt_tokens"] + 8
    assert 0 <= usage["prompt_tokens_details"]["cached_tokens"] < usage["prompt_tokens"]
    assert answer["timings"].keys() >= TIMINGS
    assert answer["timings"]["predicted_n"] == 8
    assert answer["timings"]["cache_n"] + answer["timings"]["prompt_n"] == usage["prompt_tokens"]
    assert answer["metrics"].keys() >= METRICS
    assert answer["metrics"]["total_tokens"] == 8
    assert all(value >= 0 for value in (answer["metrics"] | answer["timings"]).values())


def test_a_stream_has_the_shape_of_the_contract(server: Server) -> None:
    first, *deltas, last = server.stream(max_tokens=12, ignore_eos=True)
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert all(set(chunk["choices"][0]["delta"]) == {"content"} for chunk in deltas)
    assert last["choices"][0]["delta"] == {}
    assert last["choices"][0]["finish_reason"] == "length"
    assert last["timings"].keys() >= TIMINGS
    assert last["metrics"].keys() >= METRICS
    assert last["metrics"]["total_tokens"] == last["timings"]["predicted_n"] == 12
    chunks = [first, *deltas, last]
    assert all(chunk["object"] == "chat.completion.chunk" for chunk in chunks)
    assert all(len(chunk["choices"]) == 1 for chunk in chunks)
    assert all(chunk["choices"][0]["finish_reason"] is None for chunk in chunks[:-1])
    for field in ("id", "created", "model", "system_fingerprint"):
        assert len({chunk[field] for chunk in chunks}) == 1
    assert not any("usage" in chunk or "timings" in chunk for chunk in chunks[:-1])


def test_a_stream_says_that_it_is_one(server: Server) -> None:
    answer = server.chat(stream=True)
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["cache-control"] == "no-cache"
    assert "content-length" not in answer.headers


def test_usage_comes_last_in_a_chunk_without_choices_where_it_is_asked_for(server: Server) -> None:
    *_, last, usage = server.stream(max_tokens=5, ignore_eos=True, stream_options={"include_usage": True})
    assert last["choices"][0]["finish_reason"] == "length"
    assert usage["choices"] == []
    assert usage["usage"]["completion_tokens"] == 5
    assert usage["usage"]["total_tokens"] == usage["usage"]["prompt_tokens"] + 5


@pytest.mark.parametrize("options", [None, {}, {"include_usage": False}, {"include_usage": None}])
def test_no_usage_is_streamed_where_it_is_not_asked_for(server: Server, options: Any) -> None:
    assert not any("usage" in chunk for chunk in server.stream(max_tokens=2, stream_options=options))


@pytest.mark.parametrize("name", ["temperature", "stop", "tools", "max_tokens", "logit_bias", "seed", "n", "logprobs"])
def test_null_is_the_same_as_absent(server: Server, name: str) -> None:
    assert server.chat(**{name: None, "max_completion_tokens": 2}).status_code == 200


def read_raw(server: Server, body: dict[str, Any]) -> list[bytes]:
    """The chunks of an answer as they stood on the wire."""
    address = (httpx.URL(server.url).host, httpx.URL(server.url).port or 0)
    payload = json.dumps(body).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(payload)}\r\n"
    with closing(socket.create_connection(address, timeout=30)) as connection:
        connection.sendall(head.encode() + b"Connection: close\r\n\r\n" + payload)
        with connection.makefile("rb") as wire:
            while wire.readline() != b"\r\n":
                pass
            chunks = []
            while size := int(wire.readline(), 16):
                chunks.append(wire.read(size))
                assert wire.read(2) == b"\r\n"
            return chunks


def test_every_event_leaves_in_one_write(server: Server) -> None:
    body = {"messages": [{"role": "user", "content": "Hello"}], "stream": True, "max_tokens": 40, "ignore_eos": True}
    chunks = read_raw(server, body)
    assert len(chunks) > 10  # it streams
    assert all(chunk.startswith(b"data: ") and chunk.endswith(b"\n\n") and b"\r" not in chunk for chunk in chunks)
    assert b"".join(chunks).endswith(b"data: [DONE]\n\n")


# Texts.


@pytest.mark.parametrize(
    ("text", "more"),
    [
        ("Hello", {"temperature": 0}),
        ("Hello", SAMPLED),
        ("What is your name?", SAMPLED | {"seed": 2**63}),
        ("Grüße 🙂", SAMPLED | {"top_k": 40, "top_p": 0.9, "min_p": 0.02}),
        ("", SAMPLED | {"temperature": 1.7, "repetition_penalty": 1.3}),
        ("Count", SAMPLED | {"frequency_penalty": 0.7, "presence_penalty": 0.3, "logit_bias": {"300": 2.5}}),
        ("Stop", SAMPLED | {"stop": ["e", "\n\n", "qu"]}),
    ],
)
def test_the_streamed_text_is_that_of_the_whole_answer(server: Server, text: str, more: dict[str, Any]) -> None:
    whole = server.chat(text, max_tokens=60, **more).json()
    chunks = server.stream(text, max_tokens=60, **more)
    assert said(chunks) == whole["choices"][0]["message"]["content"]
    assert chunks[-1]["choices"][0]["finish_reason"] == whole["choices"][0]["finish_reason"]
    assert chunks[-1]["timings"]["predicted_n"] == whole["usage"]["completion_tokens"]


def test_a_character_is_never_sent_in_halves(server: Server, vocabulary: Tokenizer) -> None:
    # Words of several bytes a character and several tokens a word, each token as likely as the others.
    ids = {token for word in ("größer", "Zürich", "世界", "🙂", "नमस्ते") for token in vocabulary.encode(word).ids}
    for seed in range(2):
        more = SAMPLED | {"seed": seed, "logit_bias": {str(token): 30 for token in ids}, "max_tokens": 120}
        whole, chunks = content(server.chat(**more)), server.stream(**more)
        pieces = [chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks]
        assert "".join(pieces) == whole
        assert len(pieces) > 50
        assert sum(piece.count("\ufffd") for piece in pieces) == whole.count("\ufffd")


def test_the_model_goes_on_with_a_last_message_of_the_assistant(server: Server) -> None:
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello, I"}]
    body = {"messages": messages, "max_tokens": 1, "temperature": 0, "ignore_eos": True}
    answered = server.client.post("/v1/chat/completions", json=body).json()
    asked = server.client.post("/v1/chat/completions", json=body | {"messages": messages[:1]}).json()
    assert answered["usage"]["prompt_tokens"] > asked["usage"]["prompt_tokens"]
    explicit = body | {"continue_final_message": True, "add_generation_prompt": False}
    assert server.client.post("/v1/chat/completions", json=explicit).json()["choices"] == answered["choices"]


@pytest.mark.parametrize(
    "messages",
    [
        [{"role": "developer", "content": "Be brief."}, {"role": "user", "content": "Hi"}],
        [{"role": "system", "content": "Be brief."}, {"role": "user", "content": [{"type": "text", "text": "Hi"}]}],
        [{"role": "user", "content": []}],
        [
            {"role": "user", "content": "Add"},
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [
                    {"id": "call_1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
                ],
            },
            {"role": "tool", "tool_call_id": "call_1", "content": "2"},
        ],
        [
            {"role": "user", "content": "Hi", "name": "ada"},
            {"role": "assistant", "content": "Hi", "reasoning_content": "Greet", "refusal": None},
            {"role": "user", "content": "Bye"},
        ],
    ],
)
def test_conversations_of_every_kind_are_answered(server: Server, messages: list[Any]) -> None:
    answer = server.client.post("/v1/chat/completions", json={"messages": messages, "max_tokens": 2})
    assert answer.status_code == 200, answer.text


def test_a_developer_message_is_a_system_message(server: Server) -> None:
    def ask(role: str) -> str:
        messages = [{"role": role, "content": "Be brief."}, {"role": "user", "content": "Hi"}]
        body = {"messages": messages, "max_tokens": 24} | SAMPLED
        return content(server.client.post("/v1/chat/completions", json=body))

    assert ask("developer") == ask("system")


def test_parts_of_text_are_joined_by_a_newline(server: Server) -> None:
    def ask(text: Any) -> str:
        body = {"messages": [{"role": "user", "content": text}], "max_tokens": 24} | SAMPLED
        return content(server.client.post("/v1/chat/completions", json=body))

    assert ask([{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]) == ask("one\ntwo")


def test_tools_and_template_arguments_reach_the_template(server: Server) -> None:
    tool = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}
    plain = server.chat(max_tokens=1).json()["usage"]["prompt_tokens"]
    assert server.chat(max_tokens=1, tools=[tool]).json()["usage"]["prompt_tokens"] > plain + 10
    assert server.chat(max_tokens=1, tools=[tool], tool_choice="none").status_code == 200
    thinking = server.chat(max_tokens=8, ignore_eos=True, chat_template_kwargs={"enable_thinking": True}).json()
    assert thinking["usage"]["prompt_tokens"] > plain
    assert thinking["choices"][0]["message"]["reasoning_content"]
    assert thinking["choices"][0]["message"]["content"] == ""


def test_reasoning_is_streamed_apart_unless_it_shall_stay(server: Server) -> None:
    more = SAMPLED | {"max_tokens": 30, "chat_template_kwargs": {"enable_thinking": True}}
    chunks = server.stream(**more)
    assert said(chunks) == ""
    together = server.stream(**more, reasoning_format="none")
    assert said(together, "reasoning_content") == ""
    assert said(together).lstrip() == said(chunks, "reasoning_content")


# Stop strings.


@pytest.fixture(scope="module")
def answered(server: Server, readable: dict[str, Any]) -> str:
    """An answer of many tokens to cut."""
    return content(server.chat("Cut", max_tokens=80, **readable))


@pytest.mark.parametrize(("place", "length"), [(0, 1), (0, 12), (3, 2), (17, 5), (40, 1), (55, 9), (80, 24), (100, 3)])
def test_a_stop_string_ends_the_answer_before_it(
    server: Server, answered: str, readable: dict[str, Any], place: int, length: int
) -> None:
    stop = answered[place : place + length]
    assert len(stop) == length
    expected = answered[: answered.index(stop)]
    whole = server.chat("Cut", max_tokens=80, stop=stop, **readable)
    assert (content(whole), finish(whole)) == (expected, "stop")
    chunks = server.stream("Cut", max_tokens=80, stop=[stop, "never in there, that"], **readable)
    assert said(chunks) == expected
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"


def test_a_stop_string_holds_across_tokens_and_never_leaks_a_part(server: Server, vocabulary: Tokenizer) -> None:
    token = vocabulary.token_to_id("a")
    forced = {"temperature": 0, "ignore_eos": True, "logit_bias": {str(token): 100}, "max_tokens": 30}
    assert content(server.chat(**forced)) == "a" * 30
    for stop, text, reason in [("aaa", "", "stop"), ("a" * 29 + "b", "a" * 30, "length"), ("ab", "a" * 30, "length")]:
        chunks = server.stream(**forced, stop=stop)
        assert (said(chunks), chunks[-1]["choices"][0]["finish_reason"]) == (text, reason)


def test_a_stop_string_does_not_end_reasoning(server: Server, readable: dict[str, Any]) -> None:
    more = readable | {"max_tokens": 40, "chat_template_kwargs": {"enable_thinking": True}}
    free = server.chat(**more).json()["choices"][0]
    choice = server.chat(**more, stop=free["message"]["reasoning_content"][20:23]).json()["choices"][0]
    assert (choice["message"], choice["finish_reason"]) == (free["message"], free["finish_reason"])


# Lengths.


@pytest.mark.parametrize(
    ("limits", "tokens"),
    [
        ({"max_tokens": 3}, 3),
        ({"max_completion_tokens": 4}, 4),
        ({"n_predict": 5}, 5),
        ({"max_tokens": 3, "max_completion_tokens": 4}, 4),
        ({"max_tokens": 3, "max_completion_tokens": 4, "n_predict": 5}, 5),
        ({"max_tokens": 1}, 1),
        ({"max_tokens": 0}, 0),
        ({"max_tokens": -1, "n_predict": 2}, 2),
    ],
)
def test_an_answer_has_no_more_tokens_than_asked(server: Server, limits: dict[str, int], tokens: int) -> None:
    body = {"messages": [{"role": "user", "content": "Go"}], "ignore_eos": True} | limits
    answer = server.client.post("/v1/chat/completions", json=body).json()
    assert answer["usage"]["completion_tokens"] == tokens
    assert answer["choices"][0]["finish_reason"] == "length"
    chunks = events(server.client.post("/v1/chat/completions", json=body | {"stream": True}).text)
    assert chunks[-1]["timings"]["predicted_n"] == tokens
    assert chunks[-1]["choices"][0]["finish_reason"] == "length"


def test_zero_tokens_compute_the_prompt_only(server: Server) -> None:
    answer = server.chat("A prompt to be kept for later", max_tokens=0)
    assert content(answer) == ""
    role, last = server.stream("A prompt to be kept for later", max_tokens=0)
    assert role["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert last["choices"][0]["finish_reason"] == "length"
    usage = server.chat("A prompt to be kept for later", max_tokens=1).json()["usage"]
    assert usage["prompt_tokens_details"]["cached_tokens"] == usage["prompt_tokens"] - 1


@pytest.mark.slow
@pytest.mark.parametrize("limits", [{}, {"max_tokens": -1}, {"max_tokens": 10**6}])
def test_without_a_limit_an_answer_ends_with_the_context(guarded: Server, tiny: Path, limits: dict[str, int]) -> None:
    text = long_text(CONTEXT - 50, tiny, "To the end.")
    body = {"messages": [{"role": "user", "content": text}], "ignore_eos": True} | limits
    answer = guarded.client.post("/v1/chat/completions", json=body, headers={"X-Api-Key": KEY})
    assert answer.json()["usage"]["total_tokens"] == CONTEXT
    assert finish(answer) == "length"


def test_the_end_token_ends_an_answer(server: Server, vocabulary: Tokenizer) -> None:
    end = vocabulary.token_to_id("<|im_end|>")
    answer = server.chat(temperature=0, logit_bias={str(end): 100})
    assert (content(answer), finish(answer)) == ("", "stop")
    assert answer.json()["usage"]["completion_tokens"] == 1
    on = server.chat(temperature=0, logit_bias={str(end): 100}, ignore_eos=True, max_tokens=5)
    assert finish(on) == "length"
    assert on.json()["usage"]["completion_tokens"] == 5
    assert content(on) == ""  # control tokens are not shown


def test_an_answer_that_ignores_its_end_never_draws_it(server: Server) -> None:
    asked = SAMPLED | {"temperature": 2.0, "max_tokens": 800}
    entries = server.chat(logprobs=True, **asked).json()["choices"][0]["logprobs"]["content"]
    assert (len(entries), "<|im_end|>" in {entry["token"] for entry in entries}) == (800, False)
    assert len(content(server.chat(**asked | {"ignore_eos": False}))) < len("".join(one["token"] for one in entries))


# Sampling.


def test_the_same_seed_gives_the_same_answer_alone_and_beside_others(server: Server) -> None:
    alone = content(server.chat("Seed", max_tokens=80, **SAMPLED))
    with ThreadPoolExecutor(9) as pool:
        others = [
            pool.submit(server.chat, f"Other {n}" * (n + 1), **SAMPLED | {"seed": n, "max_tokens": 60 + 10 * n})
            for n in range(4)
        ]
        same = [pool.submit(server.chat, "Seed", max_tokens=80, **SAMPLED) for _ in range(5)]
        assert {content(future.result()) for future in same} == {alone}
        assert len({content(future.result()) for future in others}) == 4


@pytest.mark.parametrize("seeds", [(1, 2, 3, 2**32 + 1), (None, None, None, None), (-1, -1, -1, -1)])
def test_other_seeds_and_no_seed_give_other_answers(server: Server, seeds: tuple[int | None, ...]) -> None:
    texts = {content(server.chat("Seed", max_tokens=40, **SAMPLED | {"seed": seed})) for seed in seeds}
    assert len(texts) == len(seeds)


def test_a_bias_bans_and_forces_tokens(server: Server, vocabulary: Tokenizer) -> None:
    letter = vocabulary.token_to_id("b")
    assert content(server.chat(logit_bias={str(letter): 100}, ignore_eos=True, max_tokens=12, seed=1)) == "b" * 12
    two = {str(letter): 100, str(vocabulary.token_to_id("c")): 50}
    assert content(server.chat(logit_bias=two, temperature=0, ignore_eos=True, max_tokens=3)) == "bbb"
    banned = two | {str(letter): -100}
    assert content(server.chat(logit_bias=banned, temperature=0, ignore_eos=True, max_tokens=3)) == "ccc"


def test_the_likeliest_token_is_taken_at_temperature_zero_and_by_top_k_one(server: Server) -> None:
    greedy = content(server.chat("Greedy", max_tokens=40, temperature=0, ignore_eos=True))
    for more in ({"temperature": 3, "top_k": 1}, {"temperature": 3, "top_p": 0}, {"temperature": 3, "min_p": 1}):
        assert content(server.chat("Greedy", max_tokens=40, ignore_eos=True, **more)) == greedy


@pytest.mark.parametrize(
    "penalty",
    [{"repetition_penalty": 1.5}, {"repeat_penalty": 1.5}, {"presence_penalty": 2}, {"frequency_penalty": 2}],
)
def test_a_penalty_makes_a_repetitive_answer_less_so(
    server: Server, vocabulary: Tokenizer, penalty: dict[str, float]
) -> None:
    likely = {str(vocabulary.token_to_id(letter)): 20.0 for letter in "abcdef"}
    plain = {"temperature": 0, "ignore_eos": True, "max_tokens": 60, "logit_bias": likely}
    repetitive = content(server.chat(**plain))
    assert content(server.chat(**plain, **penalty)) != repetitive
    assert content(server.chat(**plain, **penalty, repeat_last_n=0)) == repetitive  # turned off


# The prefix cache.


def test_a_second_turn_does_not_compute_the_first_again(server: Server, vocabulary: Tokenizer) -> None:
    def turn(messages: list[dict[str, str]], **more: Any) -> dict[str, Any]:
        body: dict[str, Any] = {"messages": messages, "max_tokens": 40} | SAMPLED | more
        answer: dict[str, Any] = server.client.post("/v1/chat/completions", json=body).json()
        return answer

    the = {str(vocabulary.token_to_id("Ġthe")): 100}  # words that are read again as they were written
    messages = [{"role": "user", "content": "Let us talk about the weather in the evening."}]
    first = turn(messages, logit_bias=the)["choices"][0]["message"]["content"]
    spent = turn(messages, logit_bias=the)["usage"]["total_tokens"]
    messages += [{"role": "assistant", "content": first}, {"role": "user", "content": "And then?"}]
    second = turn(messages)
    cached = second["usage"]["prompt_tokens_details"]["cached_tokens"]
    assert spent - 2 <= cached <= spent
    assert second["timings"]["cache_n"] == cached


def test_what_was_cached_changes_nothing_in_the_answer(server: Server) -> None:
    text = "The same question, asked again and again: what is it that was cached?"
    first, second, third = (server.chat(text, max_tokens=60, **SAMPLED).json() for _ in range(3))
    cached = [answer["usage"]["prompt_tokens_details"]["cached_tokens"] for answer in (first, second, third)]
    assert cached[0] < 10 < 30 < cached[1] == cached[2]
    assert first["choices"] == second["choices"] == third["choices"]


# What streams carry on request.


def test_progress_is_told_from_what_was_cached_to_the_whole_prompt(server: Server, tiny: Path) -> None:
    text = long_text(3000, tiny, "Progress.")
    for cached in (False, True):
        chunks = server.stream(text, max_tokens=2, return_progress=True)
        steps = [chunk["prompt_progress"] for chunk in chunks if "prompt_progress" in chunk]
        assert len(steps) >= 2
        assert (steps[0]["cache"] > 2000) == cached
        assert steps[0]["processed"] == steps[0]["cache"]
        assert steps[-1]["processed"] == steps[-1]["total"] > 2900
        done = [step["processed"] for step in steps]
        assert done == sorted(done)
        assert len({(step["total"], step["cache"]) for step in steps}) == 1
        assert all(chunk["choices"] for chunk in chunks)
        first_words = next(i for i, chunk in enumerate(chunks) if chunk["choices"][0]["delta"].get("content"))
        assert not any("prompt_progress" in chunk for chunk in chunks[first_words:])
    assert not any("prompt_progress" in chunk for chunk in server.stream(text, max_tokens=2))


def test_timings_come_with_every_token_where_they_are_asked_for(server: Server) -> None:
    chunks = server.stream(max_tokens=6, ignore_eos=True, timings_per_token=True)
    counts = [chunk["timings"]["predicted_n"] for chunk in chunks if chunk["choices"][0]["delta"].get("content")]
    assert counts
    assert counts == sorted(counts)
    assert counts[-1] <= 6


def test_a_silent_stream_sends_comments(server: Server, tiny: Path) -> None:
    text = long_text(4000, tiny, "Silence.")
    answer = server.chat(text, stream=True, max_tokens=2, sse_ping_interval=0.02)
    before_the_first_event = answer.text.split("data: ")[0]
    assert before_the_first_event.count(": ping\n\n") >= 2
    assert events(answer.text)


@pytest.mark.parametrize("interval", [0, -1, None])
def test_a_stream_can_do_without_comments(server: Server, interval: int | None) -> None:
    assert ": ping" not in server.chat(stream=True, sse_ping_interval=interval).text


# Hanging up.

ENDLESS = {"max_tokens": 8000, "ignore_eos": True, "temperature": 0}


@pytest.fixture
def hangers(server: Server) -> Iterator[list[httpx.Client]]:
    clients = [httpx.Client(base_url=server.url, timeout=60) for _ in range(34)]
    yield clients
    for client in clients:
        client.close()


def test_streams_that_are_hung_up_make_room_at_once(server: Server, hangers: list[httpx.Client]) -> None:
    logged = len(server.logged("request"))
    for number, client in enumerate(hangers):  # more than there are rows
        body = {"messages": [{"role": "user", "content": f"{number} hang up"}], "stream": True} | ENDLESS
        request = client.build_request("POST", "/v1/chat/completions", json=body)
        response = client.send(request, stream=True)
        assert response.status_code == 200
        if number < 4:
            next(response.iter_lines())
    for client in hangers:
        client.close()
    wait_for(lambda: len(server.logged("request")) >= logged + len(hangers), what="the lines of the requests")
    answer = server.client.post(
        "/v1/chat/completions", json={"messages": [{"role": "user", "content": "Free?"}], "max_tokens": 2}
    )
    assert answer.status_code == 200
    assert server.client.get("/health").json()["status"] == "ok"
    assert server.errors() == []


def test_an_answer_that_nobody_waits_for_makes_room_at_once(server: Server) -> None:
    logged = len(server.logged("request"))
    address = (httpx.URL(server.url).host, httpx.URL(server.url).port or 0)
    connections = []
    for number in range(32):  # as many as there are rows
        body = json.dumps({"messages": [{"role": "user", "content": f"{number} gone"}]} | ENDLESS).encode()
        connection = socket.create_connection(address)
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
        connection.sendall(head.encode() + body)
        connections.append(connection)
    assert server.chat("A queued one", max_tokens=0).status_code == 200 or True
    for connection in connections:
        connection.close()
    wait_for(lambda: len(server.logged("request")) >= logged + 32, what="the lines of the requests")
    assert server.chat("And now?", max_tokens=2).status_code == 200
    assert {line["status"] for line in server.logged("request")[logged : logged + 32]} <= {200, 499}
    assert server.errors() == []


def test_what_was_computed_before_a_hang_up_is_kept(server: Server, tiny: Path) -> None:
    body = {"messages": [{"role": "user", "content": "Kept after a hang-up."}], "stream": True} | ENDLESS
    logged = len(server.logged("request"))
    with (
        httpx.Client(base_url=server.url, timeout=60) as client,
        client.stream("POST", "/v1/chat/completions", json=body) as answer,
    ):
        lines = answer.iter_lines()
        for _ in range(20):
            next(lines)
    wait_for(lambda: len(server.logged("request")) > logged, what="the line of the request")
    usage = server.chat("Kept after a hang-up.", max_tokens=1).json()["usage"]
    assert usage["prompt_tokens_details"]["cached_tokens"] == usage["prompt_tokens"] - 1


# The log.


def test_the_log_line_of_a_chat_says_what_it_cost_and_not_what_was_said(server: Server) -> None:
    answer = server.chat("xylophone-secret", max_tokens=6, ignore_eos=True)
    identity = answer.headers["x-request-id"]
    line = wait_for(lambda: next((n for n in server.logged("request") if n["request_id"] == identity), None))
    assert line["route"] == "/v1/chat/completions"
    assert line["status"] == 200
    assert line["model"] == "tiny"
    assert line["completion_tokens"] == 6
    assert line["prompt_tokens"] == answer.json()["usage"]["prompt_tokens"]
    assert line["finish"] == "length"
    assert line.keys() >= {"cached_tokens", "ttft_ms", "tokens_per_second", "ms"}
    assert "xylophone" not in server.log


SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 10}, "warm": {"type": "boolean"}},
    "required": ["city", "warm"],
    "additionalProperties": False,
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("temperature", [0, 1.7])
def test_a_json_schema_is_kept_whole_and_streamed(server: Server, temperature: float, stream: bool) -> None:
    format_ = {"type": "json_schema", "json_schema": {"name": "weather", "schema": SCHEMA, "strict": True}}
    body = {"response_format": format_, "temperature": temperature, "max_tokens": 200, "seed": 3}
    body |= {"chat_template_kwargs": {"enable_thinking": False}}
    if stream:
        said = "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks_of(server, body))
    else:
        said = server.chat(**body).json()["choices"][0]["message"]["content"]
    assert json.loads(said).keys() == {"city", "warm"}


def test_logprobs_are_the_same_streamed_and_whole(server: Server) -> None:
    body = {"logprobs": True, "top_logprobs": 3, "temperature": 1, "seed": 9, "max_tokens": 20}
    whole = server.chat(**body).json()["choices"][0]
    streamed = [
        score
        for chunk in chunks_of(server, body)
        for score in (chunk["choices"][0].get("logprobs") or {"content": []})["content"]
    ]
    assert streamed == whole["logprobs"]["content"]
    assert len(streamed) > 3
    assert all(len(score["top_logprobs"]) == 3 and score["logprob"] <= 0 for score in streamed)
    joined = b"".join(bytes(score["bytes"]) for score in streamed).decode(errors="replace")
    assert joined == whole["message"]["content"]


def test_an_effort_turns_thinking_on_and_bounds_it(server: Server) -> None:
    thought = server.chat(reasoning_effort="minimal", max_tokens=400, ignore_eos=True, seed=1).json()
    assert thought["choices"][0]["message"]["reasoning_content"]
    assert thought["choices"][0]["message"]["content"]
    plain = server.chat(reasoning_effort="none", max_tokens=20, seed=1).json()
    assert "reasoning_content" not in plain["choices"][0]["message"]


def test_the_cause_of_the_end_is_told(server: Server) -> None:
    assert server.chat(max_tokens=5, ignore_eos=True).json()["tiles"]["finish"] == "max_tokens"
    looping = server.chat(max_tokens=1000, logit_bias={"50": 100}, temperature=0).json()
    assert (looping["tiles"]["finish"], looping["choices"][0]["finish_reason"]) == ("repetition", "length")


def test_an_answer_says_why_its_prompt_was_not_known(server: Server) -> None:
    first = server.chat("The seventh lighthouse keeper counted ships").json()
    again = server.chat("The seventh lighthouse keeper counted ships").json()
    assert again["tiles"]["cache"]["reason"] == "whole"
    changed = server.chat("The seventh lighthouse keeper counted stars").json()["tiles"]["cache"]
    assert changed["reason"] == "first_diff"
    assert changed["cached_tokens"] <= changed["first_diff"] < first["usage"]["prompt_tokens"]
    told = changed["changed"]
    assert (told["role_before"], told["role"], told["token"]) == ("user", "user", changed["first_diff"])
    assert told["before"][:2] in "ships"
    assert told["now"][:2] in "stars"
    assert again["tiles"]["cache"]["changed"] is None
    assert "lighthouse" not in server.log


def test_the_next_turn_finds_the_prompt_and_the_answer_of_the_last_one(server: Server) -> None:
    """A random model splits its text as no tokenizer would, and begins and ends it with white space."""
    messages = [{"role": "user", "content": "What did the eighth lighthouse keeper count, and how many?"}]
    before = 0
    for turn in range(4):
        reply = server.chat(messages=messages, max_tokens=40, temperature=1.5, seed=turn, ignore_eos=True).json()
        assert reply["usage"]["prompt_tokens_details"]["cached_tokens"] >= before - 1
        before = reply["usage"]["total_tokens"]
        messages += [reply["choices"][0]["message"], {"role": "user", "content": "And then?"}]


def chunks_of(server: Server, body: dict[str, Any]) -> list[dict[str, Any]]:
    asked = {"messages": [{"role": "user", "content": "Hello"}], "stream": True} | body
    with server.client.stream("POST", "/v1/chat/completions", json=asked) as answer:
        lines = [line.removeprefix("data: ") for line in answer.iter_lines() if line.startswith("data: ")]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


def test_several_answers_share_a_prompt_and_the_first_is_what_a_single_one_would_be(server: Server) -> None:
    body = {"n": 3, "seed": 8, "temperature": 1, "max_tokens": 15, "ignore_eos": True}
    whole = server.chat("Tell me three things", **body).json()
    assert [choice["index"] for choice in whole["choices"]] == [0, 1, 2]
    said = [choice["message"]["content"] for choice in whole["choices"]]
    assert len(set(said)) == 3
    assert (
        said[0] == server.chat("Tell me three things", **(body | {"n": 1})).json()["choices"][0]["message"]["content"]
    )
    assert whole["usage"]["completion_tokens"] == 45
    streamed = dict.fromkeys(range(3), "")
    chunks = chunks_of(server, body | {"messages": [{"role": "user", "content": "Tell me three things"}]})
    for chunk in chunks:
        choice = chunk["choices"][0]
        streamed[choice["index"]] += choice["delta"].get("content") or ""
    assert list(streamed.values()) == said
    assert sum(chunk["choices"][0]["finish_reason"] == "length" for chunk in chunks) == 3
    assert server.chat(n=9).status_code == 422


def test_the_usage_of_several_answers_comes_once(server: Server) -> None:
    body = {"n": 2, "max_tokens": 5, "ignore_eos": True, "stream_options": {"include_usage": True}}
    chunks = chunks_of(server, body)
    counted = [chunk["usage"] for chunk in chunks if chunk.get("usage")]
    assert [usage["completion_tokens"] for usage in counted] == [10]
    assert chunks[-1]["choices"] == []
