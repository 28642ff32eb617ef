"""The evaluation: greedy answers of a server to held-out questions about pictures, as a table for the model card."""

import argparse
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx

from demo_model.evaluate import Row, as_markdown, write_card
from demo_model.served import AT_ONCE, serving
from demo_model.source import Source
from demo_model.template import FOLDER
from demo_vision import questions, scenes
from demo_vision.questions import Maker, Question

SEED = "evaluation"
SIGHT = "sight"  # the marks of the table in the model card
LONGEST = 48  # tokens of an answer
CATEGORIES: tuple[tuple[str, Maker, int, float], ...] = (  # of the table: how many questions, and the figure to reach
    ("what is there", questions.see, 200, 0.95),
    ("which colour or shape", questions.colour_or_shape, 200, 0.95),
    ("left, right, above, below", questions.beside, 200, 0.90),
    ("how many, up to five", questions.count, 200, 0.90),
    ("numbers", questions.digits, 200, 0.95),
    ("short words", questions.word, 200, 0.80),
)


@dataclass(frozen=True)
class Item:
    """A question to ask, with its picture as a PNG in base64."""

    category: str
    question: Question
    png: str


def all_items(share: float = 1.0) -> Iterator[Item]:
    """The questions of the evaluation, of phrasings, words and combinations that training never has."""
    for category, maker, count, _ in CATEGORIES:
        source = Source(f"{SEED} {category}", held_out=True)
        for _ in range(max(1, round(count * share))):
            question = maker(source)
            yield Item(category, question, scenes.as_png(scenes.draw(source, question.scene).image))


def is_right(question: Question, answer: str) -> bool:
    """Whether an answer says what is right: things may come in any order, case matters only in what is written."""
    wanted, given = question.answer.strip(), answer.strip()
    if question.kind == "colour and shape":
        return _things(given) == _things(wanted)
    return given == wanted


def _things(text: str) -> list[str]:
    return sorted(part.strip() for part in text.lower().rstrip(".").replace(" and ", ", ").split(","))


def answers(client: httpx.Client, items: list[Item]) -> list[str]:
    """Greedy answers, many at once."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(partial(_answer, client), items))


def request(item: Item) -> dict[str, Any]:
    """The body of a chat completion that asks an item."""
    image = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{item.png}"}}
    content = [image, {"type": "text", "text": item.question.text}]
    return {"messages": [{"role": "user", "content": content}], "temperature": 0, "max_tokens": LONGEST}


def _answer(client: httpx.Client, item: Item) -> str:
    reply = client.post("/v1/chat/completions", json=request(item))
    reply.raise_for_status()
    return str(reply.json()["choices"][0]["message"]["content"] or "")


def table(items: list[Item], texts: list[str]) -> list[Row]:
    """The rows, one a category."""
    rows = []
    for category, _, _, goal in CATEGORIES:
        pairs = [pair for pair in zip(items, texts, strict=True) if pair[0].category == category]
        hits = [is_right(item.question, text) for item, text in pairs]
        rows.append(Row(category, len(hits), sum(hits) / max(1, len(hits)), goal))
    return rows


def parser() -> argparse.ArgumentParser:
    """The options of the command."""
    made = argparse.ArgumentParser(description="Evaluate the demo model that sees, through a server.")
    made.add_argument("--model", type=Path, default=FOLDER, help="the folder of the model")
    made.add_argument("--share", type=float, default=1.0, help="the share of the questions to use")
    made.add_argument("--failures", type=int, default=0, help="wrong answers to show")
    made.add_argument("--write-card", action="store_true", help="write the table into MODEL_CARD.md")
    return made


def main() -> None:
    """Evaluate a model folder."""
    options = parser().parse_args()
    began = time.monotonic()
    items = list(all_items(options.share))
    with serving(options.model) as client:
        texts = answers(client, items)
    text = as_markdown(table(items, texts))
    print(text)
    print(f"{len(texts)} answers in {time.monotonic() - began:.0f} s")
    wrong = [pair for pair in zip(items, texts, strict=True) if not is_right(pair[0].question, pair[1])]
    for item, answer in wrong[: options.failures]:
        print(f"- {item.category}: {item.question.text} gave {answer!r}, wanted {item.question.answer!r}")
    if options.write_card:
        write_card(options.model, text, SIGHT)


if __name__ == "__main__":
    main()
