"""Installs the programs of the matrix, each in a folder of its own in a cache outside of the repository."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.agents.programs import Program

NODE = "node@22.23.3"  # from npm: what distributions have is too old for some programs
_DONE = "installed"  # a file in the folder of what is installed as a whole
_SECONDS = 900


class NotInstalled(Exception):
    """Why a program is not there."""


def cache() -> Path:
    """The folder of all programs: TILES_TEST_CACHE, else a folder in the user's cache."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get("TILES_TEST_CACHE") or base / "tiles-server-tests") / "agents"


def search_path() -> str:
    """The PATH that programs are started with: the Node.js that they need comes first. Raises NotInstalled."""
    node = _npm_folder(NODE)
    return f"{node / 'node_modules' / '.bin'}:{os.environ['PATH']}"


def is_installed(program: Program) -> bool:
    """Whether a program is in the cache, with what it needs."""
    node = program.source != "npm" or (_folder(NODE) / _DONE).exists()
    return node and (_folder(f"{program.package}@{program.version}") / _DONE).exists()


def executable(program: Program) -> Path:
    """Find a program, installed if it is not. Raises NotInstalled."""
    if program.source == "npm":
        folder = _npm_folder(f"{program.package}@{program.version}") / "node_modules" / ".bin"
    else:
        folder = _environment(f"{program.package}=={program.version}") / "bin"
    if not (path := folder / program.executable).exists():
        raise NotInstalled(f"{program.package} has no {program.executable}")
    return path


def _folder(package: str) -> Path:
    return cache() / package.replace("/", "-").lstrip("@")


def _npm_folder(package: str) -> Path:
    if shutil.which("npm") is None:
        raise NotInstalled("there is no npm")
    folder = _folder(package)
    if (folder / _DONE).exists():
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    environment = dict(os.environ)
    if package != NODE:  # what is installed may look at the version
        environment["PATH"] = search_path()
    quiet = ("--no-package-lock", "--no-audit", "--no-fund", "--loglevel=error")
    _run(["npm", "install", *quiet, "--prefix", str(folder), package], environment)
    (folder / _DONE).touch()
    return folder


def _environment(package: str) -> Path:
    folder = _folder(package.replace("==", "@"))
    if (folder / _DONE).exists():
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    _run([sys.executable, "-m", "venv", str(folder)])
    _run([str(folder / "bin" / "python"), "-m", "pip", "install", "-q", "--disable-pip-version-check", package])
    (folder / _DONE).touch()
    return folder


def _run(command: list[str], environment: dict[str, str] | None = None) -> None:
    try:
        subprocess.run(command, env=environment, check=True, timeout=_SECONDS, cwd=cache().parent, capture_output=True)
    except (subprocess.SubprocessError, OSError) as error:
        output = getattr(error, "stderr", b"") or b""
        last = output.decode(errors="replace").strip().splitlines()[-1:] or [str(error)]
        raise NotInstalled(f"{command[-1]} cannot be installed: {last[0]}") from None
