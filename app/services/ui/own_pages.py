"""The pages that come with the server: `/` without a Web UI, and the dress of `/schema`."""

import hashlib
from functools import cache
from pathlib import Path

from app.services.ui.folder import UiFile

_FOLDER = Path(__file__).parents[2] / "pages"
_MEDIA_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


@cache
def files() -> dict[str, UiFile]:
    """Give all of them by name. Browsers revalidate each, by its content."""
    return {path.name: _file(path) for path in _FOLDER.iterdir() if path.suffix in _MEDIA_TYPES}


def _file(path: Path) -> UiFile:
    version = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    return UiFile(path, _MEDIA_TYPES[path.suffix], "no-cache", version, zips=True)
