"""Texts as vectors, over HTTP and through OpenAI's client."""

import base64
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest

from app.services.sentence_files import read_settings
from tests.conftest import CONTEXT, KEY, Server, wait_for

TEXTS = ["Hello world", "é", "The river and the hill, " * 20, "one two three"]
Reference = Callable[..., Any]


@pytest.fixture(scope="module")
def vector(tiny: Path) -> Reference:
    """The vector of a text, by mlx-lm alone and without a cache."""
    from app.services.engine.model import blas

    blas.preload()
    import mlx.core as mx
    from mlx_lm import load

    model, tokenizer = load(str(tiny))[:2]

    def of(text: str | list[int], pooling: str = "mean", length: float | None = 1.0) -> Any:
        tokens = tokenizer.encode(text) if isinstance(text, str) else text
        hidden = np.array(model.model(mx.array([tokens])))[0]
        pooled = hidden.mean(axis=0) if pooling == "mean" else hidden[-1]
        return pooled if length is None else pooled / np.linalg.norm(pooled)

    return of


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0, timeout=60) as client:
        yield client


def post(server: Server, route: str = "/v1/embeddings", **body: Any) -> Any:
    answer = server.client.post(route, json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def vectors(answer: Any) -> Any:
    assert [item["index"] for item in answer["data"]] == list(range(len(answer["data"])))
    return np.array([item["embedding"] for item in answer["data"]])


def test_the_vectors_are_those_of_the_model(server: Server, vector: Reference) -> None:
    answer = post(server, input=TEXTS)
    assert (answer["object"], answer["model"]) == ("list", "tiny")
    for text, found in zip(TEXTS, vectors(answer), strict=True):
        np.testing.assert_allclose(found, vector(text), atol=1e-5)
        assert np.linalg.norm(found) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("pooling", ["mean", "last"])
def test_pooling_and_length_can_be_chosen(server: Server, vector: Reference, pooling: str) -> None:
    answer = post(server, input=TEXTS[2], pooling=pooling, embd_normalize=-1)
    np.testing.assert_allclose(vectors(answer)[0], vector(TEXTS[2], pooling, None), atol=2e-4)


def test_a_text_alone_has_the_vector_that_it_has_beside_others(server: Server) -> None:
    together = vectors(post(server, input=TEXTS))
    for text, found in zip(TEXTS, together, strict=True):
        np.testing.assert_allclose(vectors(post(server, input=text))[0], found, atol=1e-5)


def test_token_ids_are_taken_as_the_text_is(server: Server) -> None:
    ids = [server.client.post("/tokenize", json={"content": text}).json()["tokens"] for text in TEXTS]
    texts = post(server, input=TEXTS)
    tokens = post(server, input=ids)
    np.testing.assert_allclose(vectors(tokens), vectors(texts), atol=1e-6)
    np.testing.assert_allclose(vectors(post(server, input=ids[0]))[0], vectors(texts)[0], atol=1e-5)
    counted = sum(len(one) for one in ids)
    assert tokens["usage"] == texts["usage"] == {"prompt_tokens": counted, "total_tokens": counted}


def test_base64_says_the_same_numbers(server: Server) -> None:
    (item,) = post(server, input="Hello", encoding_format="base64")["data"]
    decoded = np.frombuffer(base64.b64decode(item["embedding"]), dtype="<f4")
    np.testing.assert_allclose(decoded, vectors(post(server, input="Hello"))[0], atol=1e-6)


def test_the_official_client_reads_both_encodings(client: openai.OpenAI, vector: Reference) -> None:
    packed = client.embeddings.create(model="m", input=TEXTS[:2])  # asks for base64 by itself
    plain = client.embeddings.create(model="m", input=TEXTS[:2], encoding_format="float")
    for place, text in enumerate(TEXTS[:2]):
        np.testing.assert_allclose(packed.data[place].embedding, plain.data[place].embedding, atol=1e-6)
        np.testing.assert_allclose(plain.data[place].embedding, vector(text), atol=1e-5)
    assert packed.usage.prompt_tokens == packed.usage.total_tokens > 0


def test_vectors_are_cut_to_the_dimensions_of_a_request(client: openai.OpenAI) -> None:
    whole = client.embeddings.create(model="m", input="Hello").data[0].embedding
    for dimensions in (1, 8, len(whole)):
        cut = client.embeddings.create(model="m", input="Hello", dimensions=dimensions).data[0].embedding
        expected = np.array(whole[:dimensions])
        np.testing.assert_allclose(cut, expected / np.linalg.norm(expected), atol=1e-6)
    with pytest.raises(openai.BadRequestError) as refusal:
        client.embeddings.create(model="m", input="Hello", dimensions=len(whole) + 1)
    assert (refusal.value.param, str(len(whole)) in refusal.value.message) == ("dimensions", True)


@pytest.mark.parametrize("route", ["/embedding", "/embeddings"])
def test_llama_cpps_routes_answer_with_a_list(server: Server, vector: Reference, route: str) -> None:
    for name in ("content", "input"):
        (one,) = post(server, route, **{name: "Hello"})
        assert set(one) == {"index", "embedding"}
        np.testing.assert_allclose(one["embedding"][0], vector("Hello"), atol=1e-5)
    several = post(server, route, content=["Hello", "you"])
    assert [one["index"] for one in several] == [0, 1]


@pytest.mark.parametrize(
    ("route", "body", "status", "param"),
    [
        ("/v1/embeddings", {}, 422, "input"),
        ("/v1/embeddings", {"input": []}, 422, "input"),
        ("/v1/embeddings", {"input": ""}, 400, "input"),
        ("/v1/embeddings", {"input": ["a", ""]}, 400, "input"),
        ("/v1/embeddings", {"input": 5}, 422, "input"),
        ("/v1/embeddings", {"input": [768_000]}, 400, "input"),
        ("/v1/embeddings", {"input": ["a"] * 2049}, 422, "input"),
        ("/v1/embeddings", {"input": "a", "encoding_format": "x"}, 422, "encoding_format"),
        ("/v1/embeddings", {"input": "a", "dimensions": 0}, 422, "dimensions"),
        ("/v1/embeddings", {"input": "a", "dimensions": 65}, 400, "dimensions"),
        ("/v1/embeddings", {"input": "a", "pooling": "rank"}, 422, "pooling"),
        ("/v1/embeddings", {"input": "a", "prompt_name": "query"}, 400, "prompt_name"),
        ("/embedding", {}, 422, "content"),
        ("/embedding", {"content": [[[1]]]}, 422, "content"),
    ],
)
def test_what_cannot_be_embedded_is_refused_by_name(
    server: Server, route: str, body: dict[str, Any], status: int, param: str
) -> None:
    answer = server.client.post(route, json=body)
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert param in error["message"]
    assert (error["param"] or param).startswith(param)


def test_a_text_that_is_too_long_is_refused_with_its_numbers(server: Server) -> None:
    error = server.client.post("/v1/embeddings", json={"input": "the river " * 9000}).json()["error"]
    assert error["code"] == "context_length_exceeded"
    assert error["n_prompt_tokens"] > error["n_ctx"]


@pytest.mark.parametrize("route", ["/v1/embeddings", "/embedding", "/api/embed"])
def test_a_text_that_is_too_long_is_cut_where_a_request_says_so(guarded: Server, route: str) -> None:
    body = {"content" if route == "/embedding" else "input": "the river " * CONTEXT, "model": "tiny"}
    headers = {"authorization": f"Bearer {KEY}"}
    refused = guarded.client.post(route, json=body | {"truncate": False}, headers=headers)
    assert refused.status_code == 400
    assert guarded.client.post(route, json=body | {"truncate": True}, headers=headers).status_code == 200


def test_what_has_no_effect_is_named(server: Server) -> None:
    answer = server.client.post("/v1/embeddings", json={"input": "a", "user": "u", "frobnicate": 1})
    assert answer.headers["x-tiles-ignored"] == "frobnicate, user"


def test_answers_go_on_while_texts_are_embedded(server: Server) -> None:
    wanted = server.chat("Hello", max_tokens=40, temperature=1, seed=3).json()["choices"][0]["message"]["content"]
    many = {"input": ["the river and the hill " * 40] * 24}
    done = threading.Event()
    found: list[Any] = []

    def embed() -> None:
        found.append(server.client.post("/v1/embeddings", json=many))
        done.set()

    thread = threading.Thread(target=embed)
    thread.start()
    text = server.chat("Hello", max_tokens=40, temperature=1, seed=3).json()["choices"][0]["message"]["content"]
    assert text == wanted
    assert done.wait(60)
    thread.join()
    together = vectors(found[0].json())
    np.testing.assert_allclose(together, together[:1].repeat(24, axis=0), atol=1e-5)


def test_a_client_that_hangs_up_is_not_worked_for(server: Server) -> None:
    before = len(given_up(server))
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{server.url}/v1/embeddings", json={"input": ["the river " * 700] * 120}, timeout=0.5)
    wait_for(lambda: len(given_up(server)) > before, what="the line of the request that was given up")
    assert server.chat(max_tokens=2).status_code == 200


def given_up(server: Server) -> list[Any]:
    return [line for line in server.logged("request") if (line["route"], line["status"]) == ("/v1/embeddings", 499)]


def test_a_model_says_how_it_is_pooled(tmp_path: Path) -> None:
    assert read_settings(tmp_path).pooling == ()
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling" / "config.json").write_text('{"pooling_mode_lasttoken": true}')
    assert read_settings(tmp_path).pooling == ("last",)
