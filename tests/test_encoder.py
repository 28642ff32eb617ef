"""A server whose model is an encoder, over HTTP and through OpenAI's client."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest

from tests import encoders
from tests.conftest import Server, running

TEXTS = ["Every tile came from a small workshop.", "one", "It reads what was written, piece by piece."]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    prompts = {"query": "what is ", "document": ""}
    return encoders.build(tmp_path_factory.mktemp("encoder") / "small-bert", most_tokens=48, prompts=prompts)


@pytest.fixture(scope="module")
def encoder(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp("home"), "--model", str(folder)) as server:
        yield server
        assert server.errors() == []


def vectors(server: Server, **body: Any) -> Any:
    answer = server.client.post("/v1/embeddings", json=body)
    assert answer.status_code == 200, answer.text
    return np.array([item["embedding"] for item in answer.json()["data"]])


def test_the_vectors_are_those_of_the_model(encoder: Server, folder: Path) -> None:
    reference = encoders.Reference(folder)
    expected = [reference.vector(text) for text in TEXTS]
    np.testing.assert_allclose(vectors(encoder, input=TEXTS), expected, atol=2e-5)
    for route, name in (("/embedding", "content"), ("/api/embed", "input")):
        answer = encoder.client.post(route, json={"model": "small-bert", name: TEXTS}).json()
        found = answer["embeddings"] if route == "/api/embed" else [item["embedding"][0] for item in answer]
        np.testing.assert_allclose(found, expected, atol=2e-5)


def test_openais_client_reads_them(encoder: Server, folder: Path) -> None:
    with openai.OpenAI(base_url=f"{encoder.url}/v1", api_key="none", max_retries=0, timeout=60) as client:
        answer = client.embeddings.create(model="small-bert", input=TEXTS)  # asks for base64 by itself
        cut = client.embeddings.create(model="small-bert", input=TEXTS[0], dimensions=8).data[0].embedding
    expected = encoders.Reference(folder).vector(TEXTS[0])
    np.testing.assert_allclose(answer.data[0].embedding, expected, atol=2e-5)
    np.testing.assert_allclose(cut, expected[:8] / np.linalg.norm(expected[:8]), atol=2e-5)


def test_2048_texts_come_back_in_their_order(encoder: Server, folder: Path) -> None:
    many = [" ".join(["bird"] * (1 + index % 20)) for index in range(2048)]
    found = vectors(encoder, input=many)
    alone = np.concatenate([vectors(encoder, input=many[index]) for index in (0, 7, 19)])
    np.testing.assert_allclose(found[[0, 7, 19]], alone, atol=1e-5)
    np.testing.assert_allclose(found[20:40], found[:20], atol=1e-5)


def test_a_prompt_of_the_model_is_put_before_a_text(encoder: Server) -> None:
    np.testing.assert_allclose(
        vectors(encoder, input="the river", prompt_name="query"), vectors(encoder, input="what is the river"), atol=1e-6
    )
    error = encoder.client.post("/v1/embeddings", json={"input": "a", "prompt_name": "nope"}).json()["error"]
    assert (error["param"], "document, query" in error["message"]) == ("prompt_name", True)


def test_a_text_over_the_limit_is_refused_by_its_index_or_cut(encoder: Server) -> None:
    long = "the river and the hill " * 40
    answer = encoder.client.post("/v1/embeddings", json={"input": ["a", long]})
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (400, "context_length_exceeded", "input[1]")
    assert vectors(encoder, input=["a", long], truncate=True).shape == (2, 32)
    assert encoder.client.post("/api/embed", json={"model": "m", "input": long}).status_code == 200


@pytest.mark.parametrize(
    ("route", "body"),
    [
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "Hi"}]}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "Hi"}], "stream": True}),
        ("/v1/completions", {"prompt": "Hi"}),
        ("/completion", {"prompt": "Hi"}),
        ("/v1/responses", {"input": "Hi"}),
        ("/v1/messages", {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 5}),
        ("/apply-template", {"messages": [{"role": "user", "content": "Hi"}]}),
        ("/api/chat", {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}),
    ],
)
def test_what_needs_a_model_that_writes_is_refused(encoder: Server, route: str, body: dict[str, Any]) -> None:
    answer = encoder.client.post(route, json=body)
    assert answer.status_code == 400, answer.text
    assert "turns texts into vectors, and writes no text" in answer.text


def test_tokens_are_those_of_the_tokenizer(encoder: Server, folder: Path) -> None:
    ids = encoders.Reference(folder).tokenizer.encode(TEXTS[0]).ids
    answer = encoder.client.post("/tokenize", json={"content": TEXTS[0], "add_special": True}).json()
    assert answer["tokens"] == ids
    np.testing.assert_allclose(vectors(encoder, input=ids), vectors(encoder, input=TEXTS[0]), atol=1e-6)
    assert "tile" in encoder.client.post("/detokenize", json={"tokens": ids}).json()["content"]


@pytest.mark.parametrize(
    "route", ["/health", "/props", "/v1/models", "/slots", "/metrics", "/api/tags", "/api/ps", "/"]
)
def test_the_other_routes_answer(encoder: Server, route: str) -> None:
    assert encoder.client.get(route).status_code == 200
