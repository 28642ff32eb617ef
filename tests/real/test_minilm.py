"""all-MiniLM-L6-v2 served: its vectors are those of a forward pass in NumPy, and mean what they should."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest

from tests import encoders
from tests.conftest import Server, running
from tests.real import minilm
from tests.real.conftest import SECONDS

TEXTS = [
    "The weather is lovely today.",
    "It's so sunny outside!",
    "He drove to the stadium.",
    "Zoë's café: 12 crêpes, 3 €",
    "A longer text, whose words are read by a model that was trained with pairs of sentences. " * 5,
]
# What sentence-transformers' own documentation shows for the first three.
COSINES = [[1.0, 0.6660, 0.1046], [0.6660, 1.0, 0.1411], [0.1046, 0.1411, 1.0]]


@pytest.fixture(scope="module")
def model() -> Path:
    if reason := minilm.missing():
        pytest.skip(reason)
    return minilm.folder()


@pytest.fixture(scope="module")
def server(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp("minilm"), "--model", str(model), seconds=SECONDS) as server:
        server.client.timeout = SECONDS
        yield server
        assert server.errors() == []


def vectors(server: Server, *texts: str) -> Any:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0, timeout=SECONDS) as client:
        return np.array([item.embedding for item in client.embeddings.create(model="m", input=texts).data])


def test_the_vectors_are_those_of_a_plain_forward_pass(server: Server, model: Path) -> None:
    reference = encoders.Reference(model)
    expected = [reference.vector(text) for text in TEXTS]
    assert encoders.cosines(vectors(server, *TEXTS), expected).min() >= 0.9999
    np.testing.assert_allclose(vectors(server, *TEXTS), expected, atol=1e-5)


def test_the_cosines_are_the_published_ones(server: Server) -> None:
    found = vectors(server, *TEXTS[:3])
    np.testing.assert_allclose(found @ found.T, COSINES, atol=2e-4)


def test_what_means_the_same_is_near(server: Server) -> None:
    query, *documents = vectors(
        server,
        "How do I bake bread?",
        "Mix flour, water, yeast and salt, let the dough rise, and put it into the oven.",
        "The stock market fell by three percent on Monday.",
        "A loaf is done when it sounds hollow.",
        "The train to Oslo leaves at noon.",
    )
    order = [int(index) for index in np.argsort(-np.array(documents) @ query)]
    assert order[0] == 0
    assert set(order[:2]) == {0, 2}


def test_the_limit_is_that_of_its_files(server: Server) -> None:
    answer = server.client.post("/v1/embeddings", json={"input": "word " * 300})
    assert (answer.status_code, answer.json()["error"]["n_ctx"]) == (400, 256)
    assert server.client.post("/v1/embeddings", json={"input": "word " * 300, "truncate": True}).status_code == 200
