"""How often decisions are right, and what they take: three small tasks, asked of a server that runs.

    python -m benchmarks.decisions http://127.0.0.1:6969 [--limit 20]

The items of decisions.jsonl were written for this. Each is asked for by itself, so a question is a request.
"""

import argparse
import json
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


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("--limit", type=int, default=100)
    options = parser.parse_args()
    print("| task | right | mean probability | most frequent answer | median time |\n| --- | --- | --- | --- | --- |")
    for row in ask(options.url, options.limit):
        print(row, flush=True)


if __name__ == "__main__":
    main()
