"""From a model's name to a checked folder, without reading its weights and without the network."""

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from app.services import hub, mlx_folder
from app.services.errors import LoadFailed
from app.services.files import explained
from app.services.gguf import names
from app.services.gguf.names import NamedFile
from app.services.model_folder import ModelFolder


@dataclass(frozen=True, slots=True)
class CatalogEntry:
    """A model in a cache: `folder` when it can be loaded, else `problem` says why not."""

    id: str
    path: Path
    disk_bytes: int
    folder: ModelFolder | None = None
    problem: str | None = None


def resolve(model: str, cache_path: str | None = None, environ: Mapping[str, str] = os.environ) -> ModelFolder:
    """Find the folder of a model and check it.

    `model` is a folder, a GGUF file, a Hugging Face cache entry, or a repo id in a cache of this machine; where these
    have several GGUF files, the quantization follows a colon. A `cache_path` says where it lies instead: one of these
    too, or a hub folder that has `model`. Raises LoadFailed.
    """
    name = cache_path or model
    with explained(name):
        if not name:
            raise LoadFailed("No model is named: give a folder or a repo id.")
        repo, quant = hub.split(name)
        path = Path(name).expanduser()
        if repo and not path.exists():
            entries = [cache / hub.entry_name(repo) for cache in hub.caches(environ)]
            return _first_sound(entries, _unknown(name), quant or hub.split(model)[1], cache_path and model)
        if not cache_path:
            folder, _, quant = name.rpartition(":")
            if folder and not path.exists() and Path(folder).expanduser().is_dir():
                return inspect(Path(folder).expanduser(), quant=quant)
            return inspect(path)
        repo, quant = hub.split(model)
        in_hub = path / hub.entry_name(repo) if repo else path
        # Who says where a model lies may call it anything: "my:model".
        return inspect(in_hub if in_hub.is_dir() else path, model, quant if names.is_quant(quant or "") else None)


def inspect(path: Path, model_id: str | None = None, quant: str | None = None) -> ModelFolder:
    """Check a model folder, a GGUF file, or a Hugging Face cache entry.

    Of an entry it takes the snapshot of `refs/main`, else the newest that is whole. Of several GGUF files in a folder
    it takes that of a quantization. The id is the entry's `org/name`, else `model_id`, else the folder's name; of a
    GGUF file `model_id`, else `org/name:QUANT` in an entry, else the file's name. Raises LoadFailed; its message names
    the file and what is wrong with it.
    """
    path = path.absolute()
    with explained(path):
        if (path / "snapshots").is_dir():
            missing = f"{path} has no snapshot: its download has not finished."
            return _first_sound(hub.snapshots(path), missing, quant, model_id)
        if path.is_dir() and (quant or not mlx_folder.has_weights(path)):
            files = names.in_folder(path)
            if files or quant:
                source = hub.owner(path) or str(path)
                return _inspect_file(path / names.choose(files, quant, source).paths[0], model_id)
        if path.is_file() and names.is_gguf_file(path):
            return _inspect_file(path, model_id)
        return mlx_folder.inspect(path, model_id)


@lru_cache(maxsize=256)
def outline(path: Path, model_id: str, created: int) -> ModelFolder | None:
    """Give what a model's files say of it, as long as they are those of that time; None if they cannot be read."""
    try:
        return inspect(path, model_id)
    except LoadFailed:
        return None


def _inspect_file(path: Path, model_id: str | None) -> ModelFolder:
    from app.services.gguf import inspection  # takes numpy, which most commands need not wait for

    repo = hub.owner_of_file(path)
    return inspection.inspect(path, model_id or (f"{repo}:{names.of_file(path).quant}" if repo else None))


def available(environ: Mapping[str, str] = os.environ) -> Iterator[CatalogEntry]:
    """Every model in the caches of this machine, loadable or not, in the order in which they are searched."""
    for cache in hub.caches(environ):
        for entry in sorted(cache.glob("models--*")):
            files = hub.gguf_files(entry)
            yield from (_file(model_id, snapshot, file) for model_id, (snapshot, file) in files.items())
            if not files:
                yield _entry(entry)


def _unknown(repo_id: str) -> str:
    return (
        f"{repo_id} is no folder, and no cache of this machine has a model of that name. "
        f"`tiles-server models` lists what is here; `tiles-server pull {repo_id}` downloads it."
    )


def _entry(entry: Path) -> CatalogEntry:
    repo_id, size = hub.repo_id(entry), hub.disk_bytes(entry)
    try:
        return CatalogEntry(repo_id, entry, size, folder=inspect(entry))
    except LoadFailed as error:
        return CatalogEntry(repo_id, entry, size, problem=error.message)


def _file(model_id: str, snapshot: Path, file: NamedFile) -> CatalogEntry:
    path = snapshot / file.paths[0]
    size = sum((snapshot / shard).stat().st_size for shard in file.paths if (snapshot / shard).exists())
    try:
        return CatalogEntry(model_id, path, size, folder=inspect(path))
    except LoadFailed as error:
        return CatalogEntry(model_id, path, size, problem=error.message)


def _first_sound(
    paths: Iterable[Path], otherwise: str, quant: str | None = None, model_id: str | None = None
) -> ModelFolder:
    """The first that passes its inspection; when none does, what is wrong with the first that is there."""
    problem = None
    for path in paths:
        if path.is_dir():
            try:
                return inspect(path, model_id, quant)
            except LoadFailed as error:
                problem = problem or error
    raise problem or LoadFailed(otherwise)
