"""What lies in the memory, as far as the agent may see it: folders, plain files and their sizes."""

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field

from app.services.memory import paths
from app.services.memory.paths import Parts


@dataclass(slots=True)
class Tree:
    """A folder."""

    folders: dict[str, "Tree"] = field(default_factory=dict)
    files: dict[str, int] = field(default_factory=dict)  # name to bytes

    @property
    def size(self) -> int:
        """Bytes of all files in it."""
        return sum(self.files.values()) + sum(folder.size for folder in self.folders.values())

    @property
    def entries(self) -> int:
        """Files and folders in it."""
        return len(self.files) + sum(1 + folder.entries for folder in self.folders.values())

    def at(self, parts: Parts) -> "Tree | None":
        """Give a folder in it, None where there is none."""
        here: Tree | None = self
        for part in parts:
            here = here.folders.get(part) if here else None
        return here

    def make(self, parts: Parts) -> "Tree":
        """Give a folder in it, made when missing."""
        here = self
        for part in parts:
            here = here.folders.setdefault(part, Tree())
        return here

    def notes(self, above: Parts = ()) -> Iterator[tuple[Parts, int]]:
        """Give every file with its bytes, in order."""
        for name, size in sorted(self.files.items()):
            yield (*above, name), size
        for name, folder in sorted(self.folders.items()):
            yield from folder.notes((*above, name))

    def draw(self) -> str:
        """Draw it with box characters; empty folders are marked."""
        return "\n".join(["./", *self._lines("")])

    def _lines(self, indent: str) -> Iterator[str]:
        rows = [*((name, folder) for name, folder in sorted(self.folders.items())), *_leaves(self.files)]
        for number, (name, folder) in enumerate(rows):
            last = number == len(rows) - 1
            branch, below = ("└── ", "    ") if last else ("├── ", "│   ")
            if folder is None:
                yield f"{indent}{branch}{name}"
            elif not folder.folders and not folder.files:
                yield f"{indent}{branch}{name}/ (empty)"
            else:
                yield f"{indent}{branch}{name}/"
                yield from folder._lines(indent + below)


def _leaves(files: dict[str, int]) -> list[tuple[str, None]]:
    return [(name, None) for name in sorted(files)]


def read(folder: int, depth: int = paths.DEEPEST) -> Tree:
    """Read a folder by its descriptor. Hidden names, links and what is no file are left out."""
    tree = Tree()
    with os.scandir(folder) as entries:
        children = [(entry.name, _lstat(entry)) for entry in entries if paths.usable(entry.name)]
    for name, status in children:
        if status is None:
            continue
        if stat.S_ISREG(status.st_mode) and status.st_nlink == 1:
            tree.files[name] = status.st_size
        elif stat.S_ISDIR(status.st_mode) and depth:
            try:
                with paths.opened(folder, (name,)) as below:
                    tree.folders[name] = read(below, depth - 1)
            except OSError:  # gone or swapped meanwhile, or not ours to read
                continue
    return tree


def _lstat(entry: "os.DirEntry[str]") -> os.stat_result | None:
    try:
        return entry.stat(follow_symlinks=False)
    except OSError:
        return None
