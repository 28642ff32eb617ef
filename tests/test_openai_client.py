"""The official client of OpenAI, as its users use it."""

from collections.abc import Iterator

import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam

from tests.conftest import KEY, Server

HELLO: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Hello"}]


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0, timeout=60) as client:
        yield client


def test_it_chats(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="gpt-4o-mini", messages=HELLO, max_tokens=8)
    assert answer.model == "tiny"
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].finish_reason in {"length", "stop"}
    assert answer.usage is not None
    assert answer.usage.prompt_tokens_details is not None
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_it_streams(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(model="m", messages=HELLO, max_tokens=30, seed=5, temperature=1)
    stream = client.chat.completions.create(
        model="m",
        messages=HELLO,
        max_tokens=30,
        seed=5,
        temperature=1,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    assert chunks[-1].usage == whole.usage or chunks[-1].usage is not None
    assert chunks[-2].choices[0].finish_reason == whole.choices[0].finish_reason


def test_its_stream_helper_puts_an_answer_together(client: openai.OpenAI) -> None:
    with client.chat.completions.stream(model="m", messages=HELLO, stop=["a", "e", "i"], seed=1) as stream:
        deltas = [event.delta for event in stream if event.type == "content.delta"]
        final = stream.get_final_completion()
    assert final.choices[0].message.content == "".join(deltas)
    assert final.choices[0].message.role == "assistant"


def test_a_stream_that_is_closed_is_over(client: openai.OpenAI) -> None:
    for _ in range(3):
        with client.chat.completions.create(model="m", messages=HELLO, stream=True) as stream:
            next(iter(stream))
    assert client.chat.completions.create(model="m", messages=HELLO, max_tokens=1).choices


def test_it_stops(client: openai.OpenAI) -> None:
    more = {"model": "m", "messages": HELLO, "max_tokens": 60, "seed": 11, "temperature": 1.0}
    text = client.chat.completions.create(**more).choices[0].message.content  # type: ignore[call-overload]
    stop = next(character for character in text if character != "\ufffd")
    answer = client.chat.completions.create(**more, stop=[stop])  # type: ignore[call-overload]
    assert stop not in answer.choices[0].message.content
    assert answer.choices[0].finish_reason == "stop"


def test_it_lists_and_retrieves_models(client: openai.OpenAI) -> None:
    models = list(client.models.list())
    assert [model.id for model in models] == ["tiny"]
    assert models[0].owned_by == "tiles"
    assert client.models.retrieve("tiny").id == "tiny"
    with pytest.raises(openai.NotFoundError) as refusal:
        client.models.retrieve("gpt-5")
    assert refusal.value.code == "model_not_found"
    assert refusal.value.type == "not_found_error"


def test_errors_are_of_its_classes(client: openai.OpenAI) -> None:
    with pytest.raises(openai.UnprocessableEntityError) as invalid:
        client.chat.completions.create(model="m", messages=[])
    assert invalid.value.param == "messages"
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(model="m", messages=HELLO, modalities=["audio"])
    assert (refused.value.param, refused.value.code) == ("modalities", "unsupported_parameter")
    with pytest.raises(openai.BadRequestError) as long:
        client.chat.completions.create(model="m", messages=[{"role": "user", "content": "the river " * 9000}])
    assert long.value.code == "context_length_exceeded"
    with pytest.raises(openai.UnprocessableEntityError):
        client.chat.completions.create(model="m", messages=HELLO, temperature=-1, stream=True)
    with pytest.raises(openai.NotFoundError):
        client.moderations.create(model="m", input="Hello")


def test_its_key_lets_in(guarded: Server) -> None:
    with openai.OpenAI(base_url=f"{guarded.url}/v1", api_key=KEY, max_retries=0) as client:
        assert list(client.models.list())
    with openai.OpenAI(base_url=f"{guarded.url}/v1", api_key="wrong", max_retries=0) as client:
        with pytest.raises(openai.AuthenticationError) as refusal:
            client.models.list()
        assert refusal.value.code == "invalid_api_key"


def test_without_loopback_in_its_address_it_is_refused(guarded: Server) -> None:
    headers = {"Host": "evil.example"}
    with (
        openai.OpenAI(base_url=f"{guarded.url}/v1", api_key=KEY, max_retries=0, default_headers=headers) as client,
        pytest.raises(openai.PermissionDeniedError),
    ):
        client.models.list()
