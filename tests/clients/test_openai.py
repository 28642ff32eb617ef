"""The official `openai` package: chats, streams, tools, objects, responses; sync and async."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from tests.clients.shapes import NAMED, WEATHER, GetWeather, Person
from tests.conftest import Server

HELLO: list[Any] = [{"role": "user", "content": "Hello!"}]
GREEDY: dict[str, Any] = {"model": "m", "temperature": 0}


@pytest.fixture(scope="module")
def client(demo: Server) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{demo.url}/v1", api_key="tiles", max_retries=0, timeout=120) as client:
        yield client


def later(demo: Server) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{demo.url}/v1", api_key="tiles", max_retries=0, timeout=120)


def test_it_is_greeted(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(messages=HELLO, **GREEDY)
    assert "Hello" in (answer.choices[0].message.content or "")
    assert answer.choices[0].finish_reason == "stop"


def test_a_name_is_remembered_in_a_stream(client: openai.OpenAI) -> None:
    options = {"include_usage": True}
    chunks = list(client.chat.completions.create(messages=NAMED, stream=True, stream_options=options, **GREEDY))  # type: ignore[call-overload]
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert "Ada" in text
    assert chunks[-1].usage.completion_tokens > 0


def test_many_ask_at_once(demo: Server) -> None:
    async def ask() -> list[str]:
        async with later(demo) as client:
            answers = [client.chat.completions.create(messages=NAMED, **GREEDY) for _ in range(4)]  # type: ignore[call-overload]
            return [answer.choices[0].message.content or "" for answer in await asyncio.gather(*answers)]

    said = asyncio.run(ask())
    assert all("Ada" in text for text in said)
    assert len(set(said)) == 1


def test_an_async_stream_says_the_same(demo: Server, client: openai.OpenAI) -> None:
    async def ask() -> str:
        async with later(demo) as client:
            stream = await client.chat.completions.create(messages=HELLO, stream=True, **GREEDY)
            return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

    assert asyncio.run(ask()) == client.chat.completions.create(messages=HELLO, **GREEDY).choices[0].message.content


def test_a_chat_becomes_an_object(client: openai.OpenAI) -> None:
    answer = client.chat.completions.parse(messages=HELLO, response_format=Person, **GREEDY)
    assert isinstance(answer.choices[0].message.parsed, Person)


def test_a_stream_becomes_an_object(client: openai.OpenAI) -> None:
    with client.chat.completions.stream(messages=HELLO, response_format=Person, **GREEDY) as stream:
        assert {event.type for event in stream} >= {"content.delta", "content.done"}
        assert isinstance(stream.get_final_completion().choices[0].message.parsed, Person)


def test_what_a_tool_said_can_be_given_back(client: openai.OpenAI) -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Oslo"}'}}
    messages: list[Any] = [
        {"role": "user", "content": "What is the weather in Oslo?"},
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "sunny"},
    ]
    tools: list[Any] = [{"type": "function", "function": WEATHER}]
    answer = client.chat.completions.create(messages=messages, tools=tools, tool_choice="none", **GREEDY)
    assert answer.choices[0].message.content
    assert not answer.choices[0].message.tool_calls


def test_a_tool_is_called_with_what_its_model_says(forced: Server, client: openai.OpenAI) -> None:
    tools = [openai.pydantic_function_tool(GetWeather)]
    answer = client.chat.completions.parse(messages=HELLO, tools=tools, tool_choice="required", **GREEDY)
    call = (answer.choices[0].message.tool_calls or [])[0]
    assert answer.choices[0].finish_reason == "tool_calls"
    assert isinstance(call.function.parsed_arguments, GetWeather)


def test_a_call_is_streamed(forced: Server, client: openai.OpenAI) -> None:
    tools: list[Any] = [{"type": "function", "function": WEATHER}]
    choice: Any = {"type": "function", "function": {"name": "get_weather"}}
    with client.chat.completions.stream(messages=HELLO, tools=tools, tool_choice=choice, **GREEDY) as stream:
        kinds = [event.type for event in stream]
        call = (stream.get_final_completion().choices[0].message.tool_calls or [])[0]
    assert kinds.count("tool_calls.function.arguments.delta") > 1
    assert call.function.name == "get_weather"
    assert set(json.loads(call.function.arguments)) == {"city"}


def test_a_response_goes_on_where_another_ended(client: openai.OpenAI) -> None:
    first = client.responses.create(input="My name is Ada.", **GREEDY)
    second = client.responses.create(input="What is my name?", previous_response_id=first.id, **GREEDY)
    assert "Ada" in second.output_text
    assert client.responses.retrieve(first.id).output_text == first.output_text
    assert [item.type for item in client.responses.input_items.list(first.id)] == ["message"]
    client.responses.delete(first.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(first.id)


def test_a_response_is_streamed(client: openai.OpenAI) -> None:
    with client.responses.stream(input="Hello!", store=False, **GREEDY) as stream:
        events = list(stream)
        final = stream.get_final_response()
    assert [event.sequence_number for event in events] == list(range(len(events)))
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert "".join(deltas) == final.output_text
    assert "Hello" in final.output_text


def test_a_response_becomes_an_object(client: openai.OpenAI) -> None:
    answer = client.responses.parse(input="Hello!", text_format=Person, **GREEDY)
    assert isinstance(answer.output_parsed, Person)


def test_a_response_calls_a_tool_and_is_told_what_came_of_it(forced: Server, client: openai.OpenAI) -> None:
    tools: list[Any] = [{"type": "function", **WEATHER, "strict": True}]
    first = client.responses.create(input="What is the weather?", tools=tools, tool_choice="required", **GREEDY)
    (call,) = [item for item in first.output if item.type == "function_call"]
    told: Any = {"type": "function_call_output", "call_id": call.call_id, "output": "sunny"}
    second = client.responses.create(
        input=[told], tools=tools, tool_choice="none", previous_response_id=first.id, **GREEDY
    )
    assert second.output_text


def test_the_smaller_things(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["tiles-nano"]
    text = client.completions.create(prompt="Hello", max_tokens=4, **GREEDY).choices[0].text
    assert text
    assert len(client.embeddings.create(model="m", input=["a", "b"]).data) == 2


def test_questions_are_decided(demo: Server, client: openai.OpenAI) -> None:
    questions: Any = [
        {"type": "predicate", "name": "angry", "instructions": "The customer is angry."},
        {"type": "choice", "instructions": "Whose is it?", "choices": [{"value": "billing"}, {"value": True}]},
        {"type": "score", "instructions": "How urgent is it?", "levels": [{"label": "not"}, {"label": "very"}]},
    ]
    decision = client.decisions.create(model="m", input="I was charged twice.", questions=questions)
    assert [answer.type for answer in decision.answers] == ["predicate", "choice", "score"]
    items: Any = [{"role": "user", "content": [{"type": "input_text", "text": "I was charged twice."}]}]

    async def ask() -> Any:
        async with later(demo) as client:
            return await client.decisions.create(model="m", input=items, questions=questions[:1])

    (angry,) = asyncio.run(ask()).answers
    assert angry.name == "angry" and 0 < angry.probability < 1
