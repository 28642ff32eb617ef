"""How likely the tokens of an echoed prompt are, as OpenAI's legacy completions have it."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import Server, events

TEXT = "The river and the hill; a naïve café, and so on. "
Reference = Callable[[list[int]], Any]


@pytest.fixture(scope="module")
def tokenizer(tiny: Path) -> Any:
    from mlx_lm.utils import load_tokenizer

    return load_tokenizer(tiny)


@pytest.fixture(scope="module")
def reference(tiny: Path) -> Reference:
    """The log-probabilities (tokens, vocabulary) behind each token, by mlx-lm alone and in one go."""
    from app.services.engine.model import blas

    blas.preload()
    import mlx.core as mx
    from mlx_lm import load

    model = load(str(tiny))[0]

    def of(tokens: list[int]) -> Any:
        logits = model(mx.array([tokens]))[0].astype(mx.float32)
        return np.array(logits - mx.logsumexp(logits, axis=-1, keepdims=True))

    return of


def complete(server: Server, prompt: Any, **more: Any) -> Any:
    body = {"prompt": prompt, "echo": True, "logprobs": 2, "temperature": 0, "max_tokens": 0} | more
    answer = server.client.post("/v1/completions", json=body, timeout=120)
    assert answer.status_code == 200, answer.text
    return answer.json()["choices"] if not more.get("stream") else events(answer.text)


def check(scores: dict[str, Any], tokens: list[int], expected: Any) -> None:
    assert scores["token_logprobs"][0] is None and scores["top_logprobs"][0] is None
    values = [expected[index - 1, token] for index, token in enumerate(tokens) if index]
    np.testing.assert_allclose(scores["token_logprobs"][1 : len(tokens)], values, atol=0.002)
    for index, top in enumerate(scores["top_logprobs"][1 : len(tokens)]):
        assert max(top.values()) == pytest.approx(expected[index].max(), abs=0.002)


@pytest.mark.parametrize("copies", [1, 60])
def test_a_prompt_is_as_likely_as_mlx_lm_says(
    server: Server, tokenizer: Any, reference: Reference, copies: int
) -> None:
    text = TEXT * copies
    tokens = tokenizer.encode(text)
    [choice] = complete(server, text)
    scores = choice["logprobs"]
    check(scores, tokens, reference(tokens))
    assert choice["text"] == text
    assert len(scores["tokens"]) == len(scores["text_offset"]) == len(tokens)
    assert len(scores["content"]) == len(tokens) - 1
    [of_ids] = complete(server, tokens)
    assert of_ids["logprobs"]["token_logprobs"][1:] == pytest.approx(scores["token_logprobs"][1:], abs=2e-4)


def test_offsets_are_where_tokens_stand_in_the_text(server: Server) -> None:
    [choice] = complete(server, TEXT, max_tokens=3)
    text, scores = choice["text"], choice["logprobs"]
    assert text.startswith(TEXT)
    for token, offset in zip(scores["tokens"], scores["text_offset"], strict=True):
        if token and "\ufffd" not in token:
            assert text[offset : offset + len(token)] == token


def test_the_answer_follows_with_its_own(server: Server, tokenizer: Any, reference: Reference) -> None:
    prompt = tokenizer.encode(TEXT)
    [plain] = complete(server, TEXT, echo=False, max_tokens=4, ignore_eos=True)
    [choice] = complete(server, TEXT, max_tokens=4, ignore_eos=True)
    assert choice["text"] == TEXT + plain["text"]
    check(choice["logprobs"], prompt, reference(prompt))
    scores = choice["logprobs"]
    assert scores["token_logprobs"][len(prompt) :] == pytest.approx(plain["logprobs"]["token_logprobs"], abs=2e-4)
    for one, other in zip(scores["top_logprobs"][len(prompt) :], plain["logprobs"]["top_logprobs"], strict=True):
        assert one == pytest.approx(other, abs=2e-4)


def test_an_end_token_counts_as_a_token_of_the_answer(server: Server, tokenizer: Any) -> None:
    prompt = tokenizer.encode(TEXT)
    [choice] = complete(server, TEXT, max_tokens=1, logit_bias={str(tokenizer.eos_token_id): 100})
    assert choice["finish_reason"] == "stop" and choice["text"] == TEXT
    assert len(choice["logprobs"]["token_logprobs"]) == len(prompt) + 1


def test_a_stream_says_the_same(server: Server) -> None:
    how: dict[str, Any] = {"max_tokens": 5, "n": 2, "temperature": 1, "seed": 3}
    whole = complete(server, [TEXT, "Hi"], **how)
    parts = complete(server, [TEXT, "Hi"], stream=True, **how)
    for choice in whole:
        own = [each for part in parts for each in part["choices"] if each["index"] == choice["index"]]
        assert "".join(each["text"] for each in own) == choice["text"]
        for name, values in choice["logprobs"].items():
            assert [item for each in own if each["logprobs"] for item in each["logprobs"][name]] == values


def test_it_is_the_same_beside_others_and_after_the_prompt_was_cached(server: Server) -> None:
    alone = complete(server, TEXT * 30)
    with ThreadPoolExecutor(4) as pool:
        beside = list(pool.map(lambda copies: complete(server, TEXT * copies), [30, 7, 30, 2]))
    for [other] in (beside[0], beside[2]):
        one, two = (each["logprobs"]["token_logprobs"][1:] for each in (alone[0], other))
        np.testing.assert_allclose(one, two, atol=0.0002)


def test_a_single_token_has_nothing_to_follow(server: Server) -> None:
    [choice] = complete(server, [70])
    assert choice["logprobs"]["token_logprobs"] == [None]
    assert choice["logprobs"]["top_logprobs"] == [None]
    [choice] = complete(server, [70], logprobs=0)
    assert choice["logprobs"]["top_logprobs"] is None
