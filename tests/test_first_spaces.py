"""The space before a word that begins an answer: of a Llama 2 kind of tokenizer, whose decoder drops it."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests import tiny_model
from tests.conftest import Server, events, running
from tests.engine import tokenizers

THE = {"max_tokens": 2, "temperature": 0}


@pytest.fixture(scope="module")
def spaced(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server on a random model with such a tokenizer."""
    home = tmp_path_factory.mktemp("spaced")
    folder = tiny_model.build(home / "model", hidden=32, layers=1)
    made = tokenizers.make("Llama 2", home, None)
    made.backend_tokenizer.save(str(folder / "tokenizer.json"))
    with running(home, "--model", str(folder)) as server:
        yield server
        assert server.errors() == []


@pytest.fixture(scope="module")
def the(spaced: Server) -> dict[str, Any]:
    """Parameters of an answer that says the token `▁the` twice."""
    (token,) = spaced.client.post("/tokenize", json={"content": "the", "with_pieces": True}).json()["tokens"]
    assert token["piece"] == " the"
    return THE | {"logit_bias": {str(token["id"]): 100}}


def chat(server: Server, messages: list[dict[str, str]], body: dict[str, Any]) -> dict[str, Any]:
    answer = server.client.post("/v1/chat/completions", json={"messages": messages} | body).json()
    return dict(answer["choices"][0])


def test_a_chats_answer_begins_without_it(spaced: Server, the: dict[str, Any]) -> None:
    choice = chat(spaced, [{"role": "user", "content": "Hello"}], the | {"logprobs": True})
    assert choice["message"]["content"] == "the the"
    assert b"".join(bytes(token["bytes"]) for token in choice["logprobs"]["content"]) == b"the the"


def test_a_continued_message_goes_on_with_it(spaced: Server, the: dict[str, Any]) -> None:
    messages = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "It is"}]
    assert chat(spaced, messages, the)["message"]["content"] == "It is the the"


def test_a_completion_goes_on_with_it_streamed_too(spaced: Server, the: dict[str, Any]) -> None:
    body = {"prompt": "Hello"} | the
    assert spaced.client.post("/v1/completions", json=body).json()["choices"][0]["text"] == " the the"
    chunks = events(spaced.client.post("/v1/completions", json=body | {"stream": True}).text)
    assert "".join(choice["text"] for chunk in chunks for choice in chunk["choices"]) == " the the"


def test_an_answer_under_a_grammar_has_what_the_grammar_allows(spaced: Server, the: dict[str, Any]) -> None:
    messages = [{"role": "user", "content": "Hello"}]
    for grammar, text in (('root ::= " the"', " the"), ('root ::= "the the"', "the the")):
        assert chat(spaced, messages, the | {"max_tokens": 20, "grammar": grammar})["message"]["content"] == text
