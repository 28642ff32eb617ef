"""Files that are replaced whole or not at all, readable by their owner alone."""

import os
import tempfile
from pathlib import Path


def regular(path: Path) -> Path:
    """Refuse devices and pipes: /dev/null must not be replaced, and a pipe would block. Raises OSError."""
    if path.exists() and not path.is_file():
        raise OSError(f"{path} is no regular file")
    return path


def write(path: Path, content: str) -> None:
    """Replace a file, or make it and its folder. A link stays a link: what it points to is replaced. Raises OSError."""
    target = Path(os.path.realpath(path))
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    _replace(regular(target), content)


def _replace(target: Path, content: str) -> None:
    # The same folder, so that the rename cannot cross file systems.
    handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(content)
            file.flush()
            os.fsync(handle)
        Path(name).replace(target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
