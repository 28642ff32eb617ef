"""Fetching the files of a model into a hub folder, as huggingface_hub lays it out.

huggingface_hub's own download begins each file anew: it keeps no part of one. So here its requests are used (tokens,
retries, redirects, ranges), and the files are written by ourselves: a part stays for the next attempt, under a name
that says which content it is of, and a file gets its own name once its checksum is right.
"""

import fcntl
import hashlib
import os
import queue
import secrets
import shutil
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from rich.filesize import decimal

from app.services import atomic
from app.services.downloads import client
from app.services.downloads.plan import Plan, RemoteFile, partial
from app.services.errors import AppError, DiskFull, DownloadFailed

_SIMULTANEOUS = 4  # files that are fetched side by side
_CHUNK = 2**20  # bytes that are lost at most when a download is broken off; huggingface_hub's own are ten times that
_RESERVE = 10**9  # bytes of the disk that a download leaves free
_SECONDS = 0.25  # between two looks at the progress

Progress = Callable[[dict[str, int]], None]


def check_disk(plan: Plan, cache: Path) -> None:
    """Raise DiskFull for what does not fit on the disk, before anything is downloaded."""
    missing = plan.total - sum(plan.present(cache).values())
    if missing and missing + _RESERVE > (free := free_bytes(cache)):
        raise DiskFull(
            f"{plan.model} needs {decimal(missing)} more, and {cache} has only {decimal(free)} free; "
            f"{decimal(_RESERVE)} have to stay free for everything else."
        )


def free_bytes(folder: Path) -> int:
    """Give the free bytes of the disk that a folder is on, or will be."""
    return shutil.disk_usage(nearest(folder)).free


def nearest(folder: Path) -> Path:
    """Give the folder itself, or the nearest above it that is there."""
    return next(path for path in (folder, *folder.absolute().parents) if path.exists())


def fetch(plan: Plan, cache: Path, on_progress: Progress = lambda present: None) -> Path:
    """Download what is missing of a model, and give its folder. Raises AppError.

    Called again after a failure, or after the process was killed, it goes on from what is there. Progress, called now
    and then, is the bytes of each file by its path.
    """
    from huggingface_hub import constants
    from huggingface_hub.utils.tqdm import disable_progress_bars

    disable_progress_bars()
    constants.DOWNLOAD_CHUNK_SIZE = _CHUNK
    check_disk(plan, cache)
    _fetch_all(plan, cache, on_progress)
    snapshot = plan.snapshot(cache)
    for file in plan.files:
        _link(snapshot / file.path, plan.entry(cache) / "blobs" / file.blob)
    main = plan.entry(cache) / "refs/main"
    main.parent.mkdir(exist_ok=True)
    main.write_text(plan.commit)
    on_progress(plan.present(cache))
    return snapshot


def _fetch_all(plan: Plan, cache: Path, on_progress: Progress) -> None:
    """Fetch the files on a few threads, which the end of the process does not wait for."""
    files: queue.SimpleQueue[RemoteFile] = queue.SimpleQueue()
    results: queue.SimpleQueue[Exception | None] = queue.SimpleQueue()
    failed = threading.Event()

    def work() -> None:
        with suppress(queue.Empty):
            while not failed.is_set():
                file = files.get_nowait()
                try:
                    _fetch(plan, file, cache)
                except Exception as error:
                    failed.set()
                    results.put(error)
                else:
                    results.put(None)

    for file in plan.files:
        files.put(file)
    for _ in range(min(_SIMULTANEOUS, len(plan.files))):
        threading.Thread(target=work, daemon=True).start()
    left = len(plan.files)
    while left:
        on_progress(plan.present(cache))
        with suppress(queue.Empty):
            if (error := results.get(timeout=_SECONDS)) is not None:
                raise client.reason(plan.repo, error) from error
            left -= 1


def _fetch(plan: Plan, file: RemoteFile, cache: Path) -> None:
    """Fetch a file, unless its content is there already. Another process that fetches it is waited for."""
    blob = plan.entry(cache) / "blobs" / file.blob
    blob.parent.mkdir(parents=True, exist_ok=True)
    while not blob.exists():
        with partial(blob).open("ab") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            if os.fstat(stream.fileno()).st_nlink == 0 or blob.exists():
                continue  # who had the lock has removed it, or finished
            try:
                _receive(plan, file, stream)
                _check(plan, file, partial(blob))
            except AppError:
                partial(blob).unlink()
                raise
            partial(blob).rename(blob)
    partial(blob).unlink(missing_ok=True)


def _receive(plan: Plan, file: RemoteFile, stream: BinaryIO) -> None:
    from huggingface_hub import hf_hub_url
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

    if stream.tell() > file.size:
        stream.truncate(0)
    url = hf_hub_url(plan.repo, file.path, revision=plan.commit, endpoint=os.environ.get("HF_ENDPOINT"))
    http_get(url, stream, resume_size=stream.seek(0, os.SEEK_END), headers=build_hf_headers(), expected_size=file.size)
    stream.flush()
    os.fsync(stream.fileno())


def _check(plan: Plan, file: RemoteFile, path: Path) -> None:
    """Raise DownloadFailed if a file is not the one that the hub names."""
    is_lfs = len(file.blob) == 64
    checksum = hashlib.sha256() if is_lfs else hashlib.sha1(b"blob %d\0" % file.size, usedforsecurity=False)
    with path.open("rb") as stream:
        while part := stream.read(_CHUNK):
            checksum.update(part)
    if checksum.hexdigest() != file.blob:
        text = f"{file.path} of {plan.repo} came with a wrong checksum and was removed; the same fetches it again."
        raise DownloadFailed(text)


def _link(link: Path, blob: Path) -> None:
    """Have a link point to a blob. Another process may do so at the same time, and somebody read it."""
    link.parent.mkdir(parents=True, exist_ok=True)
    target = os.path.relpath(blob, link.parent)
    if link.is_symlink() and str(link.readlink()) == target:
        return
    made = link.with_name(f"{atomic.unfinished_name(link.name)}{secrets.token_hex(4)}")
    made.symlink_to(target)
    made.replace(link)
