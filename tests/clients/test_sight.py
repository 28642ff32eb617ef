"""What the demo model sees, asked for with the official packages `openai` and `anthropic`."""

from collections.abc import Callable
from typing import Any

import anthropic
import openai
import pytest

from tests.conftest import Server
from tests.pictures import shapes, stacked, written

Ask = Callable[[str, str], str]
ASKED = [  # a picture, a question, and its answer
    (shapes("red circle"), "What do you see?", "A red circle."),
    (shapes("blue star"), "What colour is the star?", "Blue."),
    (shapes("green square", "orange triangle"), "What is left of the orange triangle?", "A green square."),
    (stacked("purple star", "yellow square"), "What is above the yellow square?", "A purple star."),
    (shapes("red square", "blue square", "black square"), "How many squares are there?", "Three."),
    (written("42"), "Which number is this?", "42."),
    (written("tea"), "What does it say?", "It says: tea."),
]


def by_chat(server: Server) -> Ask:
    def ask(png: str, question: str) -> str:
        image = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{png}"}}
        messages: list[Any] = [{"role": "user", "content": [image, {"type": "text", "text": question}]}]
        with openai.OpenAI(base_url=f"{server.url}/v1", api_key="tiles", max_retries=0) as client:
            answer = client.chat.completions.create(model="m", messages=messages, temperature=0, max_tokens=40)
        return answer.choices[0].message.content or ""

    return ask


def by_responses(server: Server) -> Ask:
    def ask(png: str, question: str) -> str:
        image = {"type": "input_image", "image_url": f"data:image/png;base64,{png}", "detail": "auto"}
        asked: list[Any] = [{"role": "user", "content": [image, {"type": "input_text", "text": question}]}]
        with openai.OpenAI(base_url=f"{server.url}/v1", api_key="tiles", max_retries=0) as client:
            return client.responses.create(model="m", input=asked, temperature=0, max_output_tokens=40).output_text

    return ask


def by_messages(server: Server) -> Ask:
    def ask(png: str, question: str) -> str:
        source = {"type": "base64", "media_type": "image/png", "data": png}
        content: list[Any] = [{"type": "image", "source": source}, {"type": "text", "text": question}]
        with anthropic.Anthropic(base_url=server.url, api_key="tiles", max_retries=0) as client:
            message = client.messages.create(
                model="m",
                max_tokens=40,
                messages=[{"role": "user", "content": content}],
                extra_body={"temperature": 0},
            )
        return "".join(block.text for block in message.content if block.type == "text")

    return ask


@pytest.mark.parametrize("way", [by_chat, by_responses, by_messages])
def test_it_says_what_is_drawn(demo: Server, way: Callable[[Server], Ask]) -> None:
    ask = way(demo)
    assert {question: ask(png, question) for png, question, _ in ASKED} == {
        question: answer for _, question, answer in ASKED
    }


def test_it_says_what_a_tool_has_shown(demo: Server) -> None:
    """As Claude Code's Read does, which gives back the picture and nothing else."""
    tool: Any = {
        "name": "Read",
        "description": "Reads a file from the local filesystem.",
        "input_schema": {"type": "object", "properties": {"file_path": {"type": "string"}}, "required": ["file_path"]},
    }
    said: Any = {"role": "user", "content": "Read the file /tmp/drawing.png. What do you see?"}
    with anthropic.Anthropic(base_url=demo.url, api_key="tiles", max_retries=0) as client:
        options: dict[str, Any] = {"model": "m", "max_tokens": 80, "extra_body": {"temperature": 0}, "tools": [tool]}
        first = client.messages.create(messages=[said], **options)
        (call,) = [block for block in first.content if block.type == "tool_use"]
        assert call.input == {"file_path": "/tmp/drawing.png"}
        source = {"type": "base64", "media_type": "image/png", "data": shapes("red circle")}
        result: Any = {"type": "tool_result", "tool_use_id": call.id, "content": [{"type": "image", "source": source}]}
        turns: Any = [said, {"role": "assistant", "content": first.content}, {"role": "user", "content": [result]}]
        second = client.messages.create(messages=turns, **options)
    assert "".join(block.text for block in second.content if block.type == "text") == "A red circle."
