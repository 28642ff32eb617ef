"""The Web UI out of an archive, built or as source in a release of llama.cpp. Nothing in the archive is trusted."""

import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from lzma import LZMAError
from pathlib import Path
from typing import IO

from app.services.ui import NoUi
from app.services.ui.source import PLACES

_MOST_FILES = 50_000
_MOST_BYTES = 2**30
_ROOT_FILES = (*(f"{folder}/package.json" for folder in PLACES), "package.json", "index.html", "index.html.gz")


@dataclass(frozen=True, slots=True)
class _Member:
    name: str
    size: int
    plain: bool  # a regular file, no link, no device
    open: Callable[[], IO[bytes] | None]


def unpack(archive: Path, folder: Path) -> Path:
    """Unpack the part of an archive that is a Web UI, below a folder; give the folder that holds it. Raises NoUi."""
    try:
        with _opened(archive) as members:
            members = list(_checked(members))
            root = _root([member.name for member in members if member.plain])
            chosen = [member for member in members if member.name.startswith(root)]
            _check(chosen)
            for member in chosen:
                _write(member, folder / member.name)
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, LZMAError, EOFError, OSError, RuntimeError) as error:
        raise NoUi(f"{archive} cannot be unpacked: {error}") from error
    return folder / root


@contextmanager
def _opened(archive: Path) -> Iterator[Iterable[_Member]]:
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as zipped:
            yield (_of_zip(zipped, info) for info in zipped.infolist() if not info.is_dir())
    else:
        try:
            tar = tarfile.open(archive)  # noqa: SIM115
        except tarfile.ReadError as error:  # whose text is a line for each way of reading that was tried
            raise NoUi(f"{archive} is no archive: a zip or a tar file is needed") from error
        with tar:
            yield _of_all(tar)


def _of_all(tar: tarfile.TarFile) -> Iterator[_Member]:
    yield from (_of_tar(tar, info) for info in tar if not info.isdir())
    assert tar.fileobj is not None
    while tar.fileobj.read(2**20):  # gzip compares its checksum only at its very end
        pass


def _of_zip(zipped: zipfile.ZipFile, info: zipfile.ZipInfo) -> _Member:
    kind = info.external_attr >> 28  # of the file's mode, where the archive was made on Unix
    return _Member(info.filename, info.file_size, kind in {0, 8}, lambda: zipped.open(info))


def _of_tar(tar: tarfile.TarFile, info: tarfile.TarInfo) -> _Member:
    return _Member(info.name, info.size, info.isreg(), lambda: tar.extractfile(info))


def _checked(members: Iterable[_Member]) -> Iterator[_Member]:
    """Refuse the whole archive for one name that leads out of it: whoever made that meant harm."""
    for number, member in enumerate(members):
        parts = member.name.split("/")
        if number >= _MOST_FILES:
            raise NoUi(f"The archive has more than {_MOST_FILES:,} files")
        if ".." in parts or parts[0] == "" or "\\" in member.name or "\0" in member.name or ":" in parts[0]:
            raise NoUi(f"The archive wants to write outside of its folder: {member.name!r}")
        name = "/".join(part for part in parts if part not in {"", "."})
        yield _Member(name, member.size, member.plain, member.open)


def _root(names: list[str]) -> str:
    for root_file in _ROOT_FILES:
        matches = [name for name in names if name == root_file or name.endswith(f"/{root_file}")]
        if matches:
            shallowest = min(matches, key=lambda name: (name.count("/"), name))
            return shallowest[: shallowest.rfind("/") + 1]
    raise NoUi("The archive has no Web UI in it: neither a built one (index.html) nor the source of one (tools/ui)")


def _check(members: list[_Member]) -> None:
    if odd := [member.name for member in members if not member.plain]:
        raise NoUi(f"The archive holds a link or a device where a file should be: {odd[0]!r}")
    if sum(member.size for member in members) > _MOST_BYTES:
        raise NoUi("The Web UI in the archive is larger than 1 GiB unpacked")


def _write(member: _Member, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("xb") as file:
        content = member.open()
        assert content is not None  # a plain file has content
        with content:
            shutil.copyfileobj(content, file)
