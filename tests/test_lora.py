"""Answers with adapters are those of mlx-lm with the same adapters, whoever else is in the batch."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import pytest

from tests import lora
from tests.conftest import Server

PROMPT = "The river"
LENGTH = 24


@pytest.fixture(scope="module")
def wanted(tiny: Path, adapters: list[Path], adapted: Server) -> dict[str, list[int]]:
    """What mlx-lm says without an adapter and with each."""
    tokens = adapted.client.post("/tokenize", json={"content": PROMPT}).json()["tokens"]
    by_name: dict[str, Path | None] = {"none": None, "first": adapters[0], "second": adapters[1]}
    return {name: lora.generate(tiny, folder, tokens, LENGTH) for name, folder in by_name.items()}


LORAS: dict[str, list[dict[str, float]]] = {
    "none": [],
    "first": [{"id": 0, "scale": 1.0}],
    "second": [{"id": 1, "scale": 1.0}, {"id": 0, "scale": 0.0}],
}


def say(server: Server, **more: Any) -> list[int]:
    body = {"prompt": PROMPT, "n_predict": LENGTH, "temperature": 0, "return_tokens": True, "ignore_eos": True} | more
    answer = server.client.post("/completion", json=body)
    assert answer.status_code == 200, answer.text
    return list(answer.json()["tokens"])


def test_the_adapters_change_what_is_said(wanted: dict[str, list[int]]) -> None:
    assert len({tuple(tokens) for tokens in wanted.values()}) == 3


@pytest.mark.parametrize("name", LORAS)
def test_a_request_chooses_its_adapters(adapted: Server, wanted: dict[str, list[int]], name: str) -> None:
    for _ in range(2):  # the second time the prompt is known
        assert say(adapted, lora=LORAS[name]) == wanted[name]


def test_without_a_choice_those_of_the_start_count(adapted: Server, wanted: dict[str, list[int]]) -> None:
    assert say(adapted) == wanted["first"]


def test_rows_with_different_adapters_share_a_batch(adapted: Server, wanted: dict[str, list[int]]) -> None:
    names = [*LORAS, *reversed(LORAS), "none", "second"]
    with ThreadPoolExecutor(len(names)) as pool:
        said = list(pool.map(lambda name: say(adapted, lora=LORAS[name], cache_prompt=False), names))
    assert said == [wanted[name] for name in names]


def test_half_of_an_adapter_is_neither_all_of_it_nor_nothing(adapted: Server, wanted: dict[str, list[int]]) -> None:
    half = say(adapted, lora=[{"id": 0, "scale": 0.5}])
    assert half not in wanted.values()
    assert say(adapted, lora=[{"id": 0, "scale": 0.5}]) == half


def test_the_prefix_cache_tells_scales_apart(adapted: Server) -> None:
    prompt = "A prompt of its own for the cache of prompts, long enough to be worth keeping."

    def cached(scale: float) -> int:
        body = {"prompt": prompt, "n_predict": 1, "lora": [{"id": 1, "scale": scale}]}
        return int(adapted.client.post("/completion", json=body).json()["timings"]["cache_n"])

    assert [cached(0.25), cached(0.75)] == [0, 0]
    assert cached(0.25) > 10
    assert cached(0.75) > 10
    assert cached(0.125) == 0


def test_every_dialect_that_has_them_takes_adapters(adapted: Server, wanted: dict[str, list[int]]) -> None:
    texts = {
        name: adapted.client.post("/detokenize", json={"tokens": tokens}).json()["content"]
        for name, tokens in wanted.items()
    }
    with openai.OpenAI(base_url=f"{adapted.url}/v1", api_key="none", max_retries=0) as client:
        for name, chosen in LORAS.items():
            answer = client.completions.create(
                model="m",
                prompt=PROMPT,
                max_tokens=LENGTH,
                temperature=0,
                extra_body={"lora": chosen, "ignore_eos": True},
            )
            assert answer.choices[0].text == texts[name]
    chats = [
        adapted.chat(PROMPT, temperature=0, lora=chosen, ignore_eos=True).json()["choices"][0]["message"]["content"]
        for chosen in LORAS.values()
    ]
    assert len(set(chats)) == 3


def test_they_are_told_and_can_be_set(adapted: Server, adapters: list[Path], wanted: dict[str, list[int]]) -> None:
    told = adapted.client.get("/lora-adapters").json()
    assert told == [
        {"id": place, "path": str(folder), "scale": scale, "task_name": "", "prompt_prefix": ""}
        for place, (folder, scale) in enumerate(zip(adapters, (1.0, 0.0), strict=True))
    ]
    try:
        answer = adapted.client.post("/lora-adapters", json=[{"id": 1, "scale": 1.0}])
        assert (answer.status_code, answer.json()) == (200, {"success": True})
        assert [one["scale"] for one in adapted.client.get("/lora-adapters").json()] == [0.0, 1.0]
        assert say(adapted) == wanted["second"]
        assert adapted.client.post("/lora-adapters", json=[]).status_code == 200
        assert say(adapted) == wanted["none"]
    finally:
        adapted.client.post("/lora-adapters", json=[{"id": 0, "scale": 1.0}])
    assert say(adapted) == wanted["first"]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ([{"id": 2, "scale": 1}], 400),
        ([{"id": -1, "scale": 1}], 422),
        ([{"id": 0}], 422),
        ([{"id": 0, "scale": "1"}], 422),
        ([7], 422),
        ({"id": 0, "scale": 1}, 422),
    ],
)
def test_what_is_no_choice_is_refused(adapted: Server, body: Any, status: int) -> None:
    before = adapted.client.get("/lora-adapters").json()
    assert adapted.client.post("/lora-adapters", json=body).status_code == status
    assert adapted.client.post("/completion", json={"prompt": "a", "lora": body}).status_code == status
    assert adapted.client.get("/lora-adapters").json() == before


def test_without_adapters_there_are_none(server: Server) -> None:
    assert server.client.get("/lora-adapters").json() == []
    assert server.client.post("/lora-adapters", json=[]).json() == {"success": True}
    assert say(server, lora=[]) == say(server)
    refusal = server.client.post("/completion", json={"prompt": "a", "lora": [{"id": 0, "scale": 1}]}).json()["error"]
    assert refusal["param"] == "lora"


def test_embeddings_follow_what_is_set(adapted: Server, server: Server) -> None:
    def vector(of: Server) -> Any:
        return of.client.post("/v1/embeddings", json={"input": "Hello"}).json()["data"][0]["embedding"]

    plain, with_first = vector(server), vector(adapted)
    assert max(abs(one - other) for one, other in zip(plain, with_first, strict=True)) > 1e-3
