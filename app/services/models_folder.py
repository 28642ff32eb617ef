"""A folder of models: which there are, by the names of files alone."""

from collections.abc import Iterator
from pathlib import Path

from app.services import hub
from app.services.gguf import names
from app.services.gguf.names import NamedFile


def scan(folder: Path) -> dict[str, Path]:
    """Give the path of every model by its id: `name`, `org/name` one level deeper, or a Hugging Face cache entry.

    GGUF files are models, too: `name` is that of the file without its ending, or of the folder if it has one alone.
    """
    models: dict[str, Path] = {}
    for identity, path in _models(folder):
        models.setdefault(path.name if identity in models else identity, path)
    return models


def is_model(folder: Path) -> bool:
    """Whether this looks like a model, sound or not."""
    return (folder / "config.json").exists() or any(folder.glob("*.safetensors"))


def _models(folder: Path) -> Iterator[tuple[str, Path]]:
    for path in _folders(folder):
        if path.name.startswith("models--"):
            yield from _entry(path)
        elif is_model(path):
            yield path.name, path
        else:
            yield from _named(path.name, path)
            for inner in _folders(path):
                name = f"{path.name}/{inner.name}"
                yield from [(name, inner)] if is_model(inner) else _named(name, inner)
    yield from ((file.name, folder / file.paths[0]) for file in _files(folder))


def _named(name: str, folder: Path) -> Iterator[tuple[str, Path]]:
    """Give the GGUF files in a folder: under its name, and their own if there are several."""
    files = _files(folder)
    yield from ((name if len(files) == 1 else f"{name}/{file.name}", folder / file.paths[0]) for file in files)


def _entry(entry: Path) -> Iterator[tuple[str, Path]]:
    """Give the model of a Hugging Face cache entry, or its GGUF files."""
    if files := hub.gguf_files(entry):
        yield from ((name, snapshot / file.paths[0]) for name, (snapshot, file) in files.items())
    else:
        yield hub.repo_id(entry), entry


def _files(folder: Path) -> list[NamedFile]:
    """Give the GGUF files in a folder itself."""
    try:
        return names.models(path.name for path in folder.iterdir() if not path.name.startswith("."))
    except OSError:
        return []


def _folders(folder: Path) -> list[Path]:
    """Give the folders in it that can be read, by name, without hidden ones."""
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith(".") and path.is_dir())
    except OSError:
        return []
