"""A server whose engine hangs while a file is there: `python hanging.py FILE serve …`."""

import sys
import threading
from pathlib import Path
from typing import Any

from app.commands.cli import main
from app.services.engine.scheduler.fair_share import FairShare


def hang_while(there: Path) -> None:
    """Let a step of the engine wait for ever, if the file is there; the file is taken away."""
    next_scheduler = FairShare.next

    def hang(*, alone: bool) -> None:
        threading.Event().wait()

    def next_hanging(self: FairShare, schedulers: Any) -> Any:
        scheduler: Any = next_scheduler(self, schedulers)
        if scheduler is not None and there.exists():
            there.unlink()
            scheduler.step = hang
        return scheduler

    FairShare.next = next_hanging  # type: ignore[method-assign]


if __name__ == "__main__":
    hang_while(Path(sys.argv[1]))
    main(sys.argv[2:])
