"""A folder of models: which there are, without a look into them."""

from collections.abc import Iterator
from pathlib import Path

from app.services import hub


def scan(folder: Path) -> dict[str, Path]:
    """Give the id and the place of every model: `name`, `org/name` one level deeper, or a Hugging Face cache entry."""
    found: dict[str, Path] = {}
    for identity, path in _models(folder):
        found.setdefault(identity, path)
    return found


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
    """The folders in it that can be read, by name; hidden ones are none of ours."""
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith(".") and path.is_dir())
    except OSError:
        return []
