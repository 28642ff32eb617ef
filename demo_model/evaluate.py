"""The evaluation: greedy answers of a server to held-out items, as a table, on demand in the model card."""

import argparse
import re
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from demo_model.items import CATEGORIES, Category, all_items
from demo_model.judge import obeyed, object_in, right
from demo_model.served import Outcome, answers, serving
from demo_model.template import FOLDER

SCORES = "scores"  # the marks of the table in the model card


@dataclass(frozen=True)
class Row:
    """A line of the table: `held` is the score where a grammar holds calls to the tools, if there are tools."""

    name: str
    count: int
    score: float
    goal: float | None = None
    held: float | None = None


def table(free: list[Outcome], held: list[Outcome]) -> list[Row]:
    """The rows: each category, then what holds over all answers. `held` are answers to the items with tools again."""
    rows = [_category(category, free, held) for category in CATEGORIES]
    structured = [o for o in free if o.item.schema is not None]
    whole = [o.ended and object_in(o.text) is not None for o in structured]
    thought = [o for o in free if o.item.thinking]
    unthought = [o for o in free if not o.item.thinking]
    return [
        *rows,
        _over("answers held to a schema that end", structured, whole, 0.995),
        _over("right after thinking aloud", thought, [right(o.item, o.text) for o in thought]),
        _over("thinking obeyed when on", thought, [obeyed(o.item, o.text) for o in thought], 0.99),
        _over("thinking obeyed when off", unthought, [obeyed(o.item, o.text) for o in unthought], 0.99),
        _over("ended by the end token", free, [o.ended for o in free], 0.995),
    ]


def _category(category: Category, free: list[Outcome], held: list[Outcome]) -> Row:
    hits, again = _hits(free, category.name), _hits(held, category.name)
    return Row(category.name, len(hits), _mean(hits), category.goal, _mean(again) if again else None)


def _hits(outcomes: list[Outcome], category: str) -> list[bool]:
    mine = [o for o in outcomes if o.item.category == category and not o.item.thinking]
    return [right(o.item, o.text) and o.ended for o in mine]


def _over(name: str, outcomes: list[Outcome], hits: list[bool], goal: float | None = None) -> Row:
    return Row(name, len(outcomes), _mean(hits), goal)


def _mean(hits: list[bool]) -> float:
    return sum(hits) / max(1, len(hits))


def as_markdown(rows: list[Row]) -> str:
    """The table in Markdown; without the column of held calls where nothing was called."""
    calls = any(row.held is not None for row in rows)
    titles = ["what", "items", "right", *(["calls held"] if calls else []), "to reach"]
    lines = [titles, ["---"] * len(titles)]
    for row in rows:
        if row.count:
            held = "" if row.held is None else f"{row.held:.1%}"
            goal = f"{row.goal * 100:g}%" if row.goal else ""
            lines.append([row.name, str(row.count), f"{row.score:.1%}", *([held] if calls else []), goal])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def write_card(folder: Path, text: str, mark: str = SCORES) -> None:
    """Put a table between its marks of the model card."""
    card, begin, end = folder / "MODEL_CARD.md", f"<!-- {mark}: begin -->", f"<!-- {mark}: end -->"
    head, _, rest = card.read_text().partition(begin)
    card.write_text(f"{head}{begin}\n{text}\n{end}{rest.partition(end)[2]}")


def show_failures(outcomes: list[Outcome], count: int) -> None:
    """Print some wrong answers of each category."""
    shown: Counter[str] = Counter()
    for o in outcomes:
        fine = right(o.item, o.text) and obeyed(o.item, o.text) and o.ended
        if not fine and shown[o.item.category] < count:
            shown[o.item.category] += 1
            print(f"- {o.item.category}: {o.item.messages[-1].content[-300:]!r}")
            print(f"    gave   {o.text!r}\n    wanted {o.item.wanted.calls or o.item.wanted.content!r}")


def parser() -> argparse.ArgumentParser:
    """The options of the command."""
    made = argparse.ArgumentParser(description="Evaluate the demo model on held-out items, through a server.")
    made.add_argument("--model", type=Path, default=FOLDER, help="the folder of the model")
    made.add_argument("--share", type=float, default=1.0, help="the share of the items to use")
    made.add_argument("--only", default="", help="only categories whose names match this pattern")
    made.add_argument("--failures", type=int, default=0, help="wrong answers to show of each category")
    made.add_argument("--write-card", action="store_true", help="write the table into MODEL_CARD.md")
    return made


def main() -> None:
    """Evaluate a model folder."""
    options = parser().parse_args()
    began = time.monotonic()
    items = [item for item in all_items(options.share) if re.search(options.only, item.category)]
    with serving(options.model) as client:
        free = answers(client, items, "off")
        with_tools = [o for o in free if o.item.tools and not o.item.thinking]
        # the grammar binds nothing before a call begins
        calling = [o.item for o in with_tools if "<tool_call>" in o.text]
        held = answers(client, calling, "lazy") + [o for o in with_tools if "<tool_call>" not in o.text]
    text = as_markdown(table(free, held))
    print(text)
    print(f"{len(free) + len(calling)} answers in {time.monotonic() - began:.0f} s")
    show_failures(free, options.failures)
    if options.write_card:
        write_card(options.model, text)


if __name__ == "__main__":
    main()
