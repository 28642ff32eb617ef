"""Where Tiles is installed, found as Tiles' own CLI finds it."""

import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

SYSTEM_LIBRARY = Path("/usr/local/share/tiles")
_PARTS = ("modelfiles", "server", "pi")  # of a library


def is_library(folder: Path) -> bool:
    """Whether a folder is the one that Tiles runs from."""
    return all((folder / name).is_dir() for name in _PARTS)


def libraries(environ: Mapping[str, str] = os.environ) -> Iterator[Path]:
    """Give the folders that Tiles looks for its library in: beside its program, for everybody, for this user."""
    program = shutil.which("tiles", path=environ.get("PATH", ""))
    if program is not None:
        # Linux tells a program where it lies behind all links, macOS under which name it was started.
        yield from dict.fromkeys((Path(program).parent, Path(program).resolve().parent))
    yield SYSTEM_LIBRARY
    yield data_folder(environ)


def library(environ: Mapping[str, str] = os.environ) -> Path | None:
    """Give the folder that Tiles runs from, None where it is not installed."""
    return next((folder for folder in libraries(environ) if is_library(folder)), None)


def data_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """Where Tiles keeps this user's data and logs."""
    return Path(environ.get("XDG_DATA_HOME") or _home(environ) / ".local/share") / "tiles"


def config_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """Where Tiles keeps this user's configuration."""
    return Path(environ.get("XDG_CONFIG_HOME") or _home(environ) / ".config") / "tiles"


def is_installed(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether Tiles is on this machine, or was run by this user."""
    return data_folder(environ).is_dir() or library(environ) is not None


def _home(environ: Mapping[str, str]) -> Path:
    return Path(environ["HOME"]) if environ.get("HOME") else Path.home()
