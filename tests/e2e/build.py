"""The Web UI that the tests drive: built once from a release of llama-cpp-python, which carries llama.cpp's source."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

RELEASE = "0.3.36"
PACKAGE = "llama-cpp-python"


def cache() -> Path:
    """Give the folder that keeps what takes minutes to make."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    return base / "tiles-server" / f"llama-ui-{RELEASE}"


def built_ui() -> Path:
    """Give a built UI: the one that TILES_E2E_WEBUI names, else the one in the cache, which takes minutes to fill."""
    if given := os.environ.get("TILES_E2E_WEBUI"):
        return Path(given)
    if not (cache() / "webui" / "index.html").is_file():
        need_npm()
        install = [sys.executable, "-m", "app", "webui", "install", str(release())]
        subprocess.run(install, check=True, env=os.environ | {"TILES_DATA_DIR": str(cache())})
    return cache() / "webui"


def release() -> Path:
    """Give the source release that carries the UI's source."""
    kept = cache() / f"{PACKAGE}.tar.gz"
    if not kept.is_file():
        cache().mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache()) as folder:
            exactly = (f"{PACKAGE}=={RELEASE}", "--no-binary", PACKAGE, "--no-deps")
            subprocess.run([sys.executable, "-m", "pip", "download", "-q", *exactly, "-d", folder], check=True)
            next(Path(folder).iterdir()).rename(kept)
    return kept


def need_npm() -> None:
    node = shutil.which("node") if shutil.which("npm") else None
    told = subprocess.run([node, "--version"], capture_output=True, text=True).stdout if node else "v0.0"
    if tuple(map(int, told.strip().lstrip("v").split(".")[:2])) < (20, 19):
        pytest.skip("the Web UI needs npm and Node.js 20.19 or newer")
