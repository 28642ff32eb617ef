"""Gemma 3 270M behind a server, and in the test process as mlx-lm alone computes it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from app.services.engine.model import blas
from tests.conftest import Server, running
from tests.real import gemma

blas.preload()  # before a module of these tests imports MLX
SECONDS = 1800.0  # that a start or an answer may take: of two cores others may have both


class Reference:
    """The model as mlx-lm alone computes it, in float32 as on the server."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))

    @cached_property
    def _model(self) -> Any:
        blas.preload()
        import mlx.core as mx
        from mlx_lm.utils import load_model

        model, _ = load_model(self._folder, lazy=True)
        model.set_dtype(mx.float32)
        return model

    def ids(self, text: str) -> list[int]:
        """The tokens of a prompt, the first of which begins every text."""
        return list(self.tokenizer.encode(text).ids)

    def answer(self, text: str, count: int) -> tuple[list[int], list[float]]:
        """The greedy answer of so many tokens, and the log-probability of each."""
        import mlx.core as mx
        from mlx_lm.generate import generate_step

        steps = generate_step(mx.array(self.ids(text)), self._model, max_tokens=count)
        tokens, logprobs = [], []
        for token, distribution in steps:
            tokens.append(int(token))
            logprobs.append(float(distribution[int(token)]))
        return tokens, logprobs


@pytest.fixture(scope="session")
def folder() -> Path:
    if reason := gemma.missing():
        pytest.skip(reason)
    return gemma.convert()


@pytest.fixture(scope="session")
def reference(folder: Path) -> Reference:
    return Reference(folder)


@pytest.fixture(scope="module")
def real(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server on the real model. It may log no error."""
    with serving(folder, tmp_path_factory.mktemp("real")) as server:
        yield server
        assert server.errors() == []


@contextmanager
def serving(folder: Path, home: Path) -> Iterator[Server]:
    """Run a server on the real model until the block ends."""
    with running(home, "--model", str(folder), seconds=SECONDS) as server:
        server.client.timeout = SECONDS
        yield server


def completion(server: Server, prompt: str, count: int, **more: Any) -> dict[str, Any]:
    """Ask for a greedy continuation, with its tokens and log-probabilities."""
    body = {"prompt": prompt, "n_predict": count, "temperature": 0, "n_probs": 1, "return_tokens": True}
    answer = server.client.post("/completion", json=body | {"ignore_eos": True} | more)
    assert answer.status_code == 200, answer.text
    content: dict[str, Any] = answer.json()
    return content


def logprobs(answer: dict[str, Any]) -> Sequence[float]:
    return [entry["logprob"] for entry in answer["completion_probabilities"]]
