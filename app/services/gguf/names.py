"""The GGUF files of a repo or a folder by their names alone: which belong together, and which quantization each is."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path, PurePath, PurePosixPath

from app.services.errors import LoadFailed

_SHARD = re.compile(r"(?P<name>.*)-(?P<number>\d{5})-of-(?P<count>\d{5})", re.DOTALL)
# As llama.cpp names them; makers put letters of their own in front or behind: UD-Q4_K_XL, MXFP4_MOE, Q4_0_4_4.
_QUANT = re.compile(
    r"(?:^|[-._ ])((?:UD-)?(?:I?Q|TQ)\d[A-Z0-9_]*|(?:UD-)?(?:MX|NV)FP4[A-Z0-9_]*|BF16|FP?16|FP?32)$", re.IGNORECASE
)
_NO_MODELS = re.compile(r"mmproj|imatrix", re.IGNORECASE)
SUFFIX = ".gguf"
_TYPES_OF_PARTS = ("f16", "bf16", "f32")  # of a vision part, by preference


@dataclass(frozen=True, slots=True)
class NamedFile:
    """A model by the names of its file, or of its shards in their order."""

    paths: tuple[str, ...]  # in the repo or folder, with slashes
    name: str  # of the model: without the ending, and without the number of a shard
    quant: str  # "Q4_K_M"; the name where that does not end in one

    def is_quant(self, quant: str) -> bool:
        """Whether this is what is meant by `repo:quant`, in upper or lower case."""
        endings = tuple(f"{separator}{quant.lower()}" for separator in ("-._ " if is_quant(quant) else "-. "))
        return quant.lower() in {self.quant.lower(), self.name.lower(), *_folders(self.paths[0])} or (
            self.name.lower().endswith(endings)
        )


def is_quant(text: str) -> bool:
    """Whether this is the name of a quantization."""
    return _QUANT.fullmatch(text) is not None


def is_gguf(name: str) -> bool:
    """Whether a file is a GGUF file by its name."""
    return name.lower().endswith(SUFFIX)


def is_gguf_file(path: Path) -> bool:
    """Whether a file is a GGUF file, by its name or by how it begins. Raises OSError."""
    if is_gguf(path.name):
        return True
    with path.open("rb") as file:
        return file.read(4) == b"GGUF"


def models(paths: Iterable[str]) -> list[NamedFile]:
    """Give the models among files. What only goes with a model is none: its vision part, its importance matrix."""
    groups: dict[tuple[str, str], list[str]] = {}
    for path in sorted(paths):
        file = PurePosixPath(path)
        if is_gguf(file.name) and not _NO_MODELS.search(file.name):
            groups.setdefault((str(file.parent), model_name(file.name)), []).append(path)
    return [NamedFile(tuple(group), name, _quant(group[0], name)) for (_, name), group in groups.items()]


def of_file(path: PurePath) -> NamedFile:
    """Give the names of a file by itself."""
    name = model_name(path.name)
    return NamedFile((path.name,), name, _quant(str(path), name))


def in_folder(folder: Path) -> list[NamedFile]:
    """Give the models of a folder and of the folders in it. Raises OSError."""
    files = [path for path in folder.iterdir() if not path.name.startswith(".")]
    inner = [path for one in files if one.is_dir() for path in one.iterdir() if is_gguf(path.name)]
    return models(path.relative_to(folder).as_posix() for path in (*files, *inner) if is_gguf(path.name))


def vision_parts(paths: Iterable[str], model: str) -> list[str]:
    """Give the vision parts among files, first what is most likely a model's: by its file name, then by its type."""
    parts = [path for path in paths if is_gguf(path) and "mmproj" in PurePosixPath(path).name.lower()]
    return sorted(parts, key=lambda path: _unlikeness(PurePosixPath(path).name, model))


def _unlikeness(name: str, model: str) -> tuple[int, int, str]:
    """Order vision parts by how much of a model's name they have, then by their type."""
    lower = name.lower().removesuffix(SUFFIX)
    pairs = zip(lower.replace("mmproj", "").strip("-._"), model.lower(), strict=False)
    alike = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
    last = re.split(r"[-._ ]", lower)[-1]
    kind = _TYPES_OF_PARTS.index(last) if last in _TYPES_OF_PARTS else len(_TYPES_OF_PARTS)
    return -alike, kind, lower


def model_name(file_name: str) -> str:
    """Give the name of a file's model: "tiny-Q8_0" of "tiny-Q8_0.gguf" and of "tiny-Q8_0-00001-of-00003.gguf"."""
    stem = file_name[: -len(SUFFIX)] if is_gguf(file_name) else file_name
    shard = _SHARD.fullmatch(stem)
    return shard["name"] if shard else stem


def shards(file_name: str) -> tuple[str, ...]:
    """Give the file names of all shards of a model, in order, of which this is one; none if it is no shard."""
    stem, suffix = file_name[: -len(SUFFIX)], file_name[-len(SUFFIX) :]
    shard = _SHARD.fullmatch(stem) if is_gguf(file_name) else None
    if shard is None or not 1 <= int(shard["number"]) <= int(shard["count"]):
        return ()
    return tuple(
        f"{shard['name']}-{number:05}-of-{shard['count']}{suffix}" for number in range(1, int(shard["count"]) + 1)
    )


def choose(files: Iterable[NamedFile], quant: str | None, source: str) -> NamedFile:
    """Give the file of a quantization; without one, the only file. Raises LoadFailed, which lists those of `source`."""
    files = list(files)
    if not files:
        raise LoadFailed(f"{source} has no GGUF file with a model.")
    if quant is None:
        if len(files) == 1:
            return files[0]
        raise LoadFailed(f"{source} has several models: name one as {source}:{_preferred(files)}. {_list(files)}")
    matches = [file for file in files if file.is_quant(quant)]
    exact = [file for file in matches if file.quant.lower() == quant.lower()]
    if len(exact or matches) == 1:
        return (exact or matches)[0]
    if matches:
        names = ", ".join(file.name for file in exact or matches)
        raise LoadFailed(f"{source} has several models {quant[:80]}: name one of {names} after the colon.")
    raise LoadFailed(f"{source} has no {quant[:80]}. {_list(files)}")


def _preferred(files: list[NamedFile]) -> str:
    """Give the one that most people take where they have the choice."""
    return next((file.quant for file in files if file.is_quant("Q4_K_M")), files[0].quant)


def _list(files: list[NamedFile]) -> str:
    return f"It has {', '.join(dict.fromkeys(file.quant for file in files))}."


def _quant(path: str, name: str) -> str:
    if match := _QUANT.search(name):
        return match[1]
    folder = PurePosixPath(path).parent.name
    return folder if _QUANT.fullmatch(folder) else name


def _folders(path: str) -> set[str]:
    return {folder.lower() for folder in PurePosixPath(path).parts[:-1]}
