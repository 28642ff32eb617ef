"""Where our server's CPU time goes: py-spy where it is installed, else cProfile on the engine's thread."""

import asyncio
import shutil
import signal
import sys
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from benchmarks import names
from benchmarks.server import Recipe

_RATE = 200  # samples a second
_TOLD = 12  # functions a thread
_WAITING = {"Condition.wait (threading.py", "wait (threading.py", "_worker (concurrent/futures/thread.py"}
_SECONDS = 60.0  # that py-spy may take to write


def spy() -> str | None:
    """The py-spy of this environment, if there is one."""
    return shutil.which("py-spy", path=str(Path(sys.executable).parent)) or shutil.which("py-spy")


def recipe(folder: Path) -> Recipe:
    """Our server, with cProfile on its engine thread; when it ends it writes `engine.txt` there."""

    def command(model: Path, port: int) -> list[str]:
        serve = ["serve", "--model", str(model), "--port", str(port), "--log-format", "json"]
        return [sys.executable, "-m", "benchmarks.profiled", str(folder / f"{model.name}-engine.txt"), *serve]

    return Recipe(names.OURS, command)


@asynccontextmanager
async def profiled(process: Any, path: Path) -> AsyncIterator[None]:
    """Write the stacks of a process to `path`.stacks, which speedscope.app shows, and a summary to `path`.txt."""
    program = spy()
    if program is None:
        yield  # it profiles itself
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    stacks = path.with_suffix(".stacks")
    arguments = ["record", "--pid", str(process.pid), "--threads", "--rate", str(_RATE), "--format", "raw"]
    with path.with_suffix(".log").open("wb") as log:
        watcher = await asyncio.create_subprocess_exec(
            program, *arguments, "--output", str(stacks), stdout=log, stderr=log
        )
    try:
        yield
    finally:
        if watcher.returncode is None:
            watcher.send_signal(signal.SIGINT)
        await asyncio.wait_for(watcher.wait(), _SECONDS)
    if stacks.exists():
        path.with_suffix(".txt").write_text("\n".join(summary(stacks.read_text().splitlines())) + "\n")


def summary(stacks: Iterable[str]) -> Iterator[str]:
    """Say of each thread how much it ran, and in which functions: alone, and with what they call."""
    alone: dict[str, Counter[str]] = defaultdict(Counter)
    together: dict[str, Counter[str]] = defaultdict(Counter)
    for line in stacks:
        frames, _, samples = line.rpartition(" ")
        count = int(samples)
        thread, *calls = frames.split(";")
        functions = [call.rsplit(":", 1)[0] for call in calls]
        if functions and functions[-1] not in _WAITING:
            alone[thread][functions[-1]] += count
            together[thread].update(dict.fromkeys(functions, count))
    for thread, counts in sorted(alone.items(), key=lambda item: -item[1].total()):
        yield f"{thread}: {counts.total() / _RATE:.2f} s"
        for title, counter in (("alone", counts), ("with what it calls", together[thread])):
            yield f"  {title}"
            for function, hits in counter.most_common(_TOLD):
                yield f"  {100 * hits / counts.total():5.1f} %  {function}"
