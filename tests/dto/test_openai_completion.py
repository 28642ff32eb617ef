"""Text completions to the common vocabulary and back, without a server."""

from typing import Any

import msgspec
import pytest

from app.dto.openai.completion import CompletionRequest, CompletionStream, TextCompletion
from app.dto.shared.base import RequestLimits
from app.services.errors import UnprocessableBody
from app.services.generation import (
    Completion,
    Event,
    Finished,
    GenerationRequest,
    Progress,
    Sampling,
    Started,
    Text,
    Timings,
    TokenLogprob,
)


def request(**more: Any) -> CompletionRequest:
    return CompletionRequest.model_validate({"prompt": "Hi"} | more)


def times(prompt: int, completion: int, ms: float = 10.0) -> Timings:
    return Timings(2, prompt - 2, ms, completion, ms, ms, 2 * ms)


def feed(asked: CompletionRequest, choices: int, *events: Event) -> list[dict[str, Any]]:
    stream = CompletionStream(asked, choices)
    return [msgspec.to_builtins(chunk) for event in events for chunk in stream.feed(event)]


def fold(*events: Event) -> Completion:
    said = Completion()
    for event in events:
        said.add(event)
    return said


def score(data: bytes) -> TokenLogprob:
    return TokenLogprob(1, data, -0.5, (TokenLogprob(1, data, -0.5), TokenLogprob(2, b"x", -1.5)))


def test_a_bare_request_leaves_everything_to_the_model() -> None:
    (asked,) = request().to_generations(RequestLimits())
    assert asked == GenerationRequest(prompt=("Hi",), split_reasoning=False)


def test_every_prompt_is_a_request_with_the_same_wishes() -> None:
    asked = request(prompt=["a", [1, 2], [3, "b"]], suffix="end", n=2, temperature=0.5, stop="x", max_tokens=3)
    requests = asked.to_generations(RequestLimits())
    assert [one.prompt for one in requests] == [("a",), (1, 2), (3, "b")]
    for one in requests:
        assert (one.suffix, one.answers, one.max_tokens, one.stop) == ("end", 2, 3, ("x",))
        assert one.sampling == Sampling(temperature=0.5)


@pytest.mark.parametrize(("prompt", "n", "fits"), [(["a"] * 4, 1, True), (["a"] * 5, 1, False), (["a"] * 2, 3, False)])
def test_a_request_has_only_so_many_answers(prompt: list[str], n: int, fits: bool) -> None:
    asked = request(prompt=prompt, n=n)
    if fits:
        assert len(asked.to_generations(RequestLimits(choices=4))) == 4
    else:
        with pytest.raises(UnprocessableBody, match="more than 4"):
            asked.to_generations(RequestLimits(choices=4))


def test_prompts_add_up_and_the_longest_time_counts() -> None:
    answers = [
        fold(Started("m", 5, "A"), Text("a", times(5, 1)), Finished("stop", None, times(5, 2, 10.0))),
        fold(Started("m", 7, "B"), Text("b", times(7, 1)), Finished("length", None, times(7, 4, 30.0))),
    ]
    body = msgspec.to_builtins(TextCompletion.of(answers, request(prompt=["A", "B"], echo=True)))
    assert [(choice["text"], choice["finish_reason"]) for choice in body["choices"]] == [
        ("Aa", "stop"),
        ("Bb", "length"),
    ]
    assert body["usage"] == {
        "prompt_tokens": 12,
        "completion_tokens": 6,
        "total_tokens": 18,
        "prompt_tokens_details": {"cached_tokens": 4},
    }
    assert (body["timings"]["prompt_ms"], body["timings"]["predicted_n"]) == (30.0, 6)


def test_the_last_answer_to_finish_carries_the_usage() -> None:
    chunks = feed(
        request(prompt=["A", "B"]),
        2,
        Started("m", 5, choice=0),
        Started("m", 7, choice=1),
        Progress(5, 5, 0, 1.0, choice=0),
        Text("b", times(7, 1), choice=1),
        Finished("stop", None, times(7, 2), choice=1),
        Text("a", times(5, 1), choice=0),
        Finished("length", None, times(5, 1), choice=0),
    )
    said = [(chunk["choices"][0]["index"], chunk["choices"][0]["text"]) for chunk in chunks]
    assert said == [(1, "b"), (1, ""), (0, "a"), (0, "")]
    assert [("usage" in chunk, "timings" in chunk) for chunk in chunks] == [(False, False)] * 3 + [(True, True)]
    assert chunks[-1]["usage"]["total_tokens"] == 15
    assert {chunk["model"] for chunk in chunks} == {"m"}


def test_offsets_count_characters_across_chunks() -> None:
    tokens = [score(b"\xc3"), score(b"\xa9"), score(b"bc")]
    whole = fold(Started("m", 3), Text("ébc", times(3, 3), tuple(tokens)), Finished("stop", None, times(3, 3)))
    told = msgspec.to_builtins(TextCompletion.of([whole], request(logprobs=2)))["choices"][0]["logprobs"]
    assert told["text_offset"] == [0, 0, 1]
    assert told["top_logprobs"][2] == {"bc": -0.5, "x": -1.5}
    assert [token["bytes"] for token in told["content"]] == [[0xC3], [0xA9], [98, 99]]
    chunks = feed(
        request(logprobs=2),
        1,
        Started("m", 3),
        Text("é", times(3, 2), tuple(tokens[:2])),
        Text("bc", times(3, 3), tuple(tokens[2:])),
    )
    streamed = [offset for chunk in chunks for offset in chunk["choices"][0]["logprobs"]["text_offset"]]
    assert streamed == told["text_offset"]


def test_offsets_are_those_of_the_tokens_where_text_is_held_back() -> None:
    told = feed(
        request(logprobs=2, stop="th"),
        1,
        Started("m", 3),
        Text("ba", times(3, 1), (score(b"bat"),)),  # the t may begin a stop string
        Text("the", times(3, 2), (score(b"he"),)),
        Finished("stop", "th", times(3, 3), logprobs=(score(b"th"),)),
    )
    assert [chunk["choices"][0]["logprobs"]["text_offset"] for chunk in told] == [[0], [3], [5]]
