"""Everything a run has measured, and the JSON it is kept in."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.errors import BenchmarkError
from benchmarks.goals import Verdict, verdicts
from benchmarks.measure import Result, Series
from benchmarks.workloads import WORKLOADS

_VERSION = 1


@dataclass(frozen=True)
class Figures:
    """The results of a run, and where and how it took place."""

    machine: dict[str, str]
    results: Sequence[Result]
    seconds: float = 0.0

    def to_json(self) -> str:
        """Spell each round's values, and for readers the medians and the goals."""
        content: dict[str, Any] = {
            "version": _VERSION,
            "machine": self.machine,
            "seconds": round(self.seconds),
            "goals": [_goal(verdict) for verdict in verdicts(self.results)],
            "results": [_result(result) for result in self.results],
        }
        return json.dumps(content, indent=1) + "\n"


def read(path: Path) -> Figures:
    """Read what `to_json` has spelled. Raises BenchmarkError for anything else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        results = [_read(entry) for entry in content["results"]]
        version, machine, seconds = content["version"], content["machine"], content["seconds"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BenchmarkError(f"{path} holds no figures: {error!r}") from error
    unknown = {result.workload for result in results} - WORKLOADS.keys()
    if version != _VERSION or unknown:
        raise BenchmarkError(f"{path} is of another version of this benchmark: {version}, {sorted(unknown)}")
    return Figures(machine, results, seconds)


def _goal(verdict: Verdict) -> dict[str, Any]:
    series = verdict.series
    return {
        "title": verdict.goal.title,
        "model": verdict.model,
        "bound": verdict.goal.told,
        "median": series and series.median,
        "least": series and series.low,
        "most": series and series.high,
        "reached": verdict.reached,
    }


def _result(result: Result) -> dict[str, Any]:
    medians = {
        target: {name: series.median for name, series in measured.items()} for target, measured in result.series.items()
    }
    return asdict(result) | {"medians": medians}


def _read(entry: dict[str, Any]) -> Result:
    series = {
        target: {name: Series(list(kept["values"])) for name, kept in measured.items()}
        for target, measured in entry["series"].items()
    }
    return Result(entry["workload"], entry["title"], entry["model"], series, entry["failures"])
