"""A server whose engine hangs while a file is there: `python hanging.py FILE serve …`."""

import sys
import threading
from pathlib import Path
from typing import Any

from app.commands.cli import main
from app.services.engine import engine


def hang_while(there: Path) -> None:
    """Let each step of the engine wait for ever once, if the file is there; the file is taken away."""
    step = engine.MLXEngine._step

    def hanging(self: Any, runner: Any) -> None:
        if runner.busy and there.exists():
            there.unlink()
            runner.step = threading.Event().wait
        step(self, runner)

    engine.MLXEngine._step = hanging  # type: ignore[method-assign]


if __name__ == "__main__":
    hang_while(Path(sys.argv[1]))
    main(sys.argv[2:])
