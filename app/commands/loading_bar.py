"""A progress bar for the terminal while a model loads."""

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn

from app.log import printable


class LoadingBar:
    """Appears with the first progress of a load and disappears with the last."""

    def __init__(self) -> None:
        self._bar: Progress | None = None
        self._task = TaskID(0)

    def __call__(self, model: str, progress: float) -> None:
        """Show the progress of a load, 0 to 1; 1 also when it has failed."""
        if self._bar is None and progress >= 1:
            return
        if self._bar is None:
            columns = (TextColumn("Loading {task.description}"), BarColumn(), TaskProgressColumn())
            self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
            self._task = self._bar.add_task(escape(printable(model)), total=1.0)
            self._bar.start()
        self._bar.update(self._task, completed=progress)
        if progress >= 1:
            self._bar.stop()
            self._bar = None
