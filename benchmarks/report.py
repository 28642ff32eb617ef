"""The figures as a table for the terminal, as Markdown and as JSON."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from benchmarks import lifecycle, server
from benchmarks.measure import Goal, Measure, Result, Series
from benchmarks.workloads import WORKLOADS

OURS = server.OURS.name


@dataclass(frozen=True)
class Kind:
    """What the report has to know of a workload."""

    title: str
    measures: tuple[Measure, ...]
    goals: tuple[Goal, ...]


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    workload: str
    measure: str
    cells: tuple[str, ...]  # ours, then the peers in order
    goal: str
    reached: bool | None  # None: there is no goal


def _kind(result: Result) -> Kind:
    if result.workload == lifecycle.NAME:
        return Kind(lifecycle.TITLE, lifecycle.MEASURES, lifecycle.GOALS)
    workload = next(each for each in WORKLOADS if each.name == result.workload)
    return Kind(workload.title, workload.measures, workload.goals.get(result.model, ()))


def peers(results: Sequence[Result]) -> list[str]:
    """Everybody but us, in the order they were measured."""
    return list(dict.fromkeys(name for result in results for name in result.series if name != OURS))


def rows(results: Sequence[Result]) -> Iterator[Row]:
    """Give the lines of the table."""
    others = peers(results)
    for result in results:
        kind = _kind(result)
        for measure in kind.measures:
            cells = [_value(result.series[OURS][measure.name], measure)]
            cells += [_peer(result, name, measure) for name in others]
            goal = next((goal for goal in kind.goals if goal.measure == measure.name), None)
            told, reached = _judged(result, measure, goal)
            yield Row(f"{result.model}: {kind.title}", measure.title, tuple(cells), told, reached)


def _value(series: Series, measure: Measure) -> str:
    shown, low, high = (_number(value) for value in (series.median, series.low, series.high))
    spread = "" if low == high else f" [{low}-{high}]"
    return f"{shown} {measure.unit}{spread}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def _ratio(result: Result, peer: str, measure: Measure) -> Series:
    return measure.ratios(result.series[OURS][measure.name], result.series[peer][measure.name])


def _peer(result: Result, peer: str, measure: Measure) -> str:
    if peer not in result.series:
        return ""
    value = _value(result.series[peer][measure.name], measure)
    return f"{value} (x{_ratio(result, peer, measure).median:.2f})" if measure.judged else value


def _judged(result: Result, measure: Measure, goal: Goal | None) -> tuple[str, bool | None]:
    if goal is None:
        return "", None
    if goal.peer is not None:
        ratios = _ratio(result, goal.peer, measure)
        reached = ratios.median >= goal.bound
        return f"{_said(reached)}: >= x{goal.bound:g} {goal.peer}, is x{ratios.median:.2f}", reached
    median = result.series[OURS][measure.name].median
    reached = median >= goal.bound if measure.more_is_better else median <= goal.bound
    sign = ">=" if measure.more_is_better else "<="
    return f"{_said(reached)}: {sign} {goal.bound:g} {measure.unit}, is {_number(median)}", reached


def _said(reached: bool) -> str:
    return "reached" if reached else "NOT reached"


def _heads(results: Sequence[Result]) -> list[str]:
    return ["workload", "measure", OURS, *peers(results), "goal"]


LEGEND = "Medians [least-most] of {repeat} repetitions; (x) how many times better ours is, the median of the pairs."


def legend(results: Sequence[Result]) -> str:
    """How the table is to be read."""
    return LEGEND.format(repeat=max(len(values.values) for values in results[0].series[OURS].values()))


def show(console: Console, machine: dict[str, str], results: Sequence[Result]) -> None:
    """Print the table."""
    table = Table(
        title=" · ".join(f"{name} {value}" for name, value in machine.items()), caption=escape(legend(results))
    )
    for head in _heads(results):
        table.add_column(head, overflow="fold")
    before = ""
    for row in rows(results):
        if before and row.workload != before:
            table.add_section()
        style = {True: "green", False: "red", None: ""}[row.reached]
        goal = f"[{style}]{row.goal}[/]" if style else row.goal
        table.add_row("" if row.workload == before else row.workload, row.measure, *map(escape, row.cells), goal)
        before = row.workload
    console.print(table)


def markdown(machine: dict[str, str], results: Sequence[Result]) -> str:
    """Give the table for a README."""
    heads = _heads(results)
    lines = [", ".join(f"{name} {value}" for name, value in machine.items()) + ".", legend(results), ""]
    lines += ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for row in rows(results):
        lines.append("| " + " | ".join((row.workload, row.measure, *row.cells, row.goal)) + " |")
    return "\n".join(lines) + "\n"


def as_json(machine: dict[str, str], results: Sequence[Result]) -> str:
    """Give everything that was measured, each repetition."""
    content: dict[str, Any] = {"machine": machine, "results": []}
    for result in results:
        entry = asdict(result)
        entry["medians"] = {
            target: {name: series.median for name, series in measured.items()}
            for target, measured in result.series.items()
        }
        content["results"].append(entry)
    return json.dumps(content, indent=1) + "\n"
