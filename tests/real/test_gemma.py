"""What a real model says, whoever asks beside it: as mlx-lm alone, in a batch, after a restart, beyond the window."""

import json
import os
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from statistics import fmean
from typing import Any

import httpx
import pytest

from benchmarks.processes import free_port
from tests.conftest import Server, wait_for
from tests.real import gemma
from tests.real.conftest import SECONDS, Reference, completion, logprobs, serving

TOLERANCE = 0.002  # of a log-probability
TOKENS = 5  # of an answer
PLAIN = {
    "The capital of France is the city of": " Paris",
    "The capital of Japan is the city of": " Tokyo",
    "Monday, Tuesday, Wednesday,": " Thursday",
    "January, February, March,": " April",
    "Spring, summer, autumn,": " winter",
    "One, two, three, four,": " five",
    "10, 9, 8, 7, 6, 5, 4, 3,": " 2",
    "A, B, C, D, E,": " F",
    "The sun rises in the east and sets in the": " west",
    "Roses are red, violets are": " blue",
}
LIST = "".join(f"Item {number}: the value is {number * number % 97}.\n" for number in range(430))
LONG = f"{LIST}\nThe capital of France is the city of"  # over 5,000 tokens, ten times the window
CITY = 'root ::= " " ("Berlin" | "London" | "Paris" | "Rome") "."'
# Without a maximum a base model writes zeros for ever.
SCHEMA = {
    "type": "object",
    "properties": {
        "capital": {"enum": ["Berlin", "London", "Paris"]},
        "inhabitants": {"type": "integer", "maximum": 99_999_999},
    },
    "required": ["capital", "inhabitants"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def alone(real: Server) -> dict[str, dict[str, Any]]:
    """The answer to each sentence, one after the other."""
    return {prompt: completion(real, prompt, TOKENS, cache_prompt=False) for prompt in PLAIN}


def same(answer: dict[str, Any], expected: dict[str, Any]) -> None:
    assert answer["tokens"] == expected["tokens"]
    assert logprobs(answer) == pytest.approx(logprobs(expected), abs=TOLERANCE)


def test_plain_sentences_go_on_with_the_plain_word(alone: dict[str, dict[str, Any]]) -> None:
    words = {prompt: answer["content"][: len(PLAIN[prompt])] for prompt, answer in alone.items()}
    assert words == PLAIN


def test_the_server_answers_as_mlx_lm_alone(alone: dict[str, dict[str, Any]], reference: Reference) -> None:
    for prompt, answer in alone.items():
        tokens, expected = reference.answer(prompt, TOKENS)
        assert answer["tokens"] == tokens
        assert logprobs(answer) == pytest.approx(expected, abs=TOLERANCE)


def test_the_tokenizer_gives_back_every_text(real: Server, reference: Reference) -> None:
    for text in ("größer 你好 👩‍👩‍👧", "def f():\n    return  1\n\n\n\ttab", "<b>bold</b> <start_of_turn>"):
        tokens = real.client.post("/tokenize", json={"content": text, "add_special": True}).json()["tokens"]
        assert tokens == reference.ids(text)
        assert real.client.post("/detokenize", json={"tokens": tokens[1:]}).json()["content"] == text


def test_an_answer_is_the_same_in_a_batch(real: Server, alone: dict[str, dict[str, Any]]) -> None:
    """With rows of the same kind, and with one that is longer than the window."""
    middle = LIST[:4000]
    with ThreadPoolExecutor(len(PLAIN) + 1) as pool:
        beside = pool.submit(completion, real, middle, 2 * TOKENS)
        together = {prompt: pool.submit(completion, real, prompt, TOKENS, cache_prompt=False) for prompt in PLAIN}
        for prompt, answer in together.items():
            same(answer.result(), alone[prompt])
        beside.result()


def test_behind_a_prompt_far_beyond_the_window(folder: Path, tmp_path: Path, reference: Reference) -> None:
    """The whole of it, a part that is cached, and the disk after a restart give what mlx-lm alone gives.

    In a home of its own: the server of the other tests is up, and lets nobody else keep prompts beside its own.
    """
    assert len(reference.ids(LONG)) > 5000
    tokens, expected = reference.answer(LONG, TOKENS)
    with serving(folder, tmp_path) as server:
        first = completion(server, LONG, TOKENS)
        again = completion(server, LONG, TOKENS)
        assert server.stop() == 0
    with serving(folder, tmp_path) as server:
        restarted = completion(server, LONG, TOKENS)
        assert server.errors() == []
    assert first["content"].startswith(" Paris")
    assert first["timings"]["cache_n"] == 0
    for answer in (again, restarted):
        assert answer["timings"]["cache_n"] > 4000
    for answer in (first, again, restarted):
        assert answer["tokens"] == tokens
        assert logprobs(answer) == pytest.approx(expected, abs=TOLERANCE)


def test_a_longer_prompt_reuses_what_is_cached(real: Server, reference: Reference) -> None:
    start = "Paris is in France, Rome is in Italy, " * 6
    completion(real, start, 1)
    prompt = f"{start}Tokyo is in Japan, Berlin is in"
    answer = completion(real, prompt, TOKENS)
    tokens, expected = reference.answer(prompt, TOKENS)
    assert answer["timings"]["cache_n"] > 20
    assert answer["content"].startswith(" Germany")
    assert answer["tokens"] == tokens
    assert logprobs(answer) == pytest.approx(expected, abs=TOLERANCE)


def test_a_grammar_leaves_the_choice_to_the_model(real: Server) -> None:
    """Alone and in a batch; the tables of a vocabulary of 262,144 tokens are made for the first of them."""
    capitals = {"France": " Paris.", "Germany": " Berlin.", "Italy": " Rome."}
    prompts = [f"The capital of {country} is the city of" for country in capitals]
    one = [completion(real, prompt, 8, grammar=CITY, ignore_eos=False) for prompt in prompts]
    assert [answer["content"] for answer in one] == list(capitals.values())
    with ThreadPoolExecutor(len(prompts)) as pool:
        several = pool.map(lambda prompt: completion(real, prompt, 8, grammar=CITY, ignore_eos=False), prompts)
        for answer, expected in zip(several, one, strict=True):
            same(answer, expected)


def test_an_answer_follows_a_json_schema(real: Server) -> None:
    example = 'The capital of Germany is Berlin. As JSON: {"capital": "Berlin", "inhabitants": 3700000}'
    prompt = f"{example}\nThe capital of France is Paris. As JSON: "
    answer = completion(real, prompt, 40, json_schema=SCHEMA, ignore_eos=False)
    content = json.loads(answer["content"])
    assert (content["capital"], type(content["inhabitants"])) == ("Paris", int)


@pytest.mark.skipif("TILES_TEST_LLAMA_SERVER" not in os.environ, reason="TILES_TEST_LLAMA_SERVER names no llama-server")
def test_llama_server_says_the_same_of_the_same_file(alone: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    """Its arithmetic is of 8 bits, so the log-probabilities agree on average only."""
    differences = []
    with llama_server(tmp_path) as client:
        for prompt, answer in alone.items():
            body = {"prompt": prompt, "n_predict": 1, "temperature": 0, "n_probs": 1, "return_tokens": True}
            other = client.post("/completion", json=body).json()
            assert other["tokens"] == answer["tokens"][:1]
            differences.append(abs(logprobs(other)[0] - logprobs(answer)[0]))
    assert fmean(differences) < 0.05


@contextmanager
def llama_server(folder: Path) -> Iterator[httpx.Client]:
    port = free_port()
    command = [os.environ["TILES_TEST_LLAMA_SERVER"], "-m", str(gemma.gguf_path()), "--port", str(port), "-c", "2048"]
    with (folder / "llama-server.log").open("w") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=SECONDS) as client:
                wait_for(lambda: _healthy(client), SECONDS, what="llama-server")
                yield client
        finally:
            process.terminate()


def _healthy(client: httpx.Client) -> bool:
    try:
        return client.get("/health").status_code == 200
    except httpx.TransportError:
        return False
