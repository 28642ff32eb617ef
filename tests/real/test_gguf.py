"""The real model's GGUF as it is: widened as the CPU has it, and packed as a GPU has it, beside what the file says."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import mlx.core as mx
import pytest
from mlx_lm.generate import generate_step

from app.services import catalog
from app.services.engine.model.loading import at_once, load
from app.services.engine.model.model_files import open_gguf
from app.services.gguf.cache import GGUFCache
from tests.conftest import Server
from tests.real import gemma
from tests.real.conftest import Reference, completion, logprobs, serving
from tests.real.test_gemma import PLAIN, llama_server

COUNT = 40  # tokens of an answer to each of the sentences: 400 together
Scores = list[tuple[int, float]]  # for each token of an answer: the likeliest, and the log-probability of the token


@pytest.fixture(scope="module")
def file(folder: Path) -> Path:
    return gemma.gguf_path()


@pytest.fixture(scope="module")
def served(file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(file, tmp_path_factory.mktemp("gguf")) as server:
        yield server
        assert server.errors() == []


@pytest.fixture(scope="module")
def exact(file: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The model with the weights as the file has them, in float32."""
    return loaded(file, tmp_path_factory.mktemp("exact"), packed=False, half=False)


@pytest.fixture(scope="module")
def answers(exact: Any, reference: Reference) -> dict[str, list[int]]:
    """The greedy answer to each of the sentences."""
    return {prompt: greedy(exact, reference.ids(prompt)) for prompt in PLAIN}


def loaded(file: Path, folder: Path, *, packed: bool, half: bool) -> Any:
    cache = GGUFCache(folder, 2**34)
    with at_once(open_gguf(catalog.inspect(file), cache, packed=packed, half=half)) as files:
        model, _ = at_once(load(files))
        mx.eval(model.parameters())
        return model


def greedy(model: Any, ids: Sequence[int]) -> list[int]:
    return [int(token) for token, _ in generate_step(mx.array(ids), model, max_tokens=COUNT)]


def scores(model: Any, prompt: Sequence[int], answer: Sequence[int]) -> Scores:
    """What a model says of an answer, in one pass."""
    logits = model(mx.array([[*prompt, *answer[:-1]]]))[0, len(prompt) - 1 :].astype(mx.float32)
    distributions = logits - mx.logsumexp(logits, axis=-1, keepdims=True)
    likeliest = mx.argmax(distributions, axis=-1).tolist()
    return [(likeliest[index], float(distributions[index, token])) for index, token in enumerate(answer)]


def test_the_file_is_served_with_the_weights_that_it_has(
    served: Server, exact: Any, reference: Reference, answers: dict[str, list[int]]
) -> None:
    for prompt, answer in answers.items():
        reply = completion(served, prompt, COUNT)
        assert reply["tokens"] == answer
        expected = [logprob for _, logprob in scores(exact, reference.ids(prompt), answer)]
        assert logprobs(reply) == pytest.approx(expected, abs=0.002)


def test_the_weights_are_those_of_the_independent_conversion(reference: Reference, exact: Any) -> None:
    """It rounds to float16, and is otherwise what llama.cpp's own package says of the file."""
    for prompt in PLAIN:
        tokens, expected = reference.answer(prompt, 5)
        assert [logprob for _, logprob in scores(exact, reference.ids(prompt), tokens)] == pytest.approx(
            expected, abs=0.02
        )


@pytest.mark.parametrize("half", [False, True])
def test_packed_it_says_nearly_the_same(
    half: bool, file: Path, exact: Any, reference: Reference, answers: dict[str, list[int]], tmp_path: Path
) -> None:
    packed = loaded(file, tmp_path, packed=True, half=half)
    compare(packed, exact, reference, answers, share=0.995, change=0.03)


@pytest.mark.skipif("TILES_TEST_LLAMA_SERVER" not in os.environ, reason="TILES_TEST_LLAMA_SERVER names no llama-server")
def test_llama_server_says_nearly_the_same_for_400_tokens(exact: Any, reference: Reference, tmp_path: Path) -> None:
    """Its answers, as the exact weights see them: it computes with 8 bits itself."""
    same, changes = [], []
    with llama_server(tmp_path) as client:
        for prompt in PLAIN:
            body = {"prompt": prompt, "n_predict": COUNT, "temperature": 0, "n_probs": 1, "return_tokens": True}
            reply = client.post("/completion", json=body | {"ignore_eos": True}).json()
            ours = scores(exact, reference.ids(prompt), reply["tokens"])
            same += [token == best for token, (best, _) in zip(reply["tokens"], ours, strict=True)]
            changes += [abs(a - b) for a, (_, b) in zip(logprobs(reply), ours, strict=True)]
    print(f"llama-server: {fmean(same):.2%} of {len(same)} tokens, mean change {fmean(changes):.4f}")
    assert fmean(same) >= 0.98
    assert fmean(changes) <= 0.05


def compare(
    model: Any, exact: Any, reference: Reference, answers: dict[str, list[int]], *, share: float, change: float
) -> None:
    """Compare what two models say of the same answers: the share of tokens, the mean change of log-probabilities."""
    same, changes = [], []
    for prompt, answer in answers.items():
        ids = reference.ids(prompt)
        theirs = scores(exact, ids, answer)
        ours = scores(model, ids, answer)
        same += [a == b for (a, _), (b, _) in zip(ours, theirs, strict=True)]
        changes += [abs(a - b) for (_, a), (_, b) in zip(ours, theirs, strict=True)]
    print(f"{fmean(same):.2%} of {len(same)} tokens, mean change {fmean(changes):.4f}")
    assert fmean(same) >= share
    assert fmean(changes) <= change
