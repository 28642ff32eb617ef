"""The figures as tables: for the terminal and as Markdown."""

from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import isfinite

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from benchmarks import names
from benchmarks.figures import Figures
from benchmarks.goals import Verdict, verdicts
from benchmarks.measure import Measure, Result, Series
from benchmarks.workloads import WORKLOADS

LEGEND = "Median [least to most] of {rounds} rounds; (x) how many times better ours is, the median over the rounds."

Key = tuple[str, str, str]  # model, workload, measure


@dataclass(frozen=True)
class Row:
    """One line of a table; `good` colours it."""

    group: str
    cells: tuple[str, ...]
    good: bool | None = None


def peers(results: Sequence[Result]) -> list[str]:
    """Everybody but us, in the usual order."""
    known = {name for result in results for name in (*result.series, *result.failures)}
    return [name for name in (names.PEER, names.PEER_WITH_BLAS, names.IN_PROCESS, names.LLAMA_SERVER) if name in known]


def figure_rows(results: Sequence[Result], chosen: Container[Key] | None = None) -> Iterator[Row]:
    """A line a measure, or only those chosen: ours, then the peers."""
    others = peers(results)
    for result in results:
        for measure in WORKLOADS[result.workload].measures:
            if chosen is not None and (result.model, result.workload, measure.name) not in chosen:
                continue
            cells = [_cell(result, names.OURS, measure), *(_cell(result, peer, measure) for peer in others)]
            if any(cells):
                yield Row(f"{result.model}: {result.title}", (measure.title, *cells))


def goal_rows(results: Sequence[Result]) -> Iterator[Row]:
    """A line a goal and model."""
    for verdict in verdicts(results):
        cells = (verdict.model, verdict.goal.told, _shown(verdict), _judgement(verdict))
        yield Row(verdict.goal.title, cells, verdict.reached)


def _shown(verdict: Verdict) -> str:
    return "" if verdict.series is None else with_spread(verdict.series) + verdict.goal.unit


def _judgement(verdict: Verdict) -> str:
    return {True: "yes", False: "no", None: "not measured"}[verdict.reached]


def _cell(result: Result, target: str, measure: Measure) -> str:
    series = result.get(target, measure.name)
    if series is None:
        return "failed" if target in result.failures and target not in result.series else ""
    told = f"{with_spread(series)} {measure.unit}".rstrip()
    ours = result.get(names.OURS, measure.name)
    if target == names.OURS or ours is None or not measure.judged:
        return told
    times = measure.ratios(ours, series).median
    return f"{told} (x{times:.2f})" if isfinite(times) else told


def with_spread(series: Series) -> str:
    """The median and what it spread over."""
    shown, low, high = (number(value) for value in (series.median, series.low, series.high))
    return shown if low == high else f"{shown} [{low} to {high}]"


def number(value: float) -> str:
    """Three digits or so."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def legend(results: Sequence[Result]) -> str:
    """How the table is to be read."""
    counts = {len(series.values) for result in results for kinds in result.series.values() for series in kinds.values()}
    rounds = f"{min(counts)} to {max(counts)}" if len(counts) > 1 else str(max(counts, default=0))
    return LEGEND.format(rounds=rounds)


def figure_heads(results: Sequence[Result]) -> list[str]:
    """The heads over figure_rows."""
    return ["workload", "measure", names.OURS, *peers(results)]


GOAL_HEADS = ["goal", "model", "to reach", "measured", "reached"]


def show(console: Console, figures: Figures) -> None:
    """Print both tables, and what failed."""
    title = " · ".join(f"{name} {value}" for name, value in figures.machine.items())
    caption = escape(legend(figures.results))
    _print(console, title, caption, figure_heads(figures.results), figure_rows(figures.results))
    _print(console, "Goals", "", GOAL_HEADS, goal_rows(figures.results))
    for line in failures(figures.results):
        console.print(f"[red]{escape(line)}[/]", soft_wrap=True)


def _print(console: Console, title: str, caption: str, heads: Iterable[str], rows: Iterable[Row]) -> None:
    table = Table(title=escape(title), caption=caption)
    for head in heads:
        table.add_column(head, overflow="fold")
    before = ""
    for row in rows:
        if before and row.group != before:
            table.add_section()
        style = {True: "green", False: "red", None: ""}[row.good]
        table.add_row("" if row.group == before else row.group, *map(escape, row.cells), style=style)
        before = row.group
    console.print(table)


def markdown(heads: Iterable[str], rows: Iterable[Row]) -> str:
    """Spell a Markdown table."""
    head = list(heads)
    lines = [f"| {' | '.join(head)} |", "|" + " --- |" * len(head)]
    lines += [f"| {' | '.join((row.group, *row.cells))} |" for row in rows]
    return "\n".join(lines)


def failures(results: Sequence[Result]) -> list[str]:
    """What could not be measured, or not to the end, and why."""
    return [
        f"{result.model}, {result.title}: {target} failed: {reason.splitlines()[0]}"
        for result in results
        for target, reason in result.failures.items()
    ]
