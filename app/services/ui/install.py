"""A built Web UI into its place: the old one answers until the new one does."""

import fcntl
import gzip
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from app.services.atomic import private_file, private_folder
from app.services.ui import NoUi
from app.services.ui.folder import is_built

_PREFIX = ".webui-"


@contextmanager
def workshop(target: Path) -> Iterator[Path]:
    """Give a folder beside a target, for one who installs there; raises NoUi for a second one. What earlier ones that
    were killed left behind goes."""
    private_folder(target.parent)
    with private_file(target.parent / ".webui.lock") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise NoUi(f"Another installation into {target} is under way") from None
        _clear(target)
        work = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=target.parent))
        try:
            yield work
        finally:
            shutil.rmtree(work, ignore_errors=True)


def put(built: Path, target: Path) -> None:
    """Copy a built UI and let the target point to the copy, in one step. Raises NoUi."""
    if target.exists() and not target.is_symlink() and any(target.iterdir()) and not is_built(target):
        raise NoUi(f"{target} is no Web UI; move it away first")
    version = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=target.parent))
    try:
        shutil.copytree(built, version, symlinks=True, dirs_exist_ok=True)
        _unzip_page(version)
        _close_to_others(version)
        if not is_built(version):
            raise NoUi(f"{built} is no built Web UI: it has no index.html")
        _point(target, version)
    except BaseException:
        shutil.rmtree(version, ignore_errors=True)
        raise
    _clear(target)


def _close_to_others(folder: Path) -> None:
    for path in (folder, *folder.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o700 if path.is_dir() else 0o600)


def _unzip_page(folder: Path) -> None:
    """Older builds leave one page, zipped."""
    zipped = folder / "index.html.gz"
    if zipped.is_file() and not is_built(folder):
        (folder / "index.html").write_bytes(gzip.decompress(zipped.read_bytes()))
        zipped.unlink()


def _point(target: Path, version: Path) -> None:
    link = version.with_name(f"{version.name}-link")
    link.symlink_to(version.name)
    if target.is_dir() and not target.is_symlink():  # put there by hand
        target.rename(version.with_name(f"{version.name}-old"))
    link.replace(target)


def _clear(target: Path) -> None:
    """Remove every folder of ours but the one that the target points to."""
    current = target.resolve()
    for folder in target.parent.glob(f"{_PREFIX}*"):
        if folder.resolve() == current:
            continue
        if folder.is_symlink():
            folder.unlink()
        else:
            shutil.rmtree(folder, ignore_errors=True)
