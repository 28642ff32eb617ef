"""A folder of models: which there are, by the names of files alone."""

from collections.abc import Iterator
from pathlib import Path

from app.services import hub


def scan(folder: Path) -> dict[str, Path]:
    """Give the path of every model by its id: `name`, `org/name` one level deeper, or a Hugging Face cache entry."""
    models: dict[str, Path] = {}
    for identity, path in _models(folder):
        models.setdefault(identity, path)
    return models


def is_model(folder: Path) -> bool:
    """Whether this looks like a model, sound or not."""
    return (folder / "config.json").exists() or any(folder.glob("*.safetensors"))


def _models(folder: Path) -> Iterator[tuple[str, Path]]:
    for path in _folders(folder):
        if path.name.startswith("models--"):
            yield hub.repo_id(path), path
        elif is_model(path):
            yield path.name, path
        else:
            yield from ((f"{path.name}/{inner.name}", inner) for inner in _folders(path) if is_model(inner))


def _folders(folder: Path) -> list[Path]:
    """Give the folders in it that can be read, by name, without hidden ones."""
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith(".") and path.is_dir())
    except OSError:
        return []
