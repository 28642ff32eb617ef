"""The built Web UI in a folder: which paths it answers, with what, and for how long that may be kept."""

import gzip
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from stat import S_ISREG

_NAME = re.compile(r"[^./\\\x00-\x1f][^/\\\x00-\x1f]*")  # no dot at the start: neither .. nor .git
_SMALL = 1024  # bytes that gzip gains nothing on

_TEXTS = {
    ".html": "text/html",
    ".js": "text/javascript",
    ".css": "text/css",
    ".txt": "text/plain",
    ".json": "application/json",
    ".webmanifest": "application/manifest+json",
    ".svg": "image/svg+xml",
}
_BINARIES = {
    ".png": "image/png",
    ".ico": "image/x-icon",
    ".jpg": "image/jpeg",
    ".webp": "image/webp",
    ".woff2": "font/woff2",
    ".wasm": "application/wasm",
}
_MEDIA_TYPES = _TEXTS | _BINARIES

_HASHED = re.compile(r"_app/immutable/.+|workbox-[^/]+\.js")  # another content has another name
_ENTRIES = re.compile(r".*\.html|sw\.js|manifest\.webmanifest|build\.json|_app/version\.json")


@dataclass(frozen=True, slots=True)
class UiFile:
    """A file of the UI and how it is sent."""

    path: Path
    media_type: str
    cache_control: str
    version: str  # another one after each change
    zips: bool

    def read(self, *, zipped: bool) -> bytes:
        """Give the content, for slow threads. Raises OSError where the file is gone."""
        return _zipped(self.path, self.version) if zipped and self.zips else self.path.read_bytes()


class UiFolder:
    """A folder that may hold a built UI, now or later. What stands under a reserved first name is not part of it."""

    def __init__(self, folder: Path, reserved: Iterable[str] = ()) -> None:
        self._folder = folder
        self._reserved = frozenset(reserved)

    def find(self, path: str) -> UiFile | None:
        """Give the file that answers a URL's path, None where there is none."""
        names = path.removeprefix("/").split("/") if path != "/" else ["index.html"]
        if names[0] in self._reserved or not all(map(_NAME.fullmatch, names)):
            return None
        try:
            return self._file(names)
        except (OSError, RuntimeError, ValueError):  # none there, a loop of links, no name for this file system
            return None

    def _file(self, names: list[str]) -> UiFile | None:
        root = self._folder.resolve()
        file = root.joinpath(*names).resolve(strict=True)
        facts = file.stat()
        if not S_ISREG(facts.st_mode) or not file.is_relative_to(root):
            return None
        return UiFile(
            path=file,
            media_type=_MEDIA_TYPES.get(file.suffix, "application/octet-stream"),
            cache_control=_cache_control("/".join(names)),
            version=f"{facts.st_size:x}-{facts.st_mtime_ns:x}",
            zips=file.suffix in _TEXTS and facts.st_size >= _SMALL,
        )


def is_built(folder: Path) -> bool:
    """Whether a folder holds a built UI."""
    return (folder / "index.html").is_file()


def _cache_control(name: str) -> str:
    if _HASHED.fullmatch(name):
        return "public, max-age=31536000, immutable"
    return "no-cache" if _ENTRIES.fullmatch(name) else "public, max-age=86400"


@lru_cache(maxsize=64)
def _zipped(path: Path, version: str) -> bytes:  # the version is part of the key
    return gzip.compress(path.read_bytes(), compresslevel=9, mtime=0)
