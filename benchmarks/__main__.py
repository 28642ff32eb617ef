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

from benchmarks import lifecycle, machine, report, suite
from benchmarks.errors import BenchmarkError
from benchmarks.measure import Result
from benchmarks.workloads import WORKLOADS

NAMES = [*(workload.name for workload in WORKLOADS), lifecycle.NAME]
RESULTS = Path(__file__).parent / "results"
CACHE = Path(tempfile.gettempdir()) / "tiles-server-benchmarks"


@click.command()
@click.option("--quick", is_flag=True, help="A smoke run: two repetitions, the tiny model, 3 s of idling.")
@click.option("--only", type=click.Choice(NAMES), multiple=True, help="Only this workload; may be given again.")
@click.option("--model", "models", type=click.Choice(["tiny", "25M"]), multiple=True, help="Only this model.")
@click.option("--repeat", type=click.IntRange(1, 50), help="Repetitions. [default: 5]")
@click.option("--blas-peer/--no-blas-peer", default=True, help="Also measure mlx_lm.server with OpenBLAS preloaded.")
@click.option("--cache", type=click.Path(path_type=Path), default=CACHE, show_default=True, help="Where models are.")
@click.option("--json", "--save", "json_path", type=click.Path(path_type=Path), help="Write the figures here.")
@click.option("--markdown", "markdown_path", type=click.Path(path_type=Path), help="Write the table here.")
def main(
    quick: bool,
    only: tuple[str, ...],
    models: tuple[str, ...],
    repeat: int | None,
    blas_peer: bool,
    cache: Path,
    json_path: Path | None,
    markdown_path: Path | None,
) -> None:
    """Measure this server beside mlx_lm.server and mlx-lm in process."""
    console, begun, where = Console(), time.monotonic(), machine.facts()
    plan = suite.Plan(
        cache=cache,
        names=only,
        repeat=repeat or (2 if quick else 5),
        idle_seconds=3.0 if quick else 30.0,
        models=models or (("tiny",) if quick else ("tiny", "25M")),
        peer_with_blas=blas_peer,
    )
    results = _measured(plan)
    if not results:
        raise click.UsageError("no workload runs on that model")
    report.show(console, where, results)
    written = json_path or RESULTS / f"{datetime.now(UTC):%Y%m%d-%H%M%S}.json"
    _write(written, report.as_json(where, results))
    if markdown_path is not None:
        _write(markdown_path, report.markdown(where, results))
    console.print(f"{time.monotonic() - begun:.0f} s; figures in {written}", soft_wrap=True)


def _measured(plan: suite.Plan) -> list[Result]:
    """Run the plan on a fast event loop. A failure is one clear message and exit code 1."""
    say = Console(stderr=True).print
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(_ended_cleanly(suite.run(plan, lambda what: say(f"… {what}"))))
    except* asyncio.CancelledError:
        sys.exit(143)
    except* BenchmarkError as group:
        for error in _leaves(group):
            click.echo(f"benchmarks: {error}", err=True)
        sys.exit(1)


async def _ended_cleanly(work: Coroutine[Any, Any, list[Result]]) -> list[Result]:
    """Cancel on SIGTERM as on Ctrl-C, so that no server is left behind."""
    task = asyncio.ensure_future(work)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await task


def _leaves(group: BaseExceptionGroup[BenchmarkError]) -> list[BaseException]:
    leaves: list[BaseException] = []
    for error in group.exceptions:
        leaves += _leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return leaves


def _write(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")


if __name__ == "__main__":
    main()
