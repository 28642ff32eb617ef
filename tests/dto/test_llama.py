"""llama.cpp's completions to the common vocabulary and back, without a server."""

from dataclasses import replace
from typing import Any

import msgspec
import pytest

from app.dto.llama.completion import InfillRequest, NativeRequest, NativeStream, native_answer
from app.dto.llama.models import Props
from app.dto.shared.base import RequestLimits
from app.services.facts import Batching
from app.services.generation import Completion, Event, FinishCause, Finished, Progress, Sampling, Started, Text, Timings
from tests.scripted import FACTS

TIMES = Timings(2, 8, 1.0, 5, 1.0, 1.0, 1.0)
STARTED = Started("m", 10, "Hi", 64, Sampling(temperature=0.7, top_k=20, top_p=0.9, min_p=0.0))


def request(**more: Any) -> NativeRequest:
    return NativeRequest.model_validate({"prompt": "Hi"} | more)


def whole(asked: NativeRequest, *events: Event) -> dict[str, Any]:
    said = Completion()
    for event in events:
        said.add(event)
    answer: dict[str, Any] = msgspec.to_builtins(native_answer([said], asked))
    return answer


def ended(cause: FinishCause, stop: str | None = None) -> Finished:
    return Finished("stop" if cause in ("end_token", "stop_string") else "length", stop, TIMES, cause)


def test_what_is_not_asked_for_is_told_as_the_model_has_it() -> None:
    settings = whole(request(), STARTED, ended("end_token"))["generation_settings"]
    assert (settings["temperature"], settings["top_k"], settings["top_p"], settings["min_p"]) == (0.7, 20, 0.9, 0.0)
    assert (settings["n_predict"], settings["seed"], settings["stop"]) == (-1, 2**32 - 1, [])


def test_what_is_asked_for_is_told() -> None:
    asked = request(
        temperature=0, top_k=5, seed=3, n_predict=7, stop=["a", "b"], logit_bias=[[1, 2.5]], ignore_eos=True
    )
    settings = whole(asked, STARTED, ended("end_token"))["generation_settings"]
    assert (settings["temperature"], settings["top_k"], settings["seed"]) == (0.0, 5, 3)
    assert (settings["n_predict"], settings["max_tokens"], settings["stop"]) == (7, 7, ["a", "b"])
    assert settings["logit_bias"] == [{"token": 1, "bias": 2.5}]
    assert settings["ignore_eos"] is True


@pytest.mark.parametrize(
    ("end", "kind", "word", "truncated"),
    [
        (ended("end_token"), "eos", "", False),
        (ended("stop_string", "END"), "word", "END", False),
        (ended("max_tokens"), "limit", "", False),
        (ended("repetition"), "limit", "", False),
        (ended("context"), "limit", "", True),
    ],
)
def test_every_end_has_its_name(end: Finished, kind: str, word: str, truncated: bool) -> None:
    answer = whole(request(), STARTED, Text("a\n", TIMES), end)
    assert (answer["stop_type"], answer["stopping_word"], answer["truncated"]) == (kind, word, truncated)
    assert answer["has_new_line"] is True
    assert (answer["tokens_evaluated"], answer["tokens_predicted"], answer["tokens_cached"]) == (10, 5, 14)


def test_a_stream_keeps_several_answers_apart() -> None:
    stream = NativeStream(request(prompt=["A", "B"], return_progress=True), 2)
    events: list[Event] = [
        Started("m", 3, "A", choice=0),
        Started("m", 4, "B", choice=1),
        Progress(4, 4, 0, 1.0, choice=1),
        Text("b", TIMES, choice=1),
        Text("a\n", TIMES, choice=0),
        Finished("stop", None, TIMES, choice=0),
        Finished("length", None, TIMES, "max_tokens", choice=1),
    ]
    said = [msgspec.to_builtins(reply) for event in events for reply in stream.feed(event)]
    assert [(reply["index"], reply["content"], reply["stop"]) for reply in said] == [
        *((1, "", False), (1, "b", False), (0, "a\n", False), (0, "", True), (1, "", True)),
    ]
    assert [reply["tokens_evaluated"] for reply in said] == [4, 4, 3, 3, 4]
    assert said[0]["prompt_progress"]["total"] == 4
    assert [(reply["prompt"], reply["has_new_line"]) for reply in said[-2:]] == [("A", True), ("B", False)]


def test_a_gap_is_what_stands_before_and_after_it() -> None:
    body = {"input_prefix": "def ", "input_suffix": "", "prompt": "f("}
    (asked,) = InfillRequest.model_validate(body).to_generations(RequestLimits())
    assert (asked.prompt, asked.suffix) == (("def f(",), "")


@pytest.mark.parametrize(
    "batching, decoding, prefill",
    [
        (Batching(), True, True),
        (Batching(prefill="the logits differ by 80.0%"), True, False),
        (Batching("mlx-lm raises ValueError: shapes"), False, False),
    ],
)
def test_the_properties_say_what_is_computed_together_and_why_not(
    batching: Batching, decoding: bool, prefill: bool
) -> None:
    tiles = msgspec.to_builtins(Props.of(replace(FACTS, batching=batching), 4))["tiles"]
    reason = batching.decoding or batching.prefill
    assert tiles["batching"] == {"decoding": decoding, "prefill": prefill, "reason": reason}


@pytest.mark.parametrize("blas", ["libopenblas.so.0", "reference", None])
def test_the_properties_say_which_blas_computes(blas: str | None) -> None:
    assert msgspec.to_builtins(Props.of(replace(FACTS, blas=blas), 4))["tiles"]["blas"] == blas


def test_the_properties_of_an_empty_server_tell_of_no_batches() -> None:
    assert "tiles" not in msgspec.to_builtins(Props.of(None, 4))
