"""Documents ranked: by encoders made for it, and by any model that writes; and a model of these beside another."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.services import catalog
from tests import encoders
from tests.conftest import Server, running
from tests.encoders import DOCUMENTS, QUERY


@pytest.fixture(scope="module")
def ranker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return encoders.build(tmp_path_factory.mktemp("ranker") / "small-ranker", "xlm-roberta", ranks=True)


@pytest.fixture(scope="module")
def beside(tiny: Path, ranker: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A model that writes with a reranker beside it."""
    home = tmp_path_factory.mktemp("beside")
    with running(home, "--model", str(tiny), "--embedding-model", str(ranker)) as server:
        yield server
        assert server.errors() == []


@pytest.fixture(scope="module")
def vectors_beside(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A model that writes with one that makes vectors beside it."""
    folder = encoders.build(tmp_path_factory.mktemp("vectors") / "small-bert")
    home = tmp_path_factory.mktemp("home")
    with running(home, "--model", str(tiny), "--embedding-model", str(folder)) as server:
        yield server
        assert server.errors() == []


def ask(server: Server, route: str = "/v1/rerank", **body: Any) -> Any:
    answer = server.client.post(route, json={"query": QUERY} | body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def logistic(number: float) -> float:
    return 1 / (1 + math.exp(-number))


def expected(folder: Path) -> list[float]:
    reference = encoders.Reference(folder)
    return [reference.score(QUERY, document) for document in DOCUMENTS]


@pytest.mark.parametrize("route", ["/v1/rerank", "/rerank", "/v1/reranking", "/reranking", "/v2/rerank"])
def test_a_reranker_gives_what_its_head_says_the_best_first(beside: Server, ranker: Path, route: str) -> None:
    answer = ask(beside, route, documents=DOCUMENTS)
    numbers = expected(ranker)
    results = answer["results"]
    assert [one["index"] for one in results] == sorted(range(4), key=lambda index: -numbers[index])
    for one in results:
        assert one["relevance_score"] == pytest.approx(logistic(numbers[one["index"]]), abs=2e-5)
        assert set(one) == {"index", "relevance_score"}
    assert (answer["object"], answer["model"]) == ("list", "small-ranker")
    tokenizer = encoders.Reference(ranker).tokenizer
    tokens = sum(len(tokenizer.encode(QUERY, document).ids) for document in DOCUMENTS)
    assert answer["usage"] == {"prompt_tokens": tokens, "total_tokens": tokens}


def test_teis_words_give_teis_answer(beside: Server, ranker: Path) -> None:
    numbers = expected(ranker)
    answer = ask(beside, "/rerank", texts=DOCUMENTS, raw_scores=True, return_text=True)
    assert [one["text"] for one in answer] == [DOCUMENTS[one["index"]] for one in answer]
    np.testing.assert_allclose([one["score"] for one in answer], sorted(numbers, reverse=True), atol=5e-5)
    assert all(set(one) == {"index", "score"} for one in ask(beside, "/rerank", texts=DOCUMENTS))


def test_jinas_and_coheres_fields_are_known(beside: Server) -> None:
    """The request of Open WebUI's external reranker, and documents as objects."""
    body = {"model": "small-ranker", "documents": DOCUMENTS, "top_n": 2}
    assert [one["index"] for one in ask(beside, **body)["results"]] == [
        one["index"] for one in ask(beside, documents=DOCUMENTS)["results"][:2]
    ]
    objects = [{"text": document} for document in DOCUMENTS]
    answer = ask(beside, documents=objects, return_documents=True, top_n=99)
    assert [one["document"] for one in answer["results"]] == [objects[one["index"]] for one in answer["results"]]


def test_any_model_that_writes_ranks_too(server: Server) -> None:
    answer = ask(server, documents=DOCUMENTS)
    scores = {one["index"]: one["relevance_score"] for one in answer["results"]}
    assert sorted(scores) == [0, 1, 2, 3]
    assert list(scores.values()) == sorted(scores.values(), reverse=True)
    for index, document in enumerate(DOCUMENTS):
        alone = ask(server, documents=[document])["results"][0]["relevance_score"]
        assert alone == pytest.approx(scores[index], abs=2e-3)
    (one,) = ask(server, documents=DOCUMENTS[:1], raw_scores=True)["results"]
    assert logistic(one["relevance_score"]) == pytest.approx(scores[0], abs=2e-3)


def test_a_model_that_makes_vectors_says_that_it_cannot_rank(vectors_beside: Server) -> None:
    answer = vectors_beside.client.post(
        "/v1/rerank", json={"query": QUERY, "documents": DOCUMENTS, "model": "small-bert"}
    )
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "no_ranking")


def test_a_reranker_says_that_it_makes_no_vectors(beside: Server) -> None:
    answer = beside.client.post("/v1/embeddings", json={"input": "a", "model": "small-ranker"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "no_embeddings")


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({"documents": []}, 400, "documents"),
        ({"texts": []}, 400, "texts"),
        ({}, 422, "documents"),
        ({"documents": 123}, 422, "documents"),
        ({"documents": [1, 2, 3]}, 422, "documents"),
        ({"documents": ["a", ""]}, 400, "documents[1]"),
        ({"documents": ["a"] * 10_000}, 400, "documents"),
        ({"documents": ["a"], "query": " "}, 400, "query"),
        ({"documents": ["a"], "query": 5}, 422, "query"),
        ({"documents": ["a"], "top_n": 0}, 422, "top_n"),
        ({"documents": ["a", "the river " * 200]}, 400, "documents[1]"),
        ({"documents": ["a"], "query": "the river " * 200}, 400, "query"),
    ],
)
def test_what_cannot_be_ranked_is_refused_by_name(
    beside: Server, body: dict[str, Any], status: int, param: str
) -> None:
    answer = beside.client.post("/v1/rerank", json={"query": QUERY} | body)
    assert answer.status_code == status, answer.text
    assert param in answer.json()["error"]["message"]


def test_a_document_that_is_too_long_is_cut_where_a_request_says_so(beside: Server, server: Server) -> None:
    long = "the river " * 9000
    assert len(ask(beside, documents=["a", long], truncate=True)["results"]) == 2
    answer = server.client.post("/v1/rerank", json={"query": QUERY, "documents": ["a", long]})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "documents[1]")
    assert len(ask(server, documents=["a", long], truncate=True)["results"]) == 2


def test_each_of_two_models_does_its_own(vectors_beside: Server, tiny: Path) -> None:
    post = vectors_beside.client.post
    unnamed, named = (post("/v1/embeddings", json={"input": "a"} | more).json() for more in ({}, {"model": "tiny"}))
    assert (unnamed["model"], len(unnamed["data"][0]["embedding"])) == ("small-bert", 32)
    assert (named["model"], len(named["data"][0]["embedding"])) == ("tiny", 64)
    assert (
        post("/v1/embeddings", json={"input": "a", "model": "text-embedding-3-small"}).json()["model"] == "small-bert"
    )
    assert vectors_beside.chat("Hello", max_tokens=4).json()["model"] == "tiny"
    assert vectors_beside.chat("Hello", model="small-bert").json()["error"]["code"] == "no_completions"
    assert ask(vectors_beside, documents=DOCUMENTS)["model"] == "tiny"


def test_the_list_says_what_each_can_do(beside: Server, vectors_beside: Server) -> None:
    def rows(server: Server) -> dict[str, Any]:
        return {row["id"]: row for row in server.client.get("/v1/models").json()["data"]}

    assert rows(beside)["small-ranker"]["capabilities"] == ["rerank"]
    assert rows(beside)["small-ranker"]["architecture"]["output_modalities"] == ["rerank"]
    assert rows(vectors_beside)["small-bert"]["capabilities"] == ["embedding"]
    assert rows(vectors_beside)["small-bert"]["architecture"]["output_modalities"] == ["embeddings"]
    assert rows(beside)["tiny"]["capabilities"][:3] == ["completion", "embedding", "rerank"]
    assert rows(beside)["tiny"]["architecture"]["output_modalities"] == ["text"]
    assert vectors_beside.client.get("/v1/models/small-bert").json()["capabilities"] == ["embedding"]


def test_answers_go_on_while_another_model_makes_vectors(vectors_beside: Server) -> None:
    import threading

    wanted = vectors_beside.chat("Hello", max_tokens=40, temperature=1, seed=3).json()["choices"][0]["message"]
    found: list[Any] = []
    many = {"input": ["the river and the hill " * 8] * 800}
    thread = threading.Thread(target=lambda: found.append(vectors_beside.client.post("/v1/embeddings", json=many)))
    thread.start()
    beside = vectors_beside.chat("Hello", max_tokens=40, temperature=1, seed=3).json()["choices"][0]["message"]
    thread.join()
    assert beside == wanted
    assert len(found[0].json()["data"]) == 800


def test_a_router_has_them_as_rows(tiny: Path, ranker: Path, tmp_path: Path) -> None:
    models = tmp_path / "models"
    encoders.build(models / "small-bert")
    (models / "tiny").symlink_to(tiny)
    (models / "small-ranker").symlink_to(ranker)
    with running(tmp_path, "--models-dir", str(models)) as server:
        before = {row["id"]: row for row in server.client.get("/v1/models").json()["data"]}
        assert {name: row["capabilities"] for name, row in before.items()} == {
            "small-bert": ["embedding"],
            "small-ranker": ["rerank"],
            "tiny": ["completion", "embedding", "rerank"],
        }
        assert server.client.post("/v1/embeddings", json={"input": "a", "model": "small-bert"}).status_code == 200
        assert ask(server, documents=DOCUMENTS, model="small-ranker")["model"] == "small-ranker"
        assert server.chat("Hello", model="small-bert").json()["error"]["code"] == "no_completions"
        assert server.chat("Hello", model="tiny", max_tokens=2).status_code == 200
        assert server.errors() == []


def test_an_embedding_model_that_cannot_be_loaded_says_why(tiny: Path, tmp_path: Path) -> None:
    with running(tmp_path, "--model", str(tiny), "--embedding-model", "org/nobody") as server:
        answer = server.client.post("/v1/embeddings", json={"input": "a"})
        assert (answer.status_code, "org/nobody is no folder" in answer.text) == (500, True)
        assert server.chat("Hello", max_tokens=2).status_code == 200
        assert server.client.post("/v1/embeddings", json={"input": "a", "model": "tiny"}).status_code == 200


@pytest.mark.parametrize("readme", ["# Qwen3-Reranker-0.6B\n", "# mlx-community/Qwen3-Reranker-0.6B-4bit\n", None])
def test_a_reranker_that_writes_is_known_by_its_files(tmp_path: Path, readme: str | None) -> None:
    from tests import tiny_model

    folder = tiny_model.build(tmp_path / ("Qwen3-Reranker-0.6B" if readme is None else "model"), model_type="qwen3")
    if readme is not None:
        (folder / "README.md").write_text(f"---\nlicense: apache-2.0\n---\n\n{readme}")
    assert catalog.inspect(folder).task == "rerank"
    assert catalog.inspect(tiny_model.build(tmp_path / "other", model_type="qwen3")).task == "completion"
