import json

import httpx
import openai
import pytest

from tests.conftest import Server


def test_an_answer_has_the_shape_of_openai(server: Server) -> None:
    answer = server.chat(max_tokens=8).json()
    assert answer["object"] == "chat.completion"
    assert answer["model"] == "tiny"
    assert answer["choices"][0]["message"]["role"] == "assistant"
    assert answer["usage"]["completion_tokens"] <= 8
