"""The official `anthropic` package: messages, streams, tools, objects; sync and async."""

import asyncio
from collections.abc import Iterator
from typing import Any

import anthropic
import pytest

from tests.clients.shapes import NAMED, WEATHER, Tea
from tests.conftest import Server

HELLO: list[Any] = [{"role": "user", "content": "Hello!"}]
GREEDY: dict[str, Any] = {"model": "m", "max_tokens": 100, "extra_body": {"temperature": 0}}
TOOL: dict[str, Any] = {
    "name": WEATHER["name"],
    "description": WEATHER["description"],
    "input_schema": WEATHER["parameters"],
}


@pytest.fixture(scope="module")
def client(demo: Server) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=demo.url, api_key="tiles", max_retries=0, timeout=120) as client:
        yield client


def text(message: Any) -> str:
    return "".join(block.text for block in message.content if block.type == "text")


def test_it_is_greeted(client: anthropic.Anthropic) -> None:
    answer = client.messages.create(messages=HELLO, **GREEDY)
    assert "Hello" in text(answer)
    assert (answer.role, answer.stop_reason) == ("assistant", "end_turn")
    assert answer.usage.output_tokens > 0


def test_a_name_is_remembered_in_a_stream(client: anthropic.Anthropic) -> None:
    with client.messages.stream(messages=NAMED, **GREEDY) as stream:  # type: ignore[arg-type]
        said = "".join(stream.text_stream)
        assert text(stream.get_final_message()) == said
    assert "Ada" in said


def test_async_says_the_same_whole_and_streamed(demo: Server, client: anthropic.Anthropic) -> None:
    async def ask() -> tuple[str, str]:
        async with anthropic.AsyncAnthropic(base_url=demo.url, api_key="tiles", max_retries=0) as later:
            whole = text(await later.messages.create(messages=HELLO, **GREEDY))
            async with later.messages.stream(messages=HELLO, **GREEDY) as stream:
                return whole, "".join([piece async for piece in stream.text_stream])

    whole, streamed = asyncio.run(ask())
    assert whole == streamed == text(client.messages.create(messages=HELLO, **GREEDY))


def test_the_address_can_come_from_the_environment(demo: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_BASE_URL", demo.url)
    monkeypatch.setenv("ANTHROPIC_API_KEY", "tiles")
    with anthropic.Anthropic(max_retries=0) as client:
        assert text(client.messages.create(messages=HELLO, **GREEDY))


def test_thoughts_are_blocks_of_their_own(client: anthropic.Anthropic) -> None:
    answer = client.messages.create(
        messages=HELLO, thinking={"type": "enabled", "budget_tokens": 1024}, **GREEDY | {"max_tokens": 2000}
    )
    assert [block.type for block in answer.content] == ["thinking", "text"]


def test_a_message_becomes_an_object(client: anthropic.Anthropic) -> None:
    answer = client.messages.parse(messages=HELLO, output_format=Tea, **GREEDY)
    assert isinstance(answer.parsed_output, Tea)


def test_the_model_is_listed(client: anthropic.Anthropic) -> None:
    (model,) = client.models.list(limit=1)
    assert model == client.models.retrieve("tiles-nano")
    assert model.max_input_tokens and model.capabilities


def test_tokens_are_counted(client: anthropic.Anthropic) -> None:
    counted = client.messages.count_tokens(model="m", messages=HELLO).input_tokens
    usage = client.messages.create(messages=HELLO, **GREEDY | {"max_tokens": 1}).usage
    assert counted == usage.input_tokens + (usage.cache_read_input_tokens or 0)


def test_what_a_tool_said_can_be_given_back(client: anthropic.Anthropic) -> None:
    messages: list[Any] = [
        {"role": "user", "content": "What is the weather in Oslo?"},
        {"role": "assistant", "content": [_use("toolu_1")]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": "sunny"}]},
    ]
    answer = client.messages.create(messages=messages, tools=[TOOL], tool_choice={"type": "none"}, **GREEDY)  # type: ignore[list-item]
    assert text(answer)


def _use(identity: str) -> dict[str, Any]:
    return {"type": "tool_use", "id": identity, "name": "get_weather", "input": {"city": "Oslo"}}


def test_a_tool_is_called(forced: Server, client: anthropic.Anthropic) -> None:
    one = {"type": "any", "disable_parallel_tool_use": True}
    asked: dict[str, Any] = {"messages": HELLO, "tools": [TOOL], "tool_choice": one} | GREEDY
    answer = client.messages.create(**asked)
    (call,) = [block for block in answer.content if block.type == "tool_use"]
    assert answer.stop_reason == "tool_use"
    assert (call.name, set(call.input)) == ("get_weather", {"city"})
    with client.messages.stream(**asked) as stream:
        final = stream.get_final_message()
    assert [block.input for block in final.content if block.type == "tool_use"] == [call.input]


def test_errors_are_of_its_classes(client: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.BadRequestError) as refusal:
        client.messages.create(messages=HELLO, service_tier="fast", **GREEDY)  # type: ignore[call-overload]
    assert "service_tier" in refusal.value.message
