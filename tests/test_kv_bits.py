"""A server whose KV caches hold older tokens rounded says so, and answers the same with caches and after a restart."""

from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Server, running

pytestmark = pytest.mark.slow
PROMPT = "one two three four five six seven eight nine ten " * 40


def ask(server: Server, text: str) -> dict[str, Any]:
    body = {"prompt": text, "n_predict": 12, "temperature": 0, "ignore_eos": True}
    answer = server.client.post("/completion", json=body)
    assert answer.status_code == 200, answer.text
    content: dict[str, Any] = answer.json()
    return content


def test_an_answer_is_the_same_with_a_cached_prompt_and_after_a_restart(tmp_path: Path) -> None:
    answers = []
    for _ in range(2):
        with running(tmp_path, "--demo", "--kv-bits", "8,4") as server:
            assert server.client.get("/props").json()["tiles"]["kv_bits"] == [8, 4]
            answers += [ask(server, PROMPT), ask(server, PROMPT)]
            assert server.errors() == []
    assert len({answer["content"] for answer in answers}) == 1
    assert [answer["timings"]["cache_n"] >= 128 for answer in answers] == [False, True, True, True]


def test_a_model_whose_caches_cannot_be_rounded_is_served_as_it_is(tiny: Path, tmp_path: Path) -> None:
    with running(tmp_path, "--model", str(tiny), "--kv-bits", "4") as server:
        assert server.client.get("/props").json()["tiles"]["kv_bits"] is None
        assert "--kv-bits is left out" in server.log
        assert ask(server, PROMPT)["content"]
