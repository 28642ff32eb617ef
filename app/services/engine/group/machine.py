"""What there is to know of a machine before it takes part in a group: versions, files, device, memory."""

import hashlib
import socket
from collections.abc import Sequence
from contextlib import closing
from importlib.metadata import version
from pathlib import Path

import mlx.core as mx

from app import __version__
from app.services.engine.group.messages import Hello
from app.services.engine.model import loading
from app.services.engine.model.memory_budget import MemoryBudget

_CONTENT = ("config.json", "model.safetensors.index.json")  # what is compared whole
_LARGEST_HEADER = 100_000_000  # bytes


def describe(rank: int, folder: Path, addresses: Sequence[str], back_end: str) -> Hello:
    """Describe this machine for the leader."""
    problem, files = problem_with(folder, addresses, back_end), ""
    if problem is None:
        files = checksum(folder)
    return Hello(rank, versions(), files, device_name(), MemoryBudget().free(), problem)


def versions() -> dict[str, str]:
    """Give the versions that have to be the same everywhere."""
    return {"tiles-server": __version__, "mlx": version("mlx"), "mlx-lm": version("mlx-lm")}


def device_name() -> str:
    """Name what this machine computes with."""
    facts = loading.device()
    return facts.name if facts is not None else loading.back_end()


def problem_with(folder: Path, addresses: Sequence[str], back_end: str) -> str | None:
    """Say why this machine cannot take part, None if it can: it lacks the model, an address, or what connects them."""
    if not mx.distributed.is_available(back_end.removesuffix("-ring")):
        return f"MLX has no {back_end} there"
    if not (folder / "config.json").is_file():
        return f"{folder} is no model there: mlx_lm.share copies it"
    for address in addresses:
        host, _, port = address.rpartition(":")
        try:
            with closing(socket.socket()) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((host, int(port)))
        except OSError as error:
            return f"cannot listen on {address}: {(error.strerror or 'why?').lower()}"
    return None


def checksum(folder: Path) -> str:
    """Hash what tells one model from another, without reading its weights: their headers, names and sizes."""
    digest = hashlib.blake2b(digest_size=16)
    for path in sorted([*(folder / name for name in _CONTENT), *folder.glob("*.safetensors")]):
        if not path.is_file():
            continue
        digest.update(f"{path.name} {path.stat().st_size}\n".encode())
        with path.open("rb") as file:
            if path.name in _CONTENT:
                digest.update(file.read())
            else:
                length = int.from_bytes(file.read(8), "little")
                digest.update(file.read(min(length, _LARGEST_HEADER)))
    return digest.hexdigest()


def free_port(host: str) -> int:
    """Give a port of this machine that nobody listens on."""
    with closing(socket.socket()) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])
