"""The source of the Web UI in a checkout of llama.cpp, and what npm makes of it. The checkout is only read."""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from app.services.ui import NoUi

PLACES = ("tools/ui", "tools/server/webui", "examples/server/webui_llamacpp")  # newest first
_OUTPUTS = ("dist", "build", "../public", "../public_llamacpp")
_NOT_SOURCE = shutil.ignore_patterns("node_modules", "dist", ".svelte-kit", ".git")
_TOLD_LINES = 15

Report = Callable[[str], None]


def is_source(folder: Path) -> bool:
    """Whether a folder holds the source of a UI."""
    return (folder / "package.json").is_file()


def find(folder: Path) -> Path | None:
    """Give the source of the UI in a checkout, or the folder itself where it is one."""
    return next((place for place in (folder, *(folder / name for name in PLACES)) if is_source(place)), None)


def build(source: Path, work: Path, report: Report) -> Path:
    """Build a copy of a source below a work folder with npm; takes minutes. Gives what was built. Raises NoUi."""
    npm = shutil.which("npm")
    if npm is None:
        raise NoUi("npm is needed to build the Web UI (Node.js 20 or newer); a built one can be installed without it")
    copy = work / source.resolve().parent.name / source.resolve().name  # older ones write beside themselves
    shutil.copytree(source, copy, ignore=_NOT_SOURCE, symlinks=True)
    report("Fetching the packages that build it (npm ci)")
    _run(copy, npm, "ci", "--no-audit", "--no-fund")
    report("Building it (npm run build); this takes some minutes")
    _run(copy, npm, "run", "build")
    for output in _OUTPUTS:
        if any((copy / output).glob("index.html*")):
            return (copy / output).resolve()
    raise NoUi("npm run build went through, but left no index.html where one is expected")


def _run(folder: Path, *command: str) -> None:
    quiet = {"PLAYWRIGHT_SKIP_BROWSER_DOWNLOAD": "1", "npm_config_update_notifier": "false", "NO_COLOR": "1"}
    environment = {name: value for name, value in os.environ.items() if name != "LLAMA_UI_OUT_DIR"} | quiet
    ended = subprocess.run(
        command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace"
    )
    if ended.returncode:
        last = "\n".join((ended.stdout + ended.stderr).strip().splitlines()[-_TOLD_LINES:])
        raise NoUi(f"npm {' '.join(command[1:])} failed with {ended.returncode}:\n{last}")
