"""Prefix cache on disk: written in the background, so that a restart does not compute old prompts again."""

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
from typing import IO, Protocol

import mlx.core as mx
import numpy as np
import structlog
from mlx_lm.models.cache import load_prompt_cache, save_prompt_cache

from app.services.atomic import private_file, private_folder
from app.services.engine.cache.disk_thread import Job, disk
from app.services.engine.cache.layers import Checkpoints, LayerCache, Layers, is_trimmable, storable
from app.services.engine.cache.prefixes import (
    CachedPrefix,
    TokenArray,
    either_is_prefix,
    is_prefix,
    longest_match,
    usable_length,
)

log = structlog.get_logger()

_VERSION = "2"
_SETTLE_SECONDS = 2.0  # a prompt that has grown by then is written once, not twice
_MIN_TOKENS = 64  # fewer are computed faster than they are read
_MAX_HEADER = 100_000_000  # bytes
_FLUSH_SECONDS = 10.0  # that a last write may take


@dataclass(slots=True)
class _PrefixFile:
    tokens: TokenArray
    trimmable: bool
    cut_step: int
    checkpoint_lengths: Collection[int]
    path: Path


@dataclass(eq=False, slots=True)
class _PendingWrite:
    tokens: TokenArray
    trimmable: bool
    cut_step: int
    layers: Layers
    checkpoints: Checkpoints

    @property
    def checkpoint_lengths(self) -> Collection[int]:
        return self.checkpoints


class Notes(Protocol):
    """What else is known of tokens, and is kept with them."""

    def save(self, tokens: TokenArray) -> str:
        """Write it down."""

    def load(self, tokens: TokenArray, saved: str) -> None:
        """Read it again. Raises ValueError where it cannot be read."""


class PrefixStore:
    """The files of one model. All but the writing happens on the engine thread.

    A file is named by the checksum of its content and becomes visible by a rename: a torn one is detected and deleted.
    The least recently used is evicted first, over all models of the folder.
    """

    def __init__(self, folder: Path, fingerprint: str, max_bytes: int, notes: Notes | None = None) -> None:
        self._root = folder
        self._folder = folder / f"v{_VERSION}-{fingerprint}"
        self._max_bytes = max_bytes
        self._notes = notes
        self._files: list[_PrefixFile] = []
        self._pending: dict[_PendingWrite, Job] = {}
        self._lock = threading.Lock()  # guards what both threads change
        private_folder(self._folder)
        self._files = list(self._scan())

    def __len__(self) -> int:
        return len(self._files)

    def match_length(self, tokens: TokenArray) -> int:
        """How many of these tokens a file has the layers of, from the first on."""
        return longest_match(self._files, tokens)[0]

    def get(self, tokens: TokenArray) -> CachedPrefix | None:
        """Read the prefix that matches the most of these tokens. None if its file turns out torn."""
        _, file = longest_match(self._files, tokens)
        if file is None:
            return None
        try:
            content = file.path.read_bytes()
            if _checksum(content) != file.path.stem:
                raise ValueError("the checksum is wrong")
            layers, checkpoints = _unpack(load_prompt_cache(str(file.path)), sorted(file.checkpoint_lengths))
            os.utime(file.path)
        except Exception as error:  # whatever is wrong with it, the prompt can be computed
            if isinstance(error, OSError) and not isinstance(error, FileNotFoundError):
                log.warning("prefix file not read", reason=str(error)[:200])  # no descriptor is free, say
                return None
            log.warning("prefix file thrown away", reason=str(error)[:200])
            self._delete(file)
            return None
        return CachedPrefix(file.tokens, layers, checkpoints)

    def put(self, tokens: TokenArray, layers: Layers, checkpoints: Checkpoints, *, trimmable: bool) -> None:
        """Write the layers of these tokens, unless a longer sequence that begins with them comes within seconds."""
        if len(tokens) < _MIN_TOKENS or not storable(layers):
            return
        pending = _PendingWrite(tokens, trimmable, layers.cut_step, layers, dict(checkpoints))
        self._cancel(lambda other: _can_replace(pending, other.tokens))
        job = Job(self, lambda: self._write_pending(pending), time.monotonic() + _SETTLE_SECONDS)
        with self._lock:
            self._pending[pending] = job
        disk.put(job)

    def forget(self, tokens: TokenArray) -> None:
        """Delete what begins with these tokens, and what these begin with."""
        self._cancel(lambda pending: either_is_prefix(pending.tokens, tokens))
        for file in [file for file in self._files if either_is_prefix(file.tokens, tokens)]:
            self._delete(file)

    def flush(self) -> None:
        """Write what is pending now, and wait for it. On any thread."""
        disk.flush(self, _FLUSH_SECONDS)

    def _cancel(self, condition: Callable[[_PendingWrite], bool]) -> None:
        """Cancel the writes of pending prefixes that meet a condition."""
        with self._lock:
            jobs = [self._pending.pop(pending) for pending in list(self._pending) if condition(pending)]
        disk.cancel(jobs)

    def _scan(self) -> Iterator[_PrefixFile]:
        for path in sorted(self._folder.glob("*.safetensors"), key=lambda path: path.stat().st_mtime):
            try:
                metadata = _metadata(path)
                tokens = np.frombuffer(base64.b64decode(metadata["0.tokens"]), dtype=np.int32)
                lengths = [int(length) for length in metadata["0.marks"].split()]  # of the checkpoints
                step = int(metadata.get("0.step", 1))
                if self._notes is not None:
                    self._notes.load(tokens, metadata.get("0.notes", "[]"))
                yield _PrefixFile(tokens, metadata["0.trimmable"] == "yes", step, lengths, path)
            except (OSError, ValueError, KeyError, struct.error) as error:
                log.warning("prefix file thrown away", reason=str(error)[:200])
                _remove(path)

    def _write_pending(self, pending: _PendingWrite) -> None:
        with self._lock:
            if self._pending.pop(pending, None) is None:
                return  # it was cancelled just now
        try:
            self._write(pending)
        except Exception as error:  # a full disk, a folder that is gone: the answers do not depend on it
            log.warning("prefix not written", reason=str(error)[:200])

    def _write(self, pending: _PendingWrite) -> None:
        if any(_can_replace(file, pending.tokens) for file in self._files):
            return
        private_folder(self._folder)
        temporary = self._folder / f".{os.getpid()}.safetensors"
        metadata = {
            "tokens": base64.b64encode(pending.tokens.tobytes()).decode(),
            "trimmable": "yes" if pending.trimmable else "no",
            "step": str(pending.cut_step),
            "marks": " ".join(str(length) for length in sorted(pending.checkpoints)),
            "notes": self._notes.save(pending.tokens) if self._notes is not None else "[]",
        }
        try:
            private_file(temporary).close()  # MLX keeps the mode of what is there
            save_prompt_cache(str(temporary), _pack(pending.layers, pending.checkpoints), metadata)
            path = self._folder / f"{_synced_checksum(temporary)}.safetensors"
            temporary.rename(path)
        finally:
            _remove(temporary)
        with self._lock:
            shorter = [file for file in self._files if _can_replace(pending, file.tokens)]
            file = _PrefixFile(pending.tokens, pending.trimmable, pending.cut_step, list(pending.checkpoints), path)
            self._files = [*self._files, file]
        for file in shorter:
            self._delete(file)
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
                self._files = [file for file in self._files if file.path != path]

    def _delete(self, file: _PrefixFile) -> None:
        with self._lock:
            self._files = [other for other in self._files if other is not file]
        _remove(file.path)


def _can_replace(prefix: _PrefixFile | _PendingWrite, tokens: TokenArray) -> bool:
    """Whether a prefix begins with these tokens, and its cache can be cut to them, or to little less."""
    return is_prefix(tokens, prefix.tokens) and usable_length(prefix, len(tokens)) > len(tokens) - prefix.cut_step


def _pack(layers: Layers, checkpoints: Checkpoints) -> list[LayerCache]:
    """Append the layers of the checkpoints, the shortest first."""
    return [*layers.caches, *(cache for length in sorted(checkpoints) for cache in checkpoints[length].caches)]


def _unpack(packed: list[LayerCache], lengths: Sequence[int]) -> tuple[Layers, Checkpoints]:
    """Undo `_pack`."""
    mx.eval([layer.state for layer in packed])
    each = sum(not is_trimmable(layer) for layer in packed) // (len(lengths) + 1)
    depth = len(packed) - each * len(lengths)
    untrimmable = iter(packed[depth:])
    return Layers(packed[:depth]), {length: Layers([next(untrimmable) for _ in range(each)]) for length in lengths}


def fingerprint(identity: str, template: str, precision: str) -> str:
    """Hash what a model's KV caches depend on: its files, its chat template, its precision."""
    return hashlib.blake2b(json.dumps([identity, template, precision]).encode(), digest_size=12).hexdigest()


def lock(folder: Path) -> IO[bytes] | None:
    """Lock the folder for this process; None where another server has locked it, or it cannot be written.

    Deletes the temporary files of a process that was killed.
    """
    with contextlib.suppress(OSError):
        private_folder(folder)
        lock_file = private_file(folder / ".lock")
        try:
            fcntl.flock(lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock_file.close()
            return None
        for path in folder.glob("v*/.*.safetensors"):
            _remove(path)
        return lock_file
    return None


def _metadata(path: Path) -> dict[str, str]:
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        if length > _MAX_HEADER:
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
