"""How often decisions are right, and what they take: three small tasks, asked of a server that runs.

    python -m benchmarks.decisions http://127.0.0.1:6969 [--limit 20]
    python -m benchmarks.decisions http://127.0.0.1:6969 --questions 400 [--tokens 2000] [--rounds 3]

The items of decisions.jsonl were written for this. Each is asked for by itself, so a question is a request.

With --questions so many are asked about one long input, in one request. Beside it, in turns, as many tokens as that has
are computed as plain prompts that have nothing in common: of the input's length, and of twice that. Each token of a
question attends to the whole input; in a prompt of twice its length a token does on average, in one of its length to
half of it.
"""

import argparse
import json
import random
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

_ITEMS = Path(__file__).with_suffix(".jsonl")
_TOPICS = ["sports", "business", "science", "cooking"]


def question(task: str, text: str) -> dict[str, Any]:
    """Give the body that asks about an item."""
    if task == "entailment":
        premise, hypothesis = text.split("\t")
        return {"input": premise, "questions": [{"type": "predicate", "instructions": hypothesis}]}
    words, options = {
        "sentiment": ("What does the writer of this feel?", ["positive", "negative"]),
        "topic": ("What is this sentence about?", _TOPICS),
    }[task]
    choices = [{"value": option} for option in options]
    return {"input": text, "questions": [{"type": "choice", "instructions": words, "choices": choices}]}


def answer(reply: dict[str, Any]) -> tuple[str, float]:
    """Give what was decided, and how likely that is."""
    [only] = reply["answers"]
    if only["type"] == "predicate":
        return ("yes" if only["probability"] > 0.5 else "no"), max(only["probability"], 1 - only["probability"])
    return only["choice"], max(each["probability"] for each in only["probabilities"])


def ask(url: str, limit: int) -> Iterator[str]:
    """Ask about the first items of each task, and give a row of a table for each."""
    items = [json.loads(line) for line in _ITEMS.read_text().splitlines()]
    with httpx.Client(base_url=url, timeout=600) as client:
        for task in dict.fromkeys(item["task"] for item in items):
            own = [item for item in items if item["task"] == task][:limit]
            right, sure, seconds, decided = 0, [], [], []
            for item in own:
                start = time.perf_counter()
                reply = client.post("/v1/decisions", json=question(task, item["text"])).raise_for_status().json()
                seconds.append(time.perf_counter() - start)
                choice, probability = answer(reply)
                right += choice == item["answer"]
                sure.append(probability)
                decided.append(choice)
            often = max(decided.count(choice) for choice in decided) / len(own)
            yield (
                f"| {task} | {right / len(own):.0%} | {statistics.mean(sure):.0%} | {often:.0%} | "
                f"{statistics.median(seconds) * 1000:.0f} ms |"
            )


def many(url: str, questions: int, tokens: int, rounds: int) -> Iterator[str]:
    """Ask many questions about one input, beside prompts of as many tokens; give lines of what both took."""
    draw = random.Random()  # a server that was asked before has nothing of this in its prefix cache
    seconds: dict[str, list[float]] = {"questions": [], "prompts": [], "prompts of twice the length": []}
    with httpx.Client(base_url=url, timeout=3600) as client:
        for _ in range(rounds):
            text = _text(client, draw, tokens)
            body = {"input": text, "questions": [_question(draw, number) for number in range(questions)]}
            reply, taken = _timed(client, "/v1/decisions", body)
            seconds["questions"].append(taken)
            computed = reply["usage"]["input_tokens"]
            ids = client.post("/tokenize", json={"content": text}).json()["tokens"]
            for kind, length in (("prompts", len(ids)), ("prompts of twice the length", 2 * len(ids))):
                seconds[kind].append(_timed_prompts(client, draw, ids, computed, length))
            latest = ", ".join(f"{values[-1]:.2f} s as {kind}" for kind, values in seconds.items())
            yield f"{computed} tokens: {latest}"
    asked = seconds.pop("questions")
    yield f"questions: {_spread(asked)} s"
    for kind, values in seconds.items():
        ratios = [one / other for one, other in zip(asked, values, strict=True)]
        yield f"{kind}: {_spread(values)} s; questions take {_spread(ratios)} times that"


def _timed_prompts(client: httpx.Client, draw: random.Random, ids: list[int], tokens: int, length: int) -> float:
    """Compute so many tokens, drawn from `ids`, as prompts of a length; give the seconds."""
    lengths = [length] * (tokens // length) + ([tokens % length] if tokens % length else [])
    prompts = [draw.choices(ids, k=each) for each in lengths]
    return _timed(client, "/v1/completions", {"prompt": prompts, "max_tokens": 0})[1]


def _spread(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def _text(client: httpx.Client, draw: random.Random, tokens: int) -> str:
    """Give the beginnings of items in some order, about so many tokens."""
    items = [json.loads(line)["text"].replace("\t", " ") for line in _ITEMS.read_text().splitlines()]
    words = " ".join(draw.sample(items, len(items))).split() * (1 + tokens // 1000)
    pieces = client.post("/tokenize", json={"content": " ".join(words), "with_pieces": False}).json()["tokens"]
    return " ".join(words[: len(words) * tokens // len(pieces)])


def _question(draw: random.Random, number: int) -> dict[str, Any]:
    topic, other = draw.sample(_TOPICS, 2)
    return {"type": "predicate", "instructions": f"Sentence {number} is more about {topic} than about {other}."}


def _timed(client: httpx.Client, route: str, body: dict[str, Any]) -> tuple[Any, float]:
    start = time.perf_counter()
    reply = client.post(route, json=body).raise_for_status().json()
    return reply, time.perf_counter() - start


def main() -> None:
    """Print a table, or what many questions took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("--limit", type=int, default=100)
    parser.add_argument("--questions", type=int)
    parser.add_argument("--tokens", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    if options.questions:
        for line in many(options.url, options.questions, options.tokens, options.rounds):
            print(line, flush=True)
        return
    print("| task | right | mean probability | most frequent answer | median time |\n| --- | --- | --- | --- | --- |")
    for row in ask(options.url, options.limit):
        print(row, flush=True)


if __name__ == "__main__":
    main()
