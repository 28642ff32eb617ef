"""Prefix caches on disk, written behind the answers, so that a restart does not compute old prompts again."""

import base64
import contextlib
import fcntl
import hashlib
import json
import os
import struct
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import mlx.core as mx
import numpy as np
import structlog
from mlx_lm.models.cache import load_prompt_cache, save_prompt_cache

from app.services.atomic import private_file, private_folder
from app.services.engine.cache.disk_thread import Job, disk
from app.services.engine.cache.layers import Checkpoints, Layers, cuts
from app.services.engine.cache.prefixes import CachedPrefix, covers, nearest, related, usable

log = structlog.get_logger()

_VERSION = "2"
_SETTLE_SECONDS = 2.0  # a prompt that has grown by then is written once, not twice
_FEWEST_TOKENS = 64  # fewer are computed faster than they are read
_LARGEST_HEADER = 100_000_000  # bytes
_FLUSH_SECONDS = 10.0  # that a last write may take


@dataclass(slots=True)
class _Stored:
    tokens: Any  # int32 (length,)
    trimmable: bool
    lengths: Collection[int]  # of the marks
    path: Path


@dataclass(eq=False, slots=True)
class _Pending:
    tokens: Any
    trimmable: bool
    layers: Layers
    marks: Checkpoints

    @property
    def lengths(self) -> Collection[int]:
        return self.marks


class PrefixStore:
    """The files of one model. All but the writing happens on the engine thread.

    A file is named by the checksum of what is in it and becomes visible by a rename: a torn one is found out and
    thrown away. Least recently used goes first, over all models of the folder.
    """

    def __init__(self, folder: Path, fingerprint: str, max_bytes: int) -> None:
        self._root = folder
        self._folder = folder / f"v{_VERSION}-{fingerprint}"
        self._max_bytes = max_bytes
        self._stored: list[_Stored] = []
        self._pending: dict[_Pending, Job] = {}
        self._lock = threading.Lock()  # guards what both threads change
        private_folder(self._folder)
        self._stored = list(self._found())

    def __len__(self) -> int:
        return len(self._stored)

    def longest(self, wanted: Any) -> int:
        """How many of the wanted tokens (length,) a file stands for."""
        return nearest(self._stored, wanted)[0]

    def load(self, wanted: Any) -> CachedPrefix | None:
        """Read the nearest prefix. None if its file turns out torn."""
        _, stored = nearest(self._stored, wanted)
        if stored is None:
            return None
        try:
            content = stored.path.read_bytes()
            if _checksum(content) != stored.path.stem:
                raise ValueError("the checksum is wrong")
            layers, marks = _unpacked(load_prompt_cache(str(stored.path)), sorted(stored.lengths))
            os.utime(stored.path)
        except Exception as error:  # whatever is wrong with it, the prompt can be computed
            if isinstance(error, OSError) and not isinstance(error, FileNotFoundError):
                log.warning("prefix file not read", reason=str(error)[:200])  # no descriptor is free, say
                return None
            log.warning("prefix file thrown away", reason=str(error)[:200])
            self._forget(stored)
            return None
        return CachedPrefix(stored.tokens, layers, marks)

    def note(self, tokens: Any, layers: Layers, marks: Checkpoints, *, trimmable: bool) -> None:
        """Have the layers of these tokens written, once nothing longer has come for a moment."""
        if len(tokens) < _FEWEST_TOKENS:
            return
        pending = _Pending(tokens, trimmable, layers, dict(marks))
        self._leave_out(lambda one: _stands_for(pending, one.tokens))
        job = Job(self, lambda: self._write_behind(pending), time.monotonic() + _SETTLE_SECONDS)
        with self._lock:
            self._pending[pending] = job
        disk.put(job)

    def forget(self, tokens: Any) -> None:
        """Throw away what begins with these tokens (length,), and what these begin with."""
        self._leave_out(lambda one: related(one.tokens, tokens))
        for stored in [one for one in self._stored if related(one.tokens, tokens)]:
            self._forget(stored)

    def flush(self) -> None:
        """Have written what is pending. On any thread."""
        disk.flush(self, _FLUSH_SECONDS)

    def _leave_out(self, unwanted: Callable[[_Pending], bool]) -> None:
        """Do not write what is pending of this kind."""
        with self._lock:
            jobs = [self._pending.pop(one) for one in list(self._pending) if unwanted(one)]
        disk.drop(jobs)

    def _found(self) -> Iterator[_Stored]:
        for path in sorted(self._folder.glob("*.safetensors"), key=lambda path: path.stat().st_mtime):
            try:
                metadata = _metadata(path)
                tokens = np.frombuffer(base64.b64decode(metadata["0.tokens"]), dtype=np.int32)
                lengths = [int(length) for length in metadata["0.marks"].split()]
                yield _Stored(tokens, metadata["0.trimmable"] == "yes", lengths, path)
            except (OSError, ValueError, KeyError, struct.error) as error:
                log.warning("prefix file thrown away", reason=str(error)[:200])
                _remove(path)

    def _write_behind(self, pending: _Pending) -> None:
        with self._lock:
            if self._pending.pop(pending, None) is None:
                return  # it was taken back just now
        try:
            self._write(pending)
        except Exception as error:  # a full disk, a folder that is gone: the answers do not depend on it
            log.warning("prefix not written", reason=str(error)[:200])

    def _write(self, pending: _Pending) -> None:
        if any(_stands_for(stored, pending.tokens) for stored in self._stored):
            return
        private_folder(self._folder)
        unfinished = self._folder / f".{os.getpid()}.safetensors"
        facts = {
            "tokens": base64.b64encode(pending.tokens.tobytes()).decode(),
            "trimmable": "yes" if pending.trimmable else "no",
            "marks": " ".join(str(length) for length in sorted(pending.marks)),
        }
        try:
            private_file(unfinished).close()  # MLX keeps the mode of what is there
            save_prompt_cache(str(unfinished), _packed(pending.layers, pending.marks), facts)
            path = self._folder / f"{_synced_checksum(unfinished)}.safetensors"
            unfinished.rename(path)
        finally:
            _remove(unfinished)
        with self._lock:
            superseded = [one for one in self._stored if _stands_for(pending, one.tokens)]
            self._stored = [*self._stored, _Stored(pending.tokens, pending.trimmable, list(pending.marks), path)]
        for one in superseded:
            self._forget(one)
        self._evict()

    def _evict(self) -> None:
        files = [(path.stat(), path) for path in self._root.glob("v*/*.safetensors")]
        total = sum(stat.st_size for stat, _ in files)
        for stat, path in sorted(files, key=lambda file: file[0].st_mtime):
            if total <= self._max_bytes:
                return
            total -= stat.st_size
            _remove(path)
            with self._lock:
                self._stored = [one for one in self._stored if one.path != path]

    def _forget(self, stored: _Stored) -> None:
        with self._lock:
            self._stored = [one for one in self._stored if one is not stored]
        _remove(stored.path)


def _stands_for(prefix: _Stored | _Pending, tokens: Any) -> bool:
    """Whether a prefix can be cut to these tokens."""
    return covers(prefix.tokens, tokens) and usable(prefix, len(tokens)) == len(tokens)


def _packed(layers: Layers, marks: Checkpoints) -> Layers:
    """Put the layers of the marks behind those of the whole, the shortest first."""
    return [*layers, *(layer for length in sorted(marks) for layer in marks[length])]


def _unpacked(packed: Layers, lengths: Sequence[int]) -> tuple[Layers, Checkpoints]:
    """Undo that."""
    mx.eval([layer.state for layer in packed])
    each = sum(not cuts(layer) for layer in packed) // (len(lengths) + 1)
    depth = len(packed) - each * len(lengths)
    layers, rest = packed[:depth], iter(packed[depth:])
    return layers, {length: [next(rest) for _ in range(each)] for length in lengths}


def fingerprint(folder: Path, template: str, precision: str) -> str:
    """Name a model by what its caches depend on: its files, its template, its precision."""
    files = sorted(path for pattern in ("*.json", "*.safetensors", "*.jinja") for path in folder.glob(pattern))
    facts = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    told = json.dumps([str(folder), facts, template, precision])
    return hashlib.blake2b(told.encode(), digest_size=12).hexdigest()


def lock(folder: Path) -> IO[bytes] | None:
    """Claim the folder for this process; None where another server writes there, or nobody can.

    What a process that was killed had half written is thrown away.
    """
    with contextlib.suppress(OSError):
        private_folder(folder)
        claim = private_file(folder / ".lock")
        try:
            fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            claim.close()
            return None
        for path in folder.glob("v*/.*.safetensors"):
            _remove(path)
        return claim
    return None


def _metadata(path: Path) -> dict[str, str]:
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        if length > _LARGEST_HEADER:
            raise ValueError("the header is no header")
        header = json.loads(file.read(length))
    metadata = header["__metadata__"]
    if not isinstance(metadata, dict):
        raise ValueError("the metadata is none")
    return metadata


def _synced_checksum(path: Path) -> str:
    with path.open("rb") as file:
        os.fsync(file.fileno())
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def _checksum(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()
