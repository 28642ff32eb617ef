"""The checks of the machine by `tiles-server doctor`: each is a function from a CheckContext to a Check."""

import os
import platform
import shutil
import socket
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Literal

from rich.filesize import decimal

from app.addresses import socket_path
from app.commands.server_client import ServerClient, ServerFailure, base_url
from app.services import session
from app.services.downloads.transfer import free_bytes, nearest
from app.services.hub import hugging_face_cache
from app.services.model_folder import ModelFolder
from app.settings import Settings

OLDEST_GLIBC = (2, 35)
OLDEST_MLX_LM = (0, 32, 2)
PACKAGES = ("mlx", "mlx-lm", "transformers", "tokenizers", "huggingface-hub", "litestar", "uvicorn")
SCARCE_DISK = 5 * 10**9  # bytes


@dataclass(frozen=True, slots=True)
class Check:
    """The result of a check, with advice if it is not ok."""

    name: str
    state: Literal["ok", "warning", "failed"]
    detail: str
    advice: str = ""


@dataclass(frozen=True, slots=True)
class CheckContext:
    """What checks look at: the settings and the model they name, with the reason if it cannot be loaded."""

    settings: Settings
    model: ModelFolder | None = None
    problem: str | None = None


def python(_: CheckContext) -> Check:
    """Check the version of Python."""
    good = (3, 11) <= sys.version_info[:2] < (3, 14)
    advice = "" if good else "Use Python 3.11, 3.12 or 3.13."
    return Check("Python", "ok" if good else "failed", platform.python_version(), advice)


def packages(_: CheckContext) -> Check:
    """Check that the main packages are installed, and the version of mlx-lm."""
    versions = {name: _version(name) for name in PACKAGES}
    detail = ", ".join(f"{name} {number or 'missing'}" for name, number in versions.items())
    good = all(versions.values()) and _numbers(versions["mlx-lm"] or "") >= OLDEST_MLX_LM
    advice = "" if good else "Install tiles-server again: it installs all of them, with mlx-lm 0.32.2 or newer."
    return Check("Packages", "ok" if good else "failed", detail, advice)


def system(_: CheckContext) -> Check:
    """Check that MLX has wheels for this system."""
    detail = f"{platform.system()} {platform.release()} on {platform.machine()}"
    if sys.platform == "darwin":
        good = platform.machine() == "arm64"
        return Check("System", "ok" if good else "failed", detail, "" if good else "MLX needs Apple silicon.")
    library, number = platform.libc_ver()
    good = library == "glibc" and _numbers(number) >= OLDEST_GLIBC
    advice = "" if good else "MLX's wheels need glibc 2.35: Debian 12, Ubuntu 22.04 or newer."
    return Check("System", "ok" if good else "failed", f"{detail}, {library or 'libc'} {number or 'unknown'}", advice)


def mlx(_: CheckContext) -> Check:
    """Check that MLX starts, and on which device."""
    back_end, problem = _back_end()
    if problem:
        return Check("MLX", "failed", f"does not start: {problem}", "Install tiles-server again.")
    if back_end == "cpu" and shutil.which("nvidia-smi"):
        advice = "pip install 'tiles-server[cuda]'"
        return Check("MLX", "warning", "computes on the CPU, but there seems to be an NVIDIA GPU", advice)
    return Check("MLX", "ok", f"computes on {back_end}")


def blas(context: CheckContext) -> Check | None:
    """Check for a fast BLAS, where MLX computes on a Linux CPU."""
    from app.services.engine.model import row_products
    from app.services.engine.model.blas import ADVICE, REFERENCE, preload

    if not _is_linux_cpu():
        return None
    library = preload(context.settings.blas)
    if library != REFERENCE and not row_products.is_compiled():
        detail = f"{library}, without the products of few rows in C: single answers take about twice as long"
        return Check("BLAS", "warning", detail, "apt-get install gcc, then install the server again.")
    if library != REFERENCE:
        return Check("BLAS", "ok", str(library))
    detail = "MLX's own (reference): prompts are computed about 20 times slower"
    advice = ADVICE if context.settings.blas != "none" else "Leave away --blas none."
    return Check("BLAS", "warning", detail, advice)


def compiler(_: CheckContext) -> Check | None:
    """Check for g++, which MLX calls on a Linux CPU."""
    if not _is_linux_cpu():
        return None
    if path := shutil.which("g++"):
        return Check("Compiler", "ok", path)
    return Check("Compiler", "warning", "no g++: MLX cannot compile kernels and may be slower", "apt-get install g++")


def memory(context: CheckContext) -> Check:
    """Check for memory for the model, with a quarter more for KV caches."""
    import psutil

    from app.services import free_memory

    machine = psutil.virtual_memory()
    detail = f"{decimal(machine.available)} free of {decimal(machine.total)}"
    if context.model is None:
        return Check("Memory", "ok", detail)
    needed = free_memory.weight_bytes(context.model, "cpu" if _is_linux_cpu() else "gpu") * 5 // 4
    if needed > machine.available:  # then weights stay as they are in the files, also on the CPU
        needed = context.model.weight_bytes * 5 // 4
    detail += f", {context.model.id} needs about {decimal(needed)}"
    if needed > machine.total:
        return Check("Memory", "failed", detail, "Use a smaller model, or one of fewer bits.")
    if needed > machine.available:
        return Check("Memory", "warning", detail, "Close other programs, or use a smaller model.")
    return Check("Memory", "ok", detail)


def disk(context: CheckContext) -> Check:
    """Check for free disk space in the data folder and in the Hugging Face cache."""
    free = {folder: free_bytes(folder) for folder in (context.settings.data_dir, hugging_face_cache())}
    detail = ", ".join(f"{decimal(size)} free for {folder}" for folder, size in free.items())
    if min(free.values()) < SCARCE_DISK:
        return Check("Disk", "warning", detail, f"Free some disk space: a model takes {decimal(SCARCE_DISK)} and more.")
    return Check("Disk", "ok", detail)


def port(context: CheckContext) -> Check:
    """Check that the addresses are free, or used by a Tiles server."""
    settings = context.settings
    tcp = [host for host in settings.host if not socket_path(host)]
    problems = {f"{host}:{settings.port}": _bind_problem(host, settings.port) for host in tcp}
    address, problem = next((one for one in problems.items() if one[1]), (", ".join(settings.host), None))
    if _is_tiles(settings):
        return Check("Port", "ok", f"a Tiles server runs on {base_url(settings)}")
    if problem is None:
        return Check("Port", "ok", f"{', '.join(problems) or address} is free")
    return Check("Port", "failed", f"{address}: {problem}", "Stop the program that uses it, or choose another --port.")


def data_folder(context: CheckContext) -> Check:
    """Check that the data folder can be written, and be read by its owner only."""
    folder = context.settings.data_dir
    there = nearest(folder)
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        return Check("Data folder", "failed", f"{there} cannot be written", "Choose another --data-dir.")
    if there != folder:
        return Check("Data folder", "ok", f"{folder} will be created")
    if folder.stat().st_mode & 0o077:
        return Check("Data folder", "warning", f"{folder} is readable by others", f"chmod 700 {folder}")
    return Check("Data folder", "ok", str(folder))


def session_file(context: CheckContext) -> Check:
    """Check that the session file can be read and written."""
    path = context.settings.session_file
    if context.settings.skip_session_persist:
        return Check("Session", "ok", "not saved (TILES_SKIP_SESSION_PERSIST)")
    if not os.access(nearest(path.parent), os.W_OK):
        return Check("Session", "warning", f"{path} cannot be written", "Set TILES_SESSION_FILE to another path.")
    try:
        return Check("Session", "ok", f"{session.parse(path.read_bytes()).model} in {path}")
    except FileNotFoundError:
        return Check("Session", "ok", "none yet")
    except (OSError, ValueError, RecursionError) as error:
        advice = "It is ignored, and overwritten by the next load; delete it if nothing else uses it."
        return Check("Session", "warning", f"{path} is no session: {error}", advice)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".") if part.isdigit())


@cache
def _back_end() -> tuple[str, str | None]:
    """Where MLX computes (cpu, metal or cuda), or why it does not start."""
    # In a process of its own, because an MLX that does not fit the machine may abort.
    question = "import mlx.core as m; print(m.default_device() == m.Device(m.cpu), m.metal.is_available())"
    try:
        answer = subprocess.run([sys.executable, "-c", question], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        return "", str(error)
    if answer.returncode:
        return "", next(iter(reversed(answer.stderr.splitlines())), f"exit code {answer.returncode}")
    return {"True": "cpu"}.get(answer.stdout.split()[0], "metal" if "True" in answer.stdout else "cuda"), None


def _is_linux_cpu() -> bool:
    return sys.platform == "linux" and _back_end()[0] == "cpu"


def _bind_problem(host: str, port: int) -> str | None:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        return (error.strerror or str(error)).lower()
    return None


def _is_tiles(settings: Settings) -> bool:
    try:
        health = ServerClient.of(settings).get_health(timeout=2)
    except ServerFailure:
        return False
    return isinstance(health, dict) and health.get("tiles") is True
