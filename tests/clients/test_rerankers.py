"""Clients of ranks: a reranker beside the demo model, and the demo model itself, which any of them may name."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests import encoders
from tests.conftest import Server, running
from tests.encoders import DOCUMENTS, QUERY

pytestmark = pytest.mark.filterwarnings("default")  # these packages warn of what they do themselves

MODELS = ["small-ranker", "tiles-nano"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return encoders.build(tmp_path_factory.mktemp("ranker") / "small-ranker", "xlm-roberta", ranks=True)


@pytest.fixture(scope="module")
def server(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp("home"), "--demo", "--embedding-model", str(folder)) as server:
        yield server
        assert server.errors() == []


@pytest.fixture(scope="module")
def ranks(server: Server, folder: Path) -> dict[str, list[tuple[int, float]]]:
    """What each model says of the documents, the best first: by NumPy alone, and by the server without a client."""
    reference = encoders.Reference(folder)
    scores = [1 / (1 + math.exp(-reference.score(QUERY, document))) for document in DOCUMENTS]
    body = {"model": "tiles-nano", "query": QUERY, "documents": DOCUMENTS}
    results = server.client.post("/v1/rerank", json=body).json()["results"]
    return {
        "small-ranker": sorted(enumerate(scores), key=lambda one: -one[1]),
        "tiles-nano": [(one["index"], one["relevance_score"]) for one in results],
    }


def check(scores: list[tuple[str, float]], expected: list[tuple[int, float]]) -> None:
    assert [text for text, _ in scores] == [DOCUMENTS[index] for index, _ in expected]
    assert [score for _, score in scores] == pytest.approx([score for _, score in expected], abs=1e-4)


@pytest.mark.parametrize("model", MODELS)
def test_langchains_class_compresses_documents(server: Server, ranks: Any, model: str) -> None:
    langchain_cohere = pytest.importorskip("langchain_cohere", reason="langchain-cohere is not installed")
    from langchain_core.documents import Document

    ranker = langchain_cohere.CohereRerank(base_url=server.url, cohere_api_key="tiles", model=model, top_n=3)
    documents = [Document(text, metadata={"source": number}) for number, text in enumerate(DOCUMENTS)]
    best = ranker.compress_documents(documents, QUERY)
    check([(each.page_content, each.metadata["relevance_score"]) for each in best], ranks[model][:3])
    assert [each.metadata["source"] for each in best] == [index for index, _ in ranks[model][:3]]
    assert len(ranker.rerank(DOCUMENTS, QUERY, top_n=None, max_tokens_per_doc=4000)) == len(DOCUMENTS)


@pytest.mark.parametrize("model", MODELS)
def test_llamaindexs_classes_rank_nodes(server: Server, ranks: Any, model: str) -> None:
    jina = pytest.importorskip(
        "llama_index.postprocessor.jinaai_rerank", reason="llama-index-postprocessor-jinaai-rerank is not installed"
    )
    ranker = jina.JinaRerank(top_n=3, model=model, base_url=f"{server.url}/v1", api_key="tiles")
    check(llamaindex_ranks(ranker), ranks[model][:3])


def test_llamaindexs_class_for_tei_ranks_nodes(server: Server, ranks: Any) -> None:
    tei = pytest.importorskip(
        "llama_index.postprocessor.tei_rerank", reason="llama-index-postprocessor-tei-rerank is not installed"
    )
    check(llamaindex_ranks(tei.TextEmbeddingInference(top_n=3, base_url=server.url)), ranks["small-ranker"][:3])


def llamaindex_ranks(ranker: Any) -> list[tuple[str, float]]:
    from llama_index.core.schema import NodeWithScore, TextNode

    nodes = [NodeWithScore(node=TextNode(text=text), score=0.0) for text in DOCUMENTS]
    return [(each.node.get_content(), each.score) for each in ranker.postprocess_nodes(nodes, query_str=QUERY)]


@pytest.mark.parametrize("model", ["reranker", "tiles-nano"])  # the first is what it asks for unless it is told
def test_open_webuis_external_reranker_has_a_score_of_each_document(server: Server, ranks: Any, model: str) -> None:
    """It sends and reads what its `ExternalReranker` does, which is no package of its own."""
    user = {"X-OpenWebUI-User-Name": "Ada", "X-OpenWebUI-User-Id": "1", "X-OpenWebUI-User-Role": "admin"}
    answer = httpx.post(
        f"{server.url}/v1/rerank",
        headers={"Content-Type": "application/json", "Authorization": "Bearer tiles", **user},
        json={"model": model, "query": QUERY, "documents": DOCUMENTS, "top_n": len(DOCUMENTS)},
        timeout=120,
    )
    results = sorted(answer.json()["results"], key=lambda result: result["index"])
    expected = sorted(ranks["small-ranker" if model == "reranker" else model])
    scores = [result["relevance_score"] for result in results]
    assert scores == pytest.approx([score for _, score in expected], abs=1e-4)
