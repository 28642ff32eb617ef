"""What a model is read from: its own folder, or what its GGUF file becomes on this machine."""

import hashlib
import json
from collections.abc import Callable, Generator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from app.services.files import bad, explained
from app.services.gguf import architectures, conversion, file
from app.services.gguf.architectures import Architecture
from app.services.gguf.blocks import fidelity
from app.services.gguf.cache import Entry, GGUFCache, Steps, content_name
from app.services.gguf.file import GGUFFile
from app.services.model_folder import ModelFolder


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """The files of a model while it is loaded; to be closed."""

    model: ModelFolder
    folder: Path  # config.json, tokenizer and templates; the weights too, but for `gguf`
    identity: str  # of the content: another file under the same name has another
    gguf: Architecture | None = None  # whose tensors the weights are to be widened from
    check: Callable[[], None] = lambda: None  # raises LoadFailed if `gguf` was replaced since this was made
    loss: str | None = None  # what of the weights is not exactly as in the GGUF file
    entry: Entry | None = None  # of the cache

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let the cache evict them."""
        if self.entry is not None:
            self.entry.close()


def open_folder(model: ModelFolder) -> ModelFiles:
    """Give the files of a model that has its own folder."""
    files = sorted(path for pattern in ("*.json", "*.safetensors", "*.jinja") for path in model.path.glob(pattern))
    facts = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    return ModelFiles(model, model.path, _digest([str(model.path), facts]))


def open_gguf(model: ModelFolder, cache: GGUFCache, *, packed: bool, half: bool) -> Generator[float, None, ModelFiles]:
    """Give the files of a model that is a GGUF file, which are made first if need be. Yields progress, 0 to 1.

    Where the weights are not `packed`, they are read from the file itself. `half`: what is not packed, and the scales,
    become bfloat16. Raises LoadFailed.
    """
    source = file.read(model.path)
    architecture = architectures.for_file(source)
    variant = f"packed, {'bfloat16' if half else 'float32'}" if packed else "settings"
    with explained(model.path):
        name = content_name(source, variant)

    def check() -> None:
        with suppress(FileNotFoundError):  # what was removed meanwhile is still mapped
            if content_name(source, variant) != name:
                raise bad(model.path, "was replaced while it was read. Load it again.")

    def make(folder: Path) -> Steps:
        if packed:
            yield from conversion.write(source, architecture, folder, half=half)
        else:
            conversion.write_settings(source, architecture, folder, {})
        check()

    entry = yield from cache.open(name, make)
    loss = _loss(source, half=half) if packed else None
    identity = name if model.mmproj is None else f"{name} {content_name(file.read_any(model.mmproj), 'mmproj')}"
    return ModelFiles(model, entry.folder, identity, None if packed else architecture, check, loss, entry)


def _loss(source: GGUFFile, *, half: bool) -> str | None:
    """Say what of the weights is not as in the file, once it is packed."""
    types = fidelity(source.tensors.values())
    losses = [str(types)] if types.lossy else []
    losses += ["scales and matrices that are not quantized rounded to bfloat16"] if half else []
    return "; ".join(losses) or None


def _digest(facts: object) -> str:
    return hashlib.blake2b(json.dumps(facts).encode(), digest_size=12).hexdigest()
