"""How a download is shown: a bar on a terminal, lines of JSON elsewhere."""

import json
import sys
from collections.abc import Mapping
from typing import Any, Self

import click
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from app.log import printable


class DownloadReport:
    """A context in which bytes are reported. Where it is not shown to a person, what is told is JSON, too."""

    def __init__(self, model: str, total: int) -> None:
        self._model = model
        self._total = total
        self._done = -1  # bytes that were last reported
        self._bar = _bar() if sys.stdout.isatty() else None
        self._task = self._bar.add_task(escape(printable(model)), total=total) if self._bar else None

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def note(self, done: int) -> None:
        """So many bytes are there."""
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=done)
        elif done != self._done:
            self._write("download_progress", {"done": done, "total": self._total})
        self._done = done

    def finish(self, facts: Mapping[str, Any], *lines: str) -> None:
        """It is over: print facts as JSON, or lines for people."""
        if self._bar is None:
            self._write("download_finished", facts)
        else:
            self._bar.stop()
            for line in lines:
                click.echo(line)

    def _write(self, event: str, facts: Mapping[str, Any]) -> None:
        click.echo(json.dumps({"event": event, "model": self._model, **facts}, ensure_ascii=False))


def _bar() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    return Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True)
