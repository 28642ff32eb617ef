"""A chat completion as a step of the memory agent."""

from typing import Any

import pytest

from app.dto.openai.chat import ChatRequest
from app.dto.shared.base import RequestLimits
from app.dto.tiles.memory import is_memory, to_memory
from app.services.errors import InvalidRequest
from app.services.memory.request import MemoryRequest


def chat(**more: Any) -> ChatRequest:
    spoken = [{"role": "assistant", "content": ""}, {"role": "user", "content": "Hi"}]
    return ChatRequest.model_validate({"messages": spoken, "input": "Hi"} | more)


def asked(**more: Any) -> MemoryRequest:
    return to_memory(chat(**more), RequestLimits())


def test_input_decides() -> None:
    assert is_memory(chat())
    assert is_memory(chat(input=""))
    assert is_memory(chat(input=None, python_code="x = 1"))
    assert not is_memory(chat(input=None))
    assert not is_memory(chat(input=None, python_code="", chat_start=True))


@pytest.mark.parametrize(
    ("more", "tokens"),
    [
        ({}, 1024),
        ({"max_tokens": 7}, 7),
        ({"max_tokens": -1}, None),
        ({"n_predict": 5}, 5),
        ({"max_tokens": None}, 1024),
    ],
)
def test_an_answer_has_1024_tokens_unless_the_client_says_otherwise(more: dict[str, Any], tokens: int | None) -> None:
    assert asked(**more).generation.max_tokens == tokens


def test_the_models_own_tags_stay_in_the_text() -> None:
    generation = asked(temperature=0.5, stop=["</reply>"]).generation
    assert not generation.split_reasoning
    assert (generation.messages, generation.sampling.temperature, generation.stop) == ((), 0.5, ("</reply>",))


@pytest.mark.parametrize(
    ("more", "begins"),
    [
        ({"chat_start": True}, True),
        ({"chat_start": True, "python_code": "x = 1"}, True),
        ({"chat_start": False, "python_code": "x = 1"}, False),
        ({}, True),
        ({"python_code": "x = 1"}, False),
    ],
)
def test_chat_start_says_what_begins_a_turn_and_code_does_where_it_is_absent(
    more: dict[str, Any], begins: bool
) -> None:
    assert asked(**more).begins is begins


def test_the_reply_is_the_last_of_the_assistants() -> None:
    spoken = [{"role": "assistant", "content": "Hello"}, {"role": "user", "content": "Hi"}]
    assert (asked(messages=spoken).reply, asked().reply) == ("Hello", "")


def test_code_without_input_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="input"):
        asked(input=None, python_code="x = 1")
