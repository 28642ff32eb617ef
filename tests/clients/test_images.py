"""Images through the official packages `openai` and `anthropic`: a model that sees is shown the same by each."""

from collections.abc import Iterator
from typing import Any

import anthropic
import openai
import pytest

from tests import vision_models
from tests.conftest import Server

PNG = vision_models.png(1)
URL = f"data:image/png;base64,{PNG}"
SOURCE = {"type": "base64", "media_type": "image/png", "data": PNG}
CHAT: list[Any] = [
    {
        "role": "user",
        "content": [{"type": "text", "text": "What is"}, {"type": "image_url", "image_url": {"url": URL}}],
    }
]
MESSAGES: list[Any] = [
    {"role": "user", "content": [{"type": "text", "text": "What is"}, {"type": "image", "source": SOURCE}]}
]
INPUT: list[Any] = [
    {
        "role": "user",
        "content": [
            {"type": "input_text", "text": "What is"},
            {"type": "input_image", "image_url": URL, "detail": "auto"},
        ],
    }
]


@pytest.fixture(scope="module")
def of_openai(seeing: Server) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{seeing.url}/v1", api_key="tiles", max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def of_anthropic(seeing: Server) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=seeing.url, api_key="tiles", max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def words(of_openai: openai.OpenAI) -> str:
    answer = of_openai.chat.completions.create(model="m", messages=CHAT, temperature=0, max_tokens=12)
    return answer.choices[0].message.content or ""


def test_openai_streams_what_it_answers_whole(of_openai: openai.OpenAI, words: str) -> None:
    stream = of_openai.chat.completions.create(
        model="m", messages=CHAT, temperature=0, max_tokens=12, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == words
    without = of_openai.chat.completions.create(
        model="m", messages=[{"role": "user", "content": "What is"}], max_tokens=1
    )
    assert chunks[-1].usage is not None
    assert without.usage is not None
    assert chunks[-1].usage.prompt_tokens > without.usage.prompt_tokens + 4


def test_responses_are_of_the_same_words_and_go_on(of_openai: openai.OpenAI, words: str) -> None:
    response = of_openai.responses.create(model="m", input=INPUT, temperature=0, max_output_tokens=12)
    assert response.output_text == words
    with of_openai.responses.stream(model="m", input=INPUT, temperature=0, max_output_tokens=12) as stream:
        assert "".join(event.delta for event in stream if event.type == "response.output_text.delta") == words
    later = of_openai.responses.create(
        model="m", input="And now?", previous_response_id=response.id, max_output_tokens=4
    )
    assert response.usage is not None
    assert later.usage is not None
    assert later.usage.input_tokens_details.cached_tokens >= response.usage.input_tokens


def test_messages_are_of_the_same_words_whole_and_streamed(of_anthropic: anthropic.Anthropic, words: str) -> None:
    options: dict[str, Any] = {"model": "m", "max_tokens": 12, "extra_body": {"temperature": 0}}
    message = of_anthropic.messages.create(messages=MESSAGES, **options)
    assert "".join(block.text for block in message.content if block.type == "text") == words
    with of_anthropic.messages.stream(messages=MESSAGES, **options) as stream:
        assert "".join(stream.text_stream) == words
    counted = of_anthropic.messages.count_tokens(model="m", messages=MESSAGES)
    used = message.usage
    assert counted.input_tokens == used.input_tokens + (used.cache_read_input_tokens or 0)


def test_an_image_that_a_tool_gives_is_seen(of_anthropic: anthropic.Anthropic) -> None:
    def tokens(*content: Any) -> int:
        turns: list[Any] = [
            {"role": "user", "content": "Look"},
            {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "look", "input": {}}]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": list(content)}]},
        ]
        return int(of_anthropic.messages.count_tokens(model="m", messages=turns).input_tokens)

    note = {"type": "text", "text": "a picture"}
    assert tokens(note, {"type": "image", "source": SOURCE}) >= tokens(note) + 6


def test_what_is_no_image_is_an_error_of_their_own(of_openai: openai.OpenAI, of_anthropic: anthropic.Anthropic) -> None:
    part = {"type": "image_url", "image_url": {"url": URL[:100]}}
    with pytest.raises(openai.BadRequestError) as refused:
        of_openai.chat.completions.create(model="m", messages=[{"role": "user", "content": [part]}])  # type: ignore[list-item,misc]
    assert (refused.value.code, refused.value.param) == ("invalid_image", "messages.0.content.0")
    block = {"type": "image", "source": SOURCE | {"data": PNG[:40]}}
    with pytest.raises(anthropic.BadRequestError, match=r"messages\.0\.content\.0"):
        of_anthropic.messages.create(model="m", max_tokens=1, messages=[{"role": "user", "content": [block]}])  # type: ignore[list-item,misc]
