"""How another process starts this program."""

import os
import sys
from pathlib import Path


def program() -> list[str]:
    """Give the words that start it from any folder, without arguments: the script beside Python, if it is installed."""
    script = Path(sys.executable).with_name("tiles-server")
    return [str(script)] if os.access(script, os.X_OK) else [sys.executable, "-m", "app"]
