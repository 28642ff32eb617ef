"""Drive real coding agents through a session with the server: `nox -s agents`, or `python -m tests.agents`."""

import argparse
import datetime
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.agents import model
from tests.agents.installation import NotInstalled, executable, is_installed, search_path
from tests.agents.outcome import lowest, outcome
from tests.agents.programs import PROGRAMS
from tests.agents.session import Session

RESULTS = Path(__file__).with_name("results.json")


def main() -> int:
    options = _options()
    with tempfile.TemporaryDirectory(prefix="tiles-agents-") as name:
        folder = Path(options.keep or name).absolute()
        ready = model.build_seeing(folder / "model") if options.sees else model.build(folder / "model")
        results = {}
        for program in (PROGRAMS[name] for name in options.names):
            if options.installed and not is_installed(program):
                print(f"{program.name} is skipped: nox -s agents, by hand, installs it", flush=True)
                continue
            try:
                home, sees = folder / program.executable, options.sees
                session = Session(program, executable(program), home, search_path(), sees=sees)
            except NotInstalled as reason:
                print(f"{program.name} is skipped: {reason}", flush=True)
                continue
            session.run(ready)
            if options.sees and program.with_little:
                shown = Session(program, session.executable, home / "shown", session.path)
                shown.show()
                session.faults += shown.faults
            results[program.executable] = outcome(session)
            print(line(results[program.executable]), flush=True)
            if options.write:
                write(results)
    return any(result["faults"] or result["refusals"] for result in results.values())


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="nox -s agents --", description=__doc__)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(PROGRAMS)}; all by default")
    parser.add_argument("--today", type=int, help="take so many of them, others each day")
    parser.add_argument("--installed", action="store_true", help="skip those that are not in the cache")
    parser.add_argument("--sees", action="store_true", help="with a model that sees, which has to get the picture")
    parser.add_argument("--keep", help="a new folder for homes, logs and requests, which stay")
    parser.add_argument("--write", action="store_true", help=f"keep what was seen in {RESULTS.name}")
    options = parser.parse_args()
    if unknown := set(options.names) - set(PROGRAMS):
        parser.error(f"no such program: {', '.join(sorted(unknown))}")
    if options.sees and options.write:
        parser.error("the tables are of a model that reads text only")
    options.names = options.names or list(PROGRAMS)
    if options.today:
        first = datetime.date.today().toordinal() * options.today
        options.names = [options.names[(first + index) % len(options.names)] for index in range(options.today)]
    return options


def line(result: dict[str, Any]) -> str:
    """What a run prints of a program."""
    shares = ", ".join(f"{turn} {lowest(values)}" for turn, values in result["shares"].items())
    head = f"{result['program']} {result['version']}: {result['requests']} requests of up to {result['longest_prompt']}"
    notes = [f"  {kind}: {note}" for kind in ("refusals", "faults", "outside") for note in result[kind]]
    return "\n".join([f"{head} tokens, {result['seconds']} s a turn; cached: {shares}", *notes])


def write(results: dict[str, Any]) -> None:
    """Keep the results beside those that are there."""
    seen = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    seen |= results
    RESULTS.write_text(json.dumps({name: seen[name] for name in PROGRAMS if name in seen}, indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(main())
