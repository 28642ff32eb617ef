"""From a run's JSON to what README and docs show of it."""

import shutil
import textwrap
from pathlib import Path

from benchmarks import chart, figures, names, tables
from benchmarks.errors import BenchmarkError
from benchmarks.figures import Figures

ROOT = Path(__file__).parents[1]
FOLDER = Path("docs") / "benchmark"
WIDTH = 120  # of a line of prose
START, END = "<!-- figures of the benchmark -->", "<!-- end of figures -->"

# What README's table shows: model, workload, measure.
IN_README = frozenset(
    {
        (names.DEMO, "one-stream", "tokens_per_second"),
        (names.DEMO, "streams-32", "tokens_per_second"),
        (names.DEMO, "short", "requests_per_second"),
        (names.DEMO, "chat", "later_ttft"),
        (names.DEMO, "restart", "warm_ttft"),
        (names.LARGER, "streams-32", "tokens_per_second"),
    }
)


def render(path: Path, root: Path = ROOT) -> list[Path]:
    """Keep the figures under docs, draw their chart, write their tables. Returns what was written.

    Raises BenchmarkError for a file without figures, or a README without a place for them.
    """
    run = figures.read(path)
    readme = root / "README.md"
    text = _placed(readme, _readme(run))
    folder = root / FOLDER
    drawn = chart.write(run.results, folder)
    kept = folder / "figures.json"
    if path.resolve() != kept.resolve():
        shutil.copyfile(path, kept)
    (folder / "README.md").write_text(_whole(run), encoding="utf-8")
    readme.write_text(text, encoding="utf-8")
    return [*drawn, kept, folder / "README.md", readme]


def _placed(readme: Path, content: str) -> str:
    before, start, rest = readme.read_text(encoding="utf-8").partition(START)
    _, end, after = rest.partition(END)
    if not start or not end:
        raise BenchmarkError(f"{readme} has no place between {START} and {END}")
    return f"{before}{start}\n\n{content}\n{end}{after}"


def _picture(where: str) -> str:
    return (
        "<picture>\n"
        f'  <source media="(prefers-color-scheme: dark)" srcset="{where}chart-dark.svg">\n'
        f'  <img alt="Speed beside mlx_lm.server and mlx-lm in process" src="{where}chart-light.svg">\n'
        "</picture>"
    )


def _facts(run: Figures) -> str:
    machine = dict(run.machine)
    date = machine.pop("date", "")
    where = ", ".join(f"{name} {value}" for name, value in machine.items())
    return f"Measured by `nox -s bench` on {date} in {run.seconds / 60:.0f} minutes: {where}."


def _wrapped(text: str) -> str:
    return textwrap.fill(text, WIDTH, break_on_hyphens=False)


def _readme(run: Figures) -> str:
    parts = [
        _picture(f"{FOLDER.as_posix()}/"),
        _wrapped(f"{_facts(run)} {tables.legend(run.results)}"),
        tables.markdown(tables.figure_heads(run.results), tables.figure_rows(run.results, IN_README)),
        f"[All figures]({FOLDER.as_posix()}/README.md), and the goals.",
    ]
    return "\n\n".join(parts) + "\n"


def _whole(run: Figures) -> str:
    parts = [
        "# Benchmark",
        "Written by `python -m benchmarks render`, from [figures.json](figures.json). "
        "[How it is measured](../benchmarking.md).",
        _picture(""),
        _wrapped(_facts(run)),
        "## Goals",
        tables.markdown(tables.GOAL_HEADS, tables.goal_rows(run.results)),
        "## All figures",
        tables.legend(run.results),
        tables.markdown(tables.figure_heads(run.results), tables.figure_rows(run.results)),
    ]
    if failed := tables.failures(run.results):
        parts += ["## What failed", "\n".join(f"- {line}" for line in failed)]
    return "\n\n".join(parts) + "\n"
