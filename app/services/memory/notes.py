"""The functions over the memory folder that the agent's code may call; nothing else is there for it."""

import inspect
import os
import stat
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from app.services.memory import paths, tree
from app.services.memory.audit import Audit
from app.services.memory.backups import Backups
from app.services.memory.paths import Parts, Refused
from app.services.memory.tree import Tree

MOST_IN_FILE = 2**20
MOST_IN_FOLDER = 10 * 2**20
MOST_IN_MEMORY = 100 * 2**20
MOST_ENTRIES = 10_000  # files and folders

FUNCTIONS = (
    *("create_file", "create_dir", "update_file", "read_file", "delete_file", "list_files", "go_to_link"),
    *("check_if_file_exists", "check_if_dir_exists", "get_size"),
)


class Notes:
    """The memory folder during one run. Not safe for two threads at once."""

    def __init__(self, root: int, audit: Audit) -> None:
        self._root = root  # a descriptor
        self._audit = audit
        self._backups = Backups(root)
        self._listing: Tree | None = None  # what lies there, kept up to date over this run's own writes

    def call(self, name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> object:
        """Call one of FUNCTIONS. Raises TypeError for arguments that do not fit, and what the function raises."""
        if name not in FUNCTIONS:
            raise NameError(f"name '{name}' is not defined")
        function: Callable[..., object] = getattr(self, name)
        try:
            bound = inspect.signature(function).bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{name}() {error}") from None
        self._audit.call(name, next(iter(bound.arguments.values()), ""))
        try:
            return function(*bound.args, **bound.kwargs)
        except OSError as error:
            raise _plain(error) from None

    def close(self) -> None:
        """Let go of the folder. Nothing may be called any more."""
        try:
            if self._audit.wrote:
                self._backups.trim()
        finally:
            os.close(self._root)

    def create_file(self, file_path: str, content: str = "") -> bool:
        """Write a file, over what it was; folders on the way are made."""
        parts = _file_parts(file_path)
        data = _encoded(content)
        self._check_room(parts, len(data))
        self._backups.write(parts, data)
        self._wrote(parts, data)
        return True

    def create_dir(self, dir_path: str) -> bool:
        """Make a folder and those above it."""
        try:
            parts = paths.split(dir_path)
            self._check_entries(parts)
            with paths.opened(self._root, parts, make=True):
                pass
        except (OSError, ValueError):
            return False
        self._tree().make(parts)
        return True

    def update_file(self, file_path: str, old_content: str, new_content: str) -> bool | str:
        """Replace the first occurrence of a text in a file."""
        try:
            parts = _file_parts(file_path)
            if not isinstance(old_content, str) or not old_content:
                return "Error: old_content is empty"
            before = self._read(parts)
            if old_content not in before:
                return f"Error: old_content is not in {_shown(parts)}"
            data = _encoded(before.replace(old_content, new_content, 1))
            self._check_room(parts, len(data))
            self._backups.write(parts, data)
            self._wrote(parts, data)
        except (OSError, ValueError, TypeError) as error:
            return self._error_text(error, file_path)
        return True

    def read_file(self, file_path: str) -> str:
        """Give the content of a file."""
        try:
            return self._read(_file_parts(file_path))
        except (OSError, ValueError, TypeError) as error:
            return self._error_text(error, file_path)

    def delete_file(self, file_path: str) -> bool:
        """Take a file away; its backup stays."""
        try:
            parts = _file_parts(file_path)
            self._backups.remove(parts)
            self._audit.wrote = True
        except (OSError, TypeError):
            return False
        if folder := self._tree().at(parts[:-1]):
            folder.files.pop(parts[-1], None)
        return True

    def list_files(self) -> str:
        """Draw what lies in the memory."""
        self._listing = None
        return self._tree().draw()

    def go_to_link(self, link: str) -> str:
        """Give the note behind [[a link]], or a path."""
        if not isinstance(link, str):
            return "Error: a link is a str"
        target = link.strip()
        if target.startswith("[[") and target.endswith("]]"):
            target = target[2:-2].partition("|")[0].partition("#")[0].strip()
        return self.read_file(target if target.endswith(".md") else f"{target}.md")

    def check_if_file_exists(self, path: str) -> bool:
        """Whether a file is there."""
        try:
            status = self._lstat(_file_parts(path))
        except (OSError, TypeError):
            return False
        return status is not None and stat.S_ISREG(status.st_mode) and status.st_nlink == 1

    def check_if_dir_exists(self, path: str) -> bool:
        """Whether a folder is there."""
        try:
            with paths.opened(self._root, paths.split(path)):
                return True
        except (OSError, TypeError):
            return False

    def get_size(self, path: str) -> int:
        """Give the bytes of a file or a folder, of the whole memory for an empty path."""
        parts = paths.split(path)
        if parts and (status := self._lstat(parts)) is not None and not stat.S_ISDIR(status.st_mode):
            paths.check_file(status)
            return status.st_size
        with paths.opened(self._root, parts) as folder:
            return tree.read(folder).size

    def _read(self, parts: Parts) -> str:
        with paths.opened(self._root, parts[:-1]) as folder:
            content = paths.read(folder, parts[-1], MOST_IN_FILE)
        self._audit.read += len(content)
        return content.decode()

    def _lstat(self, parts: Parts) -> os.stat_result | None:
        with paths.opened(self._root, parts[:-1]) as folder:
            return paths.lstat(folder, parts[-1])

    def _tree(self) -> Tree:
        if self._listing is None:
            self._listing = tree.read(self._root)
        return self._listing

    def _check_room(self, parts: Parts, size: int) -> None:
        """Raise ValueError unless a file of this size fits in every limit."""
        listing = self._tree()
        folder = listing.at(parts[:-1])
        grows = size - (folder.files.get(parts[-1], 0) if folder else 0)
        if size > MOST_IN_FILE:
            raise ValueError(f"file too large: at most {MOST_IN_FILE} bytes")
        if grows > 0 and listing.size + grows > MOST_IN_MEMORY:
            raise ValueError(f"memory full: at most {MOST_IN_MEMORY} bytes")
        for depth in range(1, len(parts)):
            above = listing.at(parts[:depth])
            if grows > 0 and above is not None and above.size + grows > MOST_IN_FOLDER:
                raise ValueError(f"folder full: at most {MOST_IN_FOLDER} bytes")
        self._check_entries(parts)

    def _check_entries(self, parts: Parts) -> None:
        listing = self._tree()
        folders = [listing.at(parts[:depth]) for depth in range(len(parts))]
        new = sum(f is None or (n not in f.files and n not in f.folders) for f, n in zip(folders, parts, strict=True))
        if new and listing.entries + new > MOST_ENTRIES:
            raise ValueError(f"memory full: at most {MOST_ENTRIES} files and folders")

    def _wrote(self, parts: Parts, data: bytes) -> None:
        self._tree().make(parts[:-1]).files[parts[-1]] = len(data)
        self._audit.written += len(data)
        self._audit.wrote = True

    def _error_text(self, error: Exception, path: object) -> str:
        """Say an error as a result, in words that name no path but the agent's own."""
        shown = str(path)[:200]
        match error:
            case Refused() | TypeError():
                return f"Error: {error}"
            case FileNotFoundError() | NotADirectoryError():
                return f"Error: file {shown} does not exist"
            case IsADirectoryError():
                return f"Error: {shown} is not a file"
            case UnicodeError():
                return f"Error: {shown} is not a text file"
            case OSError():
                return f"Error: {_plain(error)}"
        return f"Error: {error}"


def _file_parts(path: str) -> Parts:
    if not (parts := paths.split(path)):
        raise Refused("that is the memory itself, not a file in it")
    return parts


def _shown(parts: Parts) -> str:
    return "/".join(parts)[:200]


def _encoded(content: object) -> bytes:
    if not isinstance(content, str):
        raise TypeError(f"content is a str, not {type(content).__name__}")
    try:
        return content.encode()
    except UnicodeEncodeError:
        raise ValueError("content has characters that are no text") from None


def _plain(error: OSError) -> OSError:
    """Keep the kind and the words of an error, and no path of this machine."""
    words = error.strerror or (str(error) if error.errno is None else os.strerror(error.errno))
    for kind in (FileNotFoundError, FileExistsError, IsADirectoryError, NotADirectoryError, PermissionError):
        if isinstance(error, kind):
            return kind(words)
    return OSError(words)
