"""The Hugging Face caches of this machine: where they lie and how they are laid out."""

import os
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from app.services.gguf import names
from app.services.gguf.names import NamedFile

REPO_ID = re.compile(r"[A-Za-z0-9_.-]{1,96}(/[A-Za-z0-9_.-]{1,96})?")


def caches(environ: Mapping[str, str] = os.environ) -> list[Path]:
    """Hub folders in the order in which a repo id is searched: Tiles' own, the machine's, Hugging Face's."""
    home = Path(environ["HOME"]) if environ.get("HOME") else Path.home()
    hubs = [
        home / ".local/share/tiles/data/models/huggingface/hub",
        Path("/usr/local/share/tiles/models/huggingface/hub"),
        hugging_face_cache(environ),
        home / ".cache/huggingface/hub",
    ]
    return list(dict.fromkeys(hubs))


def hugging_face_cache(environ: Mapping[str, str] = os.environ) -> Path:
    """The hub folder that huggingface_hub itself reads and writes."""
    for variable, below in (("HF_HUB_CACHE", ""), ("HUGGINGFACE_HUB_CACHE", ""), ("HF_HOME", "hub")):
        if environ.get(variable):
            return Path(environ[variable]).expanduser() / below
    cache_home = environ.get("XDG_CACHE_HOME") or Path(environ.get("HOME") or Path.home()) / ".cache"
    return Path(cache_home).expanduser() / "huggingface/hub"


def entry_name(repo_id: str) -> str:
    """Name of a repo's folder in a hub folder: models--org--name."""
    return "models--" + repo_id.replace("/", "--")


def repo_id(entry: Path) -> str:
    """Id of the repo that a cache entry holds: org/name."""
    return entry.name.removeprefix("models--").replace("--", "/")


def entry(path: Path) -> Path | None:
    """Give the cache entry that a model lies in, or that it is."""
    return next((folder for folder in (path, *path.parents) if folder.name.startswith("models--")), None)


def owner(folder: Path) -> str | None:
    """Id of the repo that a folder is a snapshot of, if it is one."""
    entry = folder.parent.parent
    return repo_id(entry) if folder.parent.name == "snapshots" and entry.name.startswith("models--") else None


def owner_of_file(path: Path) -> str | None:
    """Id of the repo that a file comes from, if it lies in a snapshot."""
    return next((repo for folder in path.parents if (repo := owner(folder)) is not None), None)


def split(name: str) -> tuple[str | None, str | None]:
    """Read `org/name` or `org/name:QUANT`, of a GGUF file: repo and quantization. The repo is None if it is none."""
    repo, _, quant = name.partition(":")
    return (repo if REPO_ID.fullmatch(repo) else None), quant or None


def has(name: str, environ: Mapping[str, str] = os.environ) -> bool:
    """Whether a cache of this machine has the repo that a model's name begins with. A path is no name."""
    repo, _ = split(name)
    if repo is None or Path(name).exists():
        return False
    return any((cache / entry_name(repo)).is_dir() for cache in caches(environ))


def snapshots(entry: Path) -> list[Path]:
    """Snapshots of a cache entry: that of refs/main first, then the newest first."""
    main = entry / "refs/main"
    commit = main.read_text(errors="replace").strip() if main.is_file() else None
    newest = sorted((entry / "snapshots").glob("*/"), key=lambda path: path.stat().st_mtime, reverse=True)
    return sorted(newest, key=lambda path: path.name != commit)


def gguf_files(entry: Path) -> dict[str, tuple[Path, NamedFile]]:
    """Give the GGUF files of a cache entry by their id, `org/name:QUANT`, each with the snapshot it lies in.

    There are none in a snapshot with an MLX model.
    """
    files: dict[str, tuple[Path, NamedFile]] = {}
    with suppress(OSError):
        for snapshot in snapshots(entry):
            for file in [] if any(snapshot.glob("*.safetensors")) else names.in_folder(snapshot):
                files.setdefault(f"{repo_id(entry)}:{file.quant}", (snapshot, file))
    return files


def disk_bytes(entry: Path) -> int:
    """Bytes of all files of a cache entry; links are not followed."""
    total = 0
    for path in (Path(root, name) for root, _, files in os.walk(entry) for name in files):
        with suppress(OSError):
            total += path.lstat().st_size
    return total
