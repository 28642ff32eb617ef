"""Removing a model from a hub folder. What other models of its repo share stays, and so does all that is elsewhere."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from app.services import hub
from app.services.downloads.plan import split
from app.services.errors import LoadFailed, ModelNotFound
from app.services.gguf import names


class Removal:
    """What goes with a model. Making it raises InvalidRequest for what is no name, ModelNotFound where it is not."""

    def __init__(self, model: str, cache: Path) -> None:
        repo, quant = split(model)
        self._entry = cache / hub.entry_name(repo)
        if not self._entry.is_dir() or self._entry.is_symlink():
            raise ModelNotFound(f"model '{model[:200]}' not found: {cache} has none that was downloaded")
        self._links = list(self._links_of(quant)) if quant else []
        self.is_whole = not quant or not self._others()
        if quant and not self._links and not self.is_whole:
            raise ModelNotFound(f"model '{model[:200]}' not found: {self._entry} has no such file")

    def takes(self, path: Path) -> bool:
        """Whether a model that lies there goes with it."""
        if self.is_whole:
            return path.resolve().is_relative_to(self._entry.resolve())
        return path.parent.resolve() / path.name in self._links

    def run(self) -> int:
        """Remove it, and give the bytes that are free then. Raises OSError."""
        before = hub.disk_bytes(self._entry)
        if self.is_whole:
            # Renamed first: what is left of one that was broken off is no model.
            grave = self._entry.with_name(f".removing-{self._entry.name}")
            shutil.rmtree(grave, ignore_errors=True)
            self._entry.rename(grave)
            shutil.rmtree(grave)
            return before
        for link in self._links:
            link.unlink(missing_ok=True)
        for blob in self._unused():
            blob.unlink(missing_ok=True)
        return before - hub.disk_bytes(self._entry)

    def _links_of(self, quant: str) -> Iterator[Path]:
        """Give the links of a GGUF file and its shards, in every snapshot."""
        for snapshot in (self._entry / "snapshots").resolve().glob("*/"):
            try:
                file = names.choose(names.in_folder(snapshot), quant, str(snapshot))
            except (LoadFailed, OSError):
                continue
            yield from (snapshot / path for path in file.paths)

    def _others(self) -> bool:
        """Whether other models than those are in the entry; a vision part by itself is none."""
        folders = os.walk((self._entry / "snapshots").resolve())
        files = (Path(root, name) for root, _, inside in folders for name in inside)
        weights = (path for path in files if path.suffix.lower() in {".gguf", ".safetensors"})
        return any(path not in self._links and not names.vision_parts([path.name], "") for path in weights)

    def _unused(self) -> Iterator[Path]:
        """Give the blobs that no link points to any more."""
        folders = os.walk(self._entry / "snapshots")
        used = {Path(root, name).resolve() for root, _, names in folders for name in names}
        for blob in (self._entry / "blobs").iterdir():
            if blob.resolve() not in used and not blob.name.endswith(".incomplete"):
                yield blob
