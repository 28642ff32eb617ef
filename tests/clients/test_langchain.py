"""LangChain's ChatOpenAI: chats, streams, tools, objects."""

import asyncio
from typing import Any

import pytest

from tests.clients.shapes import GetWeather, Person
from tests.conftest import Server

langchain_openai = pytest.importorskip("langchain_openai", reason="langchain-openai is not installed")
pytestmark = pytest.mark.filterwarnings("default")  # it warns of what it does itself


def chat(server: Server, **more: Any) -> Any:
    base: dict[str, Any] = {"base_url": f"{server.url}/v1", "api_key": "tiles", "model": "m", "max_retries": 0}
    return langchain_openai.ChatOpenAI(**base | {"temperature": 0, "timeout": 120} | more)


NAMED = [("human", "My name is Ada."), ("ai", "Nice to meet you, Ada!"), ("human", "What is my name?")]


@pytest.mark.parametrize("responses", [False, True])
def test_a_name_is_remembered(demo: Server, responses: bool) -> None:
    answer = chat(demo, use_responses_api=responses).invoke(NAMED)
    assert "Ada" in answer.text
    assert answer.usage_metadata["output_tokens"] > 0


def test_a_stream_says_the_same(demo: Server) -> None:
    pieces = [piece.text for piece in chat(demo).stream("Hello!")]
    assert len(pieces) > 2
    assert "".join(pieces) == chat(demo).invoke("Hello!").text

    async def later() -> str:
        return "".join([piece.text async for piece in chat(demo).astream("Hello!")])

    assert asyncio.run(later()) == "".join(pieces)


def test_many_are_asked_at_once(demo: Server) -> None:
    assert all("Hello" in answer.text for answer in chat(demo).batch(["Hello!"] * 3))


@pytest.mark.parametrize("responses", [False, True])
def test_an_answer_becomes_an_object(demo: Server, responses: bool) -> None:
    asking = chat(demo, use_responses_api=responses).with_structured_output(Person, method="json_schema")
    assert isinstance(asking.invoke("Hello!"), Person)


def test_what_a_tool_said_can_be_given_back(demo: Server) -> None:
    from langchain_core.messages import AIMessage, HumanMessage, ToolMessage

    call = {"name": "GetWeather", "args": {"city": "Oslo"}, "id": "call_1"}
    messages = [
        HumanMessage("What is the weather in Oslo?"),
        AIMessage("", tool_calls=[call]),
        ToolMessage("sunny", tool_call_id="call_1"),
    ]
    assert chat(demo).bind_tools([GetWeather], tool_choice="none").invoke(messages).text


def test_a_tool_is_called(forced: Server) -> None:
    for choice in ("any", "GetWeather"):
        (call,) = chat(forced).bind_tools([GetWeather], tool_choice=choice).invoke("Hello!").tool_calls
        assert call["name"] == "GetWeather"
        assert GetWeather.model_validate(call["args"])
    by_function = chat(forced).with_structured_output(Person, method="function_calling")
    assert isinstance(by_function.invoke("Hello!"), Person)


def test_vectors(demo: Server) -> None:
    embeddings = langchain_openai.OpenAIEmbeddings(
        base_url=f"{demo.url}/v1", api_key="tiles", model="m", check_embedding_ctx_length=False
    )
    one, other = embeddings.embed_documents(["Hello", "Hello"])
    assert one == pytest.approx(other, abs=1e-5)
