"""From a model's name to a checked folder, without reading its weights and without the network."""

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from app.services import hub, mlx_folder
from app.services.errors import LoadFailed
from app.services.files import explained
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

    `model` is a folder, a Hugging Face cache entry, or a repo id in a cache of this machine. A `cache_path` says where
    it lies instead: one of these too, or a hub folder that has `model`. Raises LoadFailed.
    """
    name = cache_path or model
    with explained(name):
        if not name:
            raise LoadFailed("No model is named: give a folder or a repo id.")
        path = Path(name).expanduser()
        if hub.REPO_ID.fullmatch(name) and not path.exists():
            return _first_sound([cache / hub.entry_name(name) for cache in hub.caches(environ)], _unknown(name))
        if not cache_path:
            return inspect(path)
        in_hub = path / hub.entry_name(model) if hub.REPO_ID.fullmatch(model) else path
        return inspect(in_hub if in_hub.is_dir() else path, model)


def inspect(path: Path, model_id: str | None = None) -> ModelFolder:
    """Check a model folder or a Hugging Face cache entry.

    Of an entry it takes the snapshot of `refs/main`, else the newest that is whole. The id is the entry's `org/name`,
    else `model_id`, else the folder's name. Raises LoadFailed; its message names the file and what is wrong with it.
    """
    path = path.absolute()
    with explained(path):
        if (path / "snapshots").is_dir():
            return _first_sound(hub.snapshots(path), f"{path} has no snapshot: its download has not finished.")
        return mlx_folder.inspect(path, model_id)


def available(environ: Mapping[str, str] = os.environ) -> Iterator[CatalogEntry]:
    """Every model in the caches of this machine, loadable or not, in the order in which they are searched."""
    for cache in hub.caches(environ):
        for entry in sorted(cache.glob("models--*")):
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


def _first_sound(paths: Iterable[Path], otherwise: str) -> ModelFolder:
    """The first that passes its inspection; when none does, what is wrong with the first that is there."""
    problem = None
    for path in paths:
        if path.is_dir():
            try:
                return inspect(path)
            except LoadFailed as error:
                problem = problem or error
    raise problem or LoadFailed(otherwise)
