"""The source of the Web UI in a checkout of llama.cpp, and what npm makes of it. The checkout is only read."""

import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from app.services.ui import NoUi

PLACES = ("tools/ui", "tools/server/webui", "examples/server/webui_llamacpp")  # newest first
_OUTPUTS = ("dist", "build", "../public", "../public_llamacpp")
_NOT_SOURCE = shutil.ignore_patterns("node_modules", "dist", ".svelte-kit", ".git")
_TOLD_LINES = 15
_REPORT_SECONDS = 30  # npm says nothing for minutes
_BUILD = re.compile(r"(?:^|-)b([0-9]{4,})$")  # as llama.cpp names its tags and the folders of its archives

Report = Callable[[str], None]


def is_source(folder: Path) -> bool:
    """Whether a folder holds the source of a UI."""
    return (folder / "package.json").is_file()


def find(folder: Path) -> Path | None:
    """Give the source of the UI in a checkout, or the folder itself where it is one."""
    return next(
        (candidate for candidate in (folder, *(folder / name for name in PLACES)) if is_source(candidate)), None
    )


def build(source: Path, work: Path, report: Report) -> Path:
    """Build a copy of a source below a work folder with npm; takes minutes. Gives what was built. Raises NoUi."""
    npm = shutil.which("npm")
    if npm is None:
        raise NoUi("npm is needed to build the Web UI (Node.js 20 or newer); a built one can be installed without it")
    copy = work / source.resolve().parent.name / source.resolve().name  # older ones write beside themselves
    shutil.copytree(source, copy, ignore=_NOT_SOURCE, symlinks=True)
    report("Fetching the packages that build it (npm ci)")
    _run(copy, report, npm, "ci", "--no-audit", "--no-fund")
    report("Building it (npm run build); this takes some minutes")
    _run(copy, report, npm, "run", "build", build=_build_number(source.resolve()))
    for output in _OUTPUTS:
        if any((copy / output).glob("index.html*")):
            return (copy / output).resolve()
    raise NoUi("npm run build went through, but left no index.html where one is expected")


def _build_number(source: Path) -> str | None:
    """Give the number of llama.cpp's build that a source belongs to; the page shows it. None where nothing tells."""
    if match := next((match for folder in source.parents if (match := _BUILD.search(folder.name))), None):
        return match[1]
    git = shutil.which("git")
    if git is None:
        return None
    command = [git, "-C", str(source), "describe", "--tags", "--abbrev=0", "--match", "b[0-9]*"]
    tag = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace").stdout
    return match[1] if (match := _BUILD.search(tag.strip())) else None


def _run(folder: Path, report: Report, *command: str, build: str | None = None) -> None:
    quiet = {"PLAYWRIGHT_SKIP_BROWSER_DOWNLOAD": "1", "npm_config_update_notifier": "false", "NO_COLOR": "1"}
    environment = {name: value for name, value in os.environ.items() if name != "LLAMA_UI_OUT_DIR"} | quiet
    if build is not None:
        environment.setdefault("LLAMA_BUILD_NUMBER", build)
    with subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as process:
        output = _output(process, report, f"npm {command[1]}")
    if process.returncode:
        last = "\n".join(output.strip().splitlines()[-_TOLD_LINES:])
        raise NoUi(f"npm {' '.join(command[1:])} failed with {process.returncode}:\n{last}")


def _output(process: subprocess.Popen[str], report: Report, name: str) -> str:
    """Wait for a command and give all it wrote; every half minute say that it is still at work."""
    began = time.monotonic()
    while True:
        try:
            return process.communicate(timeout=_REPORT_SECONDS)[0]
        except subprocess.TimeoutExpired:
            report(f"{name}: still at work after {time.monotonic() - began:.0f} s")
        except BaseException:
            process.kill()
            raise
