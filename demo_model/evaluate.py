"""The evaluation through MLX: greedy answers to held-out items, as a table, on demand in the model card."""

import argparse
import contextlib
import ctypes
import importlib
import sys
import time
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from demo_model.items import CATEGORIES, Item, all_items
from demo_model.template import FOLDER, Template

BEGIN, END = "<!-- scores: begin -->", "<!-- scores: end -->"


@dataclass(frozen=True)
class Outcome:
    """What the model answered to an item."""

    item: Item
    text: str
    ended: bool


@dataclass(frozen=True)
class Row:
    """A line of the table."""

    name: str
    count: int
    score: float
    goal: float | None


def preload_blas() -> None:
    """Let MLX on a Linux CPU find a fast BLAS, where there is one."""
    with contextlib.suppress(OSError):
        ctypes.CDLL("libopenblas.so.0", mode=ctypes.RTLD_GLOBAL)


def load(folder: Path) -> tuple[Any, Any]:
    """The model in single precision, and its tokenizer."""
    preload_blas()
    import mlx.core as mx
    from mlx_lm import load as load_model

    model, tokenizer = load_model(str(folder))[:2]
    model.set_dtype(mx.float32)
    mx.eval(model.parameters())
    return model, tokenizer


def prompts(items: list[Item], tokenizer: Any, template: Template) -> list[list[int]]:
    """The items as token ids, rendered by the chat template."""
    return [
        tokenizer.encode(
            template.prompt(
                [m.as_dict() for m in i.messages], i.tools, add_generation_prompt=True, enable_thinking=i.thinking
            ),
            add_special_tokens=False,
        )
        for i in items
    ]


def answers(folder: Path, items: list[Item], limit: int = 160) -> list[Outcome]:
    """Greedy answers; prompts of like length run together, and a row that ends makes room for the next."""
    model, tokenizer = load(folder)
    ids = prompts(items, tokenizer, Template(folder))
    order = sorted(range(len(items)), key=lambda i: len(ids[i]))
    generator = importlib.import_module("mlx_lm.generate").BatchGenerator(
        model,
        stop_tokens=[[t] for t in tokenizer.eos_token_ids],
        completion_batch_size=16,
        prefill_batch_size=4,
        prefill_step_size=256,
    )
    uids = generator.insert([ids[i] for i in order], max_tokens=[limit] * len(order))
    made = generated(generator, len(order))
    generator.close()
    return [Outcome(items[i], tokenizer.decode(made[u][0]), made[u][1]) for i, u in zip(order, uids, strict=True)]


def generated(generator: Any, count: int) -> dict[int, tuple[list[int], bool]]:
    """For each row its tokens without the end token, and whether it ended by itself."""
    tokens: dict[int, list[int]] = defaultdict(list)
    done: dict[int, tuple[list[int], bool]] = {}
    while len(done) < count:
        for response in generator.next()[1]:
            if response.finish_reason != "stop":
                tokens[response.uid].append(response.token)
            if response.finish_reason:
                done[response.uid] = tokens[response.uid], response.finish_reason == "stop"
                _progress(len(done), count)
    return done


def _progress(done: int, total: int) -> None:
    if sys.stderr.isatty():
        print(f"\r{done}/{total}", end="" if done < total else "\n", file=sys.stderr, flush=True)


def table(outcomes: list[Outcome]) -> list[Row]:
    """The rows: each category, then what holds over all answers."""
    from demo_model.judge import obeyed, right

    rows = []
    for category in CATEGORIES:
        hits = [
            right(o.item, o.text) and o.ended
            for o in outcomes
            if o.item.category == category.name and not o.item.thinking
        ]
        rows.append(Row(category.name, len(hits), _mean(hits), category.goal))
    thought = [o for o in outcomes if o.item.thinking]
    rows.append(Row("right after thinking aloud", len(thought), _mean([right(o.item, o.text) for o in thought]), None))
    rows.append(Row("thinking obeyed when on", len(thought), _mean([obeyed(o.item, o.text) for o in thought]), 0.99))
    unthought = [o for o in outcomes if not o.item.thinking]
    rows.append(
        Row("thinking obeyed when off", len(unthought), _mean([obeyed(o.item, o.text) for o in unthought]), 0.99)
    )
    rows.append(Row("ended by the end token", len(outcomes), _mean([o.ended for o in outcomes]), 0.99))
    return rows


def _mean(hits: list[bool]) -> float:
    return sum(hits) / max(1, len(hits))


def as_markdown(rows: list[Row]) -> str:
    """The table in Markdown."""
    lines = ["| what | items | right | to reach |", "|---|---|---|---|"]
    return "\n".join(
        lines + [f"| {r.name} | {r.count} | {r.score:.1%} | {f'{r.goal:.0%}' if r.goal else ''} |" for r in rows]
    )


def write_card(folder: Path, text: str) -> None:
    """Put the table between the marks of the model card."""
    card = folder / "MODEL_CARD.md"
    head, _, rest = card.read_text().partition(BEGIN)
    card.write_text(f"{head}{BEGIN}\n{text}\n{END}{rest.partition(END)[2]}")


def show_failures(outcomes: list[Outcome], count: int) -> None:
    """Print some wrong answers of each category."""
    from demo_model.judge import obeyed, right

    shown: Counter[str] = Counter()
    for o in outcomes:
        fine = right(o.item, o.text) and obeyed(o.item, o.text) and o.ended
        if not fine and shown[o.item.category] < count:
            shown[o.item.category] += 1
            print(f"- {o.item.category}: {o.item.messages[-1].content[-300:]!r}")
            print(f"    gave   {o.text!r}\n    wanted {o.item.wanted.calls or o.item.wanted.content!r}")


def main() -> None:
    """Evaluate a model folder."""
    parser = argparse.ArgumentParser(description="Evaluate the demo model on held-out items.")
    parser.add_argument("--model", type=Path, default=FOLDER)
    parser.add_argument("--share", type=float, default=1.0, help="the share of the items to use")
    parser.add_argument("--failures", type=int, default=0, help="wrong answers to show of each category")
    parser.add_argument("--write-card", action="store_true", help="write the table into MODEL_CARD.md")
    options = parser.parse_args()
    began = time.monotonic()
    outcomes = answers(options.model, all_items(options.share))
    text = as_markdown(table(outcomes))
    print(text)
    print(f"{len(outcomes)} answers in {time.monotonic() - began:.0f} s")
    show_failures(outcomes, options.failures)
    if options.write_card:
        write_card(options.model, text)


if __name__ == "__main__":
    main()
