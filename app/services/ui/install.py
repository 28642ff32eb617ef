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
def workshop(place: Path) -> Iterator[Path]:
    """Give a folder beside a place, for one who installs there; raises NoUi for a second one. What earlier ones that
    were killed left behind goes."""
    private_folder(place.parent)
    with private_file(place.parent / ".webui.lock") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise NoUi(f"Another installation into {place} is under way") from None
        _clear(place)
        work = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=place.parent))
        try:
            yield work
        finally:
            shutil.rmtree(work, ignore_errors=True)


def put(built: Path, place: Path) -> None:
    """Copy a built UI and let the place point to the copy, in one step. Raises NoUi."""
    if place.exists() and not place.is_symlink() and any(place.iterdir()) and not is_built(place):
        raise NoUi(f"{place} is no Web UI; move it away first")
    version = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=place.parent))
    try:
        shutil.copytree(built, version, symlinks=True, dirs_exist_ok=True)
        _unzip_page(version)
        _close_to_others(version)
        if not is_built(version):
            raise NoUi(f"{built} is no built Web UI: it has no index.html")
        _point(place, version)
    except BaseException:
        shutil.rmtree(version, ignore_errors=True)
        raise
    _clear(place)


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


def _point(place: Path, version: Path) -> None:
    link = version.with_name(f"{version.name}-link")
    link.symlink_to(version.name)
    if place.is_dir() and not place.is_symlink():  # put there by hand
        place.rename(version.with_name(f"{version.name}-old"))
    link.replace(place)


def _clear(place: Path) -> None:
    """Remove every folder of ours but the one that the place points to."""
    current = place.resolve()
    for folder in place.parent.glob(f"{_PREFIX}*"):
        if folder.resolve() == current:
            continue
        if folder.is_symlink():
            folder.unlink()
        else:
            shutil.rmtree(folder, ignore_errors=True)
