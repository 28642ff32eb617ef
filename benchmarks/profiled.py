"""Run this server with cProfile on its engine thread: python -m benchmarks.profiled FILE serve …"""

import cProfile
import io
import pstats
import sys
import threading
from pathlib import Path

from app.commands.cli import main

_TOLD = 40  # functions


def _profile_engine(path: Path) -> None:
    run = threading.Thread.run

    def profiled(self: threading.Thread) -> None:
        if self.name != "engine":
            return run(self)
        profile = cProfile.Profile()
        try:
            profile.runcall(run, self)
        finally:
            _write(profile, path)

    threading.Thread.run = profiled  # type: ignore[method-assign]


def _write(profile: cProfile.Profile, path: Path) -> None:
    told = io.StringIO()
    pstats.Stats(profile, stream=told).sort_stats("tottime").print_stats(_TOLD)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(told.getvalue())


if __name__ == "__main__":
    _profile_engine(Path(sys.argv.pop(1)))
    main()
