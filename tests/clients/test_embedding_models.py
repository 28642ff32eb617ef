"""Clients of embeddings and ranks with an encoder beside the demo model."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import openai
import pytest

from tests import encoders
from tests.conftest import Server, running

TEXTS = ["Every tile came from a small workshop.", "one", "It reads what was written, piece by piece."]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return encoders.build(tmp_path_factory.mktemp("encoder") / "small-bert", prompts={"query": "what is "})


@pytest.fixture(scope="module")
def server(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp("home"), "--demo", "--embedding-model", str(folder)) as server:
        yield server
        assert server.errors() == []


def test_openais_client_has_its_parameters(server: Server, folder: Path) -> None:
    expected = [encoders.Reference(folder).vector(text) for text in TEXTS]
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0, timeout=120) as client:
        answer = client.embeddings.create(model="text-embedding-3-small", input=TEXTS)
        np.testing.assert_allclose([item.embedding for item in answer.data], expected, atol=2e-5)
        assert answer.usage.prompt_tokens == answer.usage.total_tokens > len(TEXTS)
        query = client.embeddings.create(model="small-bert", input="the river", extra_body={"prompt_name": "query"})
        asked = encoders.Reference(folder).vector("what is the river")
        np.testing.assert_allclose(query.data[0].embedding, asked, atol=2e-5)
        tokens = encoders.Reference(folder).tokenizer.encode(TEXTS[0]).ids
        by_tokens = client.embeddings.create(model="small-bert", input=tokens, encoding_format="float")
        np.testing.assert_allclose(by_tokens.data[0].embedding, expected[0], atol=2e-5)


def test_langchains_embeddings_search(server: Server, folder: Path) -> None:
    langchain_openai = pytest.importorskip("langchain_openai", reason="langchain-openai is not installed")
    from langchain_core.vectorstores import InMemoryVectorStore

    embeddings = langchain_openai.OpenAIEmbeddings(
        base_url=f"{server.url}/v1", api_key="tiles", model="small-bert", check_embedding_ctx_length=False
    )
    reference = encoders.Reference(folder)
    np.testing.assert_allclose(embeddings.embed_query(TEXTS[0]), reference.vector(TEXTS[0]), atol=2e-5)
    store = InMemoryVectorStore(embeddings)
    store.add_texts(TEXTS)
    cosines = [float(reference.vector("a workshop") @ reference.vector(text)) for text in TEXTS]
    found = [document.page_content for document in store.similarity_search("a workshop", k=3)]
    assert found == [TEXTS[index] for index in np.argsort(cosines)[::-1]]


def test_llamaindexs_embeddings_search(server: Server, folder: Path) -> None:
    openai_like = pytest.importorskip(
        "llama_index.embeddings.openai_like", reason="llama-index-embeddings-openai-like is not installed"
    )
    embeddings = openai_like.OpenAILikeEmbedding(
        model_name="small-bert", api_base=f"{server.url}/v1", api_key="tiles", embed_batch_size=2, max_retries=0
    )
    reference = encoders.Reference(folder)
    vectors = embeddings.get_text_embedding_batch(TEXTS)
    np.testing.assert_allclose(vectors, [reference.vector(text) for text in TEXTS], atol=2e-5)
    query = embeddings.get_query_embedding("a workshop")
    np.testing.assert_allclose(query, reference.vector("a workshop"), atol=2e-5)
    cosines = [embeddings.similarity(query, vector) for vector in vectors]
    assert cosines == pytest.approx([float(query @ np.array(vector)) for vector in vectors], abs=1e-5)


def test_open_webuis_embeddings_are_read_in_their_order(server: Server, folder: Path) -> None:
    """It sends and reads what its OpenAI engine does, which is no package of its own."""
    answer = httpx.post(
        f"{server.url}/v1/embeddings",
        headers={"Content-Type": "application/json", "Authorization": "Bearer tiles", "X-OpenWebUI-User-Name": "Ada"},
        json={"input": TEXTS, "model": "small-bert"},
        timeout=120,
    )
    vectors = [each["embedding"] for each in answer.json()["data"]]
    np.testing.assert_allclose(vectors, [encoders.Reference(folder).vector(text) for text in TEXTS], atol=2e-5)
