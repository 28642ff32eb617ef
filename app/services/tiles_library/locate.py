"""Tiles' library folder, looked for in the order in which Tiles itself looks."""

import os
from collections.abc import Mapping
from pathlib import Path

from app.services.tiles import installation
from app.services.tiles_library import CannotSwap
from app.services.tiles_library.names import ORIGINAL, OUTGOING, SERVER

_DEBUG = Path(".tiles_dev/tiles")  # of a debug build, below the folder that it runs in


def locate(folder: Path | None, environ: Mapping[str, str] = os.environ) -> Path:
    """Check the given library folder, or find the one that Tiles would use. Raises CannotSwap."""
    if folder is not None:
        if reason := _reason_against(folder := folder.expanduser().absolute()):
            raise CannotSwap(f"{folder} is not the library folder of a Tiles: {reason}.")
        return folder
    for candidate in candidates(environ):
        if not _reason_against(candidate):
            return candidate
    looked_in = ", ".join(map(str, candidates(environ)))
    raise CannotSwap(f"There is no Tiles here: none of {looked_in} is its library folder. Name it with --folder.")


def candidates(environ: Mapping[str, str] = os.environ) -> list[Path]:
    """Give the folders in Tiles' order; the last is that of a debug build."""
    return list(dict.fromkeys(path.absolute() for path in (*installation.libraries(environ), _DEBUG)))


def _reason_against(folder: Path) -> str | None:
    """Say what a folder lacks to be one that Tiles takes for its library; an interrupted swap lacks nothing."""
    missing = [name for name in ("modelfiles", "pi") if not (folder / name).is_dir()]
    if not any((folder / name).is_dir() for name in (SERVER, ORIGINAL, OUTGOING)):
        missing.append(SERVER)
    return f"it has no folder {' and no folder '.join(missing)}" if missing else None
