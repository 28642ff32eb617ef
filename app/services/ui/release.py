"""The Web UI as llama.cpp publishes it, built, in a bucket on Hugging Face: by build number, and the latest."""

import hashlib
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from app.services.ui import NoUi

BUCKET = "ggml-org/llama-ui"
_HUB = "https://huggingface.co"
_PATIENCE = 30  # seconds of silence

Progress = Callable[[int, int | None], None]  # bytes so far, and of all where that is known


def download(build: int | None, folder: Path, on_progress: Progress) -> Path:
    """Fetch the archive of a build, of the latest without one, and check its digest. Raises NoUi."""
    version = "latest" if build is None else f"b{build}"
    url = f"{os.environ.get('HF_ENDPOINT', _HUB).rstrip('/')}/buckets/{BUCKET}/resolve/{version}/dist.tar.gz"
    archive = folder / "dist.tar.gz"
    try:
        expected = _digest(url)
        digest = _fetch(url, archive, on_progress)
    except NoUi:
        raise
    except Exception as error:
        raise NoUi(_reason(version, error)) from error
    if digest != expected:
        raise NoUi(f"What came for {version} is not what its digest says; try again")
    return archive


def _digest(url: str) -> str:
    from huggingface_hub import get_session

    answer = get_session().get(f"{url}.sha256", timeout=_PATIENCE, follow_redirects=True)
    answer.raise_for_status()
    if (digest := re.match(r"[0-9a-fA-F]{64}\b", answer.text)) is None:
        raise NoUi(f"{url}.sha256 is no digest")
    return digest[0].lower()


def _fetch(url: str, archive: Path, on_progress: Progress) -> str:
    from huggingface_hub import get_session

    coming = get_session().stream("GET", url, timeout=_PATIENCE, follow_redirects=True)
    with coming as answer, archive.open("wb") as file:
        answer.raise_for_status()
        return _write(answer, file.write, on_progress)


def _write(answer: Any, write: Callable[[bytes], object], on_progress: Progress) -> str:
    """Write the body; give its digest."""
    digest, length = hashlib.sha256(), answer.headers.get("content-length", "")
    for piece in answer.iter_bytes():
        write(piece)
        digest.update(piece)
        on_progress(answer.num_bytes_downloaded, int(length) if length.isdigit() else None)
    return digest.hexdigest()


def _reason(version: str, error: Exception) -> str:
    from huggingface_hub.errors import OfflineModeIsEnabled

    if isinstance(error, OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set, so nothing can be downloaded"
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status == 404:
        return f"llama.cpp has published no Web UI for {version}"
    if status is not None:
        return f"Hugging Face answered {status} for the Web UI {version}; try again later"
    why = next(iter(str(error).splitlines()), type(error).__name__)
    return f"Hugging Face cannot be reached ({why}); give a folder, an archive or a checkout of llama.cpp instead"
