"""Check every architecture and every chat template against mlx-lm: `nox -s families`, or `python -m tests.families`.

Each family has processes of its own, so that a crash is that family's and its memory is given back.
"""

import argparse
import datetime
import json
import os
import shutil
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from importlib.metadata import version
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from tests.families import checks, processes, templates
from tests.families.exceptions import EXCUSES

RESULTS = Path(__file__).with_name("results.json")
WRONG = "WRONG"
Job = tuple[str, Callable[..., dict[str, str]], tuple[Any, ...]]
Results = dict[str, dict[str, str]]  # for each family, what came of each check


def main() -> int:
    options = _options()
    processes.imports()
    names = _part(_names(options), options.part)
    print(f"{len(names)} families; part {options.part}: nox -s families -- --part {options.part}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        jobs = (_job(name, Path(folder) / name) for name in names)
        results: Results = {}
        for name, outcome in _run(jobs, options.jobs):
            if not options.write:
                outcome = with_new_fallback(outcome, _recorded().get(name, {}))
            results[name] = outcome
            print(_line(name, outcome), flush=True)
            if options.write:  # each at once: a whole run takes long
                _write({name: outcome})
    faults = [name for name in results if _faults(name, results[name])]
    print(
        f"{len(results) - len(faults)} of {len(results)} as they should be"
        + "".join(f"\n  not: {name}" for name in faults)
    )
    return bool(faults)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="nox -s families --", description=__doc__)
    parser.add_argument("names", nargs="*", help="families to check, all by default")
    parser.add_argument("--part", default="1/1", help="which part of them: 2/3, or today/3 for one that changes daily")
    parser.add_argument("--jobs", type=int, default=2, help="how many at the same time")
    parser.add_argument("--write", action="store_true", help=f"keep what was seen in {RESULTS.name}")
    options = parser.parse_args()
    if options.part.startswith("today/"):
        count = int(options.part.partition("/")[2])
        options.part = f"{datetime.date.today().toordinal() % count + 1}/{count}"
    return options


def _names(options: argparse.Namespace) -> list[str]:
    from tests.engine.architectures import CONFIGS

    known = [*sorted(CONFIGS), *sorted(_templates())]
    if unknown := set(options.names) - set(known):
        sys.exit(f"no such family: {', '.join(sorted(unknown))}")
    return [name for name in known if not options.names or name in options.names]


def _templates() -> dict[str, Path]:
    """The chat templates of real models, by file name; none where they could not be had."""
    folder = os.environ.get("TILES_TEST_TEMPLATES")
    return {path.name: path for path in Path(folder).rglob("*.jinja")} if folder else {}


def _job(name: str, home: Path) -> Job:
    template = _templates().get(name)
    return (name, templates.check, (template, home)) if template else (name, checks.check, (name, home))


def _part(names: list[str], part: str) -> list[str]:
    number, count = map(int, part.split("/"))
    return names[number - 1 :: count]


def _run(jobs: Iterator[Job], count: int) -> Iterator[tuple[str, dict[str, str]]]:
    """Run jobs in processes of their own, so many at a time. Gives the name of each that has ended, and its outcome."""
    running: dict[Any, tuple[str, Any, Path]] = {}
    jobs = iter(jobs)
    while True:
        while len(running) < count and (job := next(jobs, None)):
            name, function, arguments = job
            home = arguments[-1]
            home.mkdir()
            connection, theirs = processes.CONTEXT.Pipe(duplex=False)
            process = processes.start(_report, theirs, function, arguments, log=home / "job.log")
            theirs.close()
            running[process.sentinel] = name, (process, connection), home
        if not running:
            return
        for sentinel in wait(list(running)):
            name, (process, connection), home = running.pop(sentinel)
            yield (
                name,
                connection.recv() if connection.poll() else {"load": f"{WRONG} crashed: {processes.ended(process)}"},
            )
            connection.close()
            shutil.rmtree(home, ignore_errors=True)


def _report(connection: Any, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    try:
        connection.send(function(*arguments))
    except BaseException as error:
        traceback.print_exc()
        connection.send({"load": f"{WRONG} {''.join(traceback.format_exception_only(error)).strip()}"})


def with_new_fallback(outcome: dict[str, str], before: dict[str, str]) -> dict[str, str]:
    """Mark an outcome in which rows are no longer computed together as they were before: a fallback is never silent."""
    now, then = (one.get("batch", "") for one in (outcome, before))
    if not now or not then or now.partition(":")[0] == then.partition(":")[0]:
        return outcome
    return outcome | {"batch": f"{WRONG} {now}, where it was: {then}"}


def _recorded() -> Results:
    """What was seen before, of each family."""
    recorded: Results = json.loads(RESULTS.read_text())["families"] if RESULTS.exists() else {}
    return recorded


def _faults(name: str, outcome: dict[str, str]) -> list[str]:
    """What of an outcome is not as it should be, an excuse that nothing needs included."""
    excuse = EXCUSES.get(name)
    wrong = {check for check, text in outcome.items() if text.startswith(WRONG)}
    excused = wrong & excuse.checks if excuse else set()
    unneeded = [f"needs its exception no longer: {excuse.reason}"] if excuse and not excused else []
    return [f"{check}: {outcome[check]}" for check in sorted(wrong - excused)] + unneeded


def _line(name: str, outcome: dict[str, str]) -> str:
    faults = _faults(name, outcome)
    if faults:
        return "\n    ".join([f"{name}: NOT RIGHT", *faults])
    return f"{name}: {EXCUSES[name].reason}" if name in EXCUSES else f"{name}: ok, {outcome.get('batch', '')}"


def _write(results: Results) -> None:
    before = _recorded()
    results = {
        name: outcome | ({"exception": EXCUSES[name].reason} if name in EXCUSES else {})
        for name, outcome in results.items()
    }
    after = dict(sorted((before | results).items(), key=lambda item: (item[0].endswith(".jinja"), item[0].lower())))
    seen = {"date": f"{datetime.date.today()}", "mlx": version("mlx"), "mlx-lm": version("mlx-lm")}
    RESULTS.write_text(json.dumps({"seen": seen, "families": after}, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
