"""Which files of a repo make a model, and how much of them is on the disk already."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath

from app.services import hub
from app.services.errors import DownloadFailed, InvalidRequest, LoadFailed
from app.services.gguf.names import choose, is_gguf, models, vision_parts
from app.services.safetensors import WEIGHTS

# What mlx-lm downloads, without Python files: no code of a repo is ever run.
_TEXTS = ["*.json", "*.txt", "*.jsonl", "*.jinja", "README.md"]  # the README tells a reranker
_LICENSES = ["LICENSE*", "LICENCE*", "COPYING*"]
PATTERNS = [
    *_TEXTS,
    *_LICENSES,
    WEIGHTS,
    "*_Dense/model.safetensors",
    "tokenizer.model",
    "*.tiktoken",
    "tiktoken.model",
]
_LARGEST = 50 * 10**9  # bytes of a file that the hub gives over HTTPS
_HASH = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")  # of git, and of LFS


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file of a repo."""

    path: str  # in the repo, with slashes
    size: int  # bytes
    blob: str  # hash of its content: SHA-256 of one in LFS, else git's


@dataclass(frozen=True, slots=True)
class Plan:
    """The files of a model, of one commit."""

    model: str  # id that the model will have: org/name, or org/name:Q4_K_M
    repo: str
    commit: str
    files: tuple[RemoteFile, ...]

    def entry(self, cache: Path) -> Path:
        """Folder of the repo in a hub folder."""
        return cache / hub.entry_name(self.repo)

    def snapshot(self, cache: Path) -> Path:
        """Folder of the model in a hub folder."""
        return self.entry(cache) / "snapshots" / self.commit

    def present(self, cache: Path) -> dict[str, int]:
        """Count the bytes of each file that are on the disk, by its path; those of a file under way too."""
        blobs = self.entry(cache) / "blobs"
        return {file.path: min(file.size, _size(blobs / file.blob)) for file in self.files}

    def forget(self, cache: Path) -> None:
        """Remove what there is of files that are not whole."""
        for file in self.files:
            partial(self.entry(cache) / "blobs" / file.blob).unlink(missing_ok=True)

    @property
    def total(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)


def partial(blob: Path) -> Path:
    """Give the name of a file while it is fetched."""
    return blob.with_name(f"{blob.name}.incomplete")


def split(name: str) -> tuple[str, str | None]:
    """Read a model's name, or its address on the hub: the repo, and the quantization of a GGUF file.

    Raises InvalidRequest.
    """
    text = name.strip().removeprefix("https://huggingface.co/").strip("/")
    repo, quant = hub.split(text)
    if repo is None or any(part in {"", ".", ".."} or "--" in part for part in repo.split("/")):
        why = f"'{text[:200]}' is no repo id: give org/name, or org/name:QUANT for a GGUF file."
        raise InvalidRequest(why, param="model")
    return repo, quant


def make(repo: str, quant: str | None, commit: str, files: Iterable[RemoteFile]) -> Plan:
    """Choose the files of an MLX model, or of one GGUF file with its vision part. Raises InvalidRequest without one."""
    by_path = {file.path: file for file in files}
    try:
        paths, model = _choose(repo, quant, by_path)
    except LoadFailed as error:
        raise InvalidRequest(error.message, param="model") from error
    plan = Plan(model, repo, commit, tuple(by_path[path] for path in paths))
    _check(plan)
    return plan


def _choose(repo: str, quant: str | None, paths: Iterable[str]) -> tuple[list[str], str]:
    names = sorted(paths)
    is_mlx = "config.json" in names and any(fnmatch(name, WEIGHTS) for name in names)
    if is_mlx and quant is None:
        return [name for name in names if any(fnmatch(name, pattern) for pattern in PATTERNS)], repo
    if quant is None and not any(map(is_gguf, names)):
        raise LoadFailed(f"{repo} has no MLX model: config.json and {WEIGHTS} are needed, or a GGUF file.")
    file = choose(models(names), quant, repo)
    part = vision_parts(names, PurePosixPath(file.paths[0]).name)[:1]  # with which the model sees
    return [*file.paths, *part], f"{repo}:{file.quant}"


def _check(plan: Plan) -> None:
    """Raise DownloadFailed for what would be written elsewhere, or could not be checked: a hub may be anybody's."""
    if not _HASH.fullmatch(plan.commit):
        raise DownloadFailed(f"The hub names no commit of {plan.repo}")
    for file in plan.files:
        path = PurePosixPath(file.path)
        if path.is_absolute() or ".." in path.parts or "\\" in file.path or "\0" in file.path:
            raise DownloadFailed(f"{plan.repo} has a file whose name leads out of its folder: {file.path[:200]!a}")
        if file.size > _LARGEST:
            why = "a file of more than 50 GB, which comes by Xet only"
            raise DownloadFailed(f"{plan.repo} has {why}: `hf download {plan.repo}` fetches it")
        if not _HASH.fullmatch(file.blob) or file.size < 0:
            raise DownloadFailed(f"The hub gives no size or checksum of {file.path[:200]!a} in {plan.repo}")


def _size(blob: Path) -> int:
    for path in (blob, partial(blob)):
        try:
            return path.stat().st_size
        except OSError:
            continue
    return 0
