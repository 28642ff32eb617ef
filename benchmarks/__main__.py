"""python -m benchmarks."""

import asyncio
import signal
import sys
import tempfile
import time
from collections.abc import Coroutine
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import uvloop
from rich.console import Console

from benchmarks import figures, machine, names, suite, tables
from benchmarks.errors import BenchmarkError
from benchmarks.figures import Figures
from benchmarks.server import llama_server, peer_with_blas
from benchmarks.workload import FULL, QUICK
from benchmarks.workloads import WORKLOADS
from tests.real import gemma

RESULTS = Path(__file__).parent / "results"
CACHE = Path(tempfile.gettempdir()) / "tiles-server-benchmarks"


@click.group(invoke_without_command=True)
@click.option("--quick", is_flag=True, help="A smoke run: everything small, one round, the demo model.")
@click.option("--only", type=click.Choice(list(WORKLOADS)), multiple=True, help="Only this workload; may be repeated.")
@click.option("--model", "models", type=click.Choice(names.MODELS), multiple=True, help="Only this one.")
@click.option("--rounds", type=click.IntRange(1, 50), help="How often everything is measured. [default: 5]")
@click.option("--minutes", type=click.FloatRange(0.1), default=45.0, show_default=True, help="Begin nothing after.")
@click.option("--blas-peer/--no-blas-peer", default=True, help="Also measure mlx_lm.server with OpenBLAS preloaded.")
@click.option("--profile", is_flag=True, help="Also write where our server's CPU time goes, in the first round.")
@click.option("--cache", type=click.Path(path_type=Path), default=CACHE, show_default=True, help="Where models are.")
@click.option("--json", "--save", "json_path", type=click.Path(path_type=Path), help="Write the figures here.")
@click.option(
    "--resume", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Add the missing rounds of a file."
)
@click.pass_context
def main(
    context: click.Context,
    quick: bool,
    only: tuple[str, ...],
    models: tuple[str, ...],
    rounds: int | None,
    minutes: float,
    blas_peer: bool,
    profile: bool,
    cache: Path,
    json_path: Path | None,
    resume: Path | None,
) -> None:
    """Measure this server beside mlx_lm.server and mlx-lm in process."""
    if context.invoked_subcommand is not None:
        return
    optional = {names.PEER_WITH_BLAS: blas_peer and peer_with_blas(), names.LLAMA_SERVER: llama_server()}
    if reason := gemma.missing():
        click.echo(f"without {names.REAL}: {reason}", err=True)
    real = () if reason else (names.REAL,)
    moment = f"{datetime.now(UTC):%Y%m%d-%H%M%S}"
    plan = suite.Plan(
        cache=cache,
        only=only,
        models=models or ((names.DEMO,) if quick else (names.DEMO, names.LARGER, *real)),
        rounds=rounds or (1 if quick else 5),
        minutes=minutes,
        scale=QUICK if quick else FULL,
        without=frozenset(name for name, takes_part in optional.items() if not takes_part),
        profiles=RESULTS / f"{moment}-profile" if profile else None,
    )
    try:
        before = figures.read(resume) if resume else Figures({}, ())
    except BenchmarkError as error:
        raise click.ClickException(str(error)) from None
    jobs = list(plan.jobs(before.results))
    if not jobs:
        raise click.UsageError("no workload runs on that model")
    _measure(plan, jobs, json_path or resume or RESULTS / f"{moment}.json", before)


@main.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def render(file: Path) -> None:
    """Write the figures of a run into README and docs, with their chart."""
    from benchmarks import render  # matplotlib is not needed to measure

    try:
        for path in render.render(file):
            click.echo(path)
    except BenchmarkError as error:
        raise click.ClickException(str(error)) from None


def _measure(plan: suite.Plan, jobs: list[suite.Job], written: Path, before: Figures) -> None:
    began, where = time.monotonic(), machine.facts()
    console = Console() if sys.stdout.isatty() else Console(width=180)
    whole = _run(plan, jobs)
    results = [job.result for job in jobs]
    others = [result for result in before.results if not any(result is one for one in results)]
    measured = Figures(where, [*results, *others], before.seconds + time.monotonic() - began)
    written.parent.mkdir(parents=True, exist_ok=True)
    written.write_text(measured.to_json(), encoding="utf-8")
    tables.show(console, measured)
    console.print(f"{measured.seconds:.0f} s; figures in {written}", soft_wrap=True)
    if plan.profiles is not None:
        console.print(f"profiles in {plan.profiles}", soft_wrap=True)
    if not whole:
        sys.exit(143)
    if any(names.OURS in result.failures for result in measured.results):
        sys.exit(1)


def _run(plan: suite.Plan, jobs: list[suite.Job]) -> bool:
    """Run on a fast event loop. Returns False where a signal ended it before its time."""
    say = Console(stderr=True, highlight=False, soft_wrap=True, markup=False).print
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as scheduler:
            scheduler.run(_ended_cleanly(suite.run(plan, jobs, lambda what: say(f"{datetime.now():%H:%M:%S} {what}"))))
    except (asyncio.CancelledError, KeyboardInterrupt):
        return False
    return True


async def _ended_cleanly(work: Coroutine[Any, Any, None]) -> None:
    """Cancel on SIGTERM as on Ctrl-C, so that no server is left behind."""
    task = asyncio.ensure_future(work)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    await task


if __name__ == "__main__":
    main()
