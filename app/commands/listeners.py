"""The sockets of a server: those that it binds itself, and those that were open before it."""

import ctypes
import errno
import os
import socket
import stat
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from app.addresses import socket_path, unix_address
from app.services import atomic
from app.settings import LAUNCHD, SettingError, Settings

_FIRST_FD = 3  # of systemd's
_ACTIVATED = "TILES_ACTIVATED"  # "ID=FD,FD" of the process to which launchd has given its sockets: it does that once


def open_listeners(settings: Settings) -> tuple[list[socket.socket], Settings]:
    """Give the sockets to listen on, and the settings with the addresses of those that were handed over.

    The settings are checked in between: a socket that systemd has opened may be reached by others, too. Raises
    SettingError.
    """
    handed_over = [_handed_over(number) for number in _descriptors(settings.fd)]
    if handed_over:
        settings = replace(settings, host=tuple(_address(listener) for listener in handed_over))
    settings.check()
    return handed_over or _bind_all(settings), settings


def port_of(listeners: Sequence[socket.socket], default: int) -> int:
    """Give the port that TCP listeners have, the default where there is none."""
    names = [listener.getsockname() for listener in listeners if listener.family != socket.AF_UNIX]
    return int(names[0][1]) if names else default


def remove_files(settings: Settings) -> None:
    """Remove the files of the unix sockets that were bound here; those handed over are for the next server, too."""
    for path in () if settings.fd or _systemds() else map(socket_path, settings.host):
        if path:
            path.unlink(missing_ok=True)


def _descriptors(texts: Sequence[str]) -> Iterator[int]:
    """Give the file descriptors of --fd, else those that systemd hands over."""
    for text in texts:
        if text.startswith(LAUNCHD):
            yield from _launchds(text.removeprefix(LAUNCHD))
        else:
            yield int(text)
    if not texts:
        yield from _systemds()


def _systemds() -> range:
    """sd_listen_fds(3): how many there are, and for which process."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return range(0)
    count = os.environ.get("LISTEN_FDS", "")
    return range(_FIRST_FD, _FIRST_FD + (int(count) if count.isdecimal() else 0))


def _launchds(name: str) -> list[int]:
    """launch_activate_socket(3). Not seen on a Mac yet."""
    process, _, numbers = os.environ.get(_ACTIVATED, "").partition("=")
    if process == str(os.getpid()):  # the watchdog has replaced the program that asked
        return [int(number) for number in numbers.split(",")]
    try:
        activate = ctypes.CDLL(None).launch_activate_socket
    except AttributeError:
        raise SettingError(f"--fd {LAUNCHD}{name}: this system has no launchd") from None
    descriptors, count = ctypes.POINTER(ctypes.c_int)(), ctypes.c_size_t()
    if code := activate(name.encode(), ctypes.byref(descriptors), ctypes.byref(count)):
        raise SettingError(f"--fd {LAUNCHD}{name}: launchd gives no such socket: {os.strerror(code)}")
    activated = list(descriptors[: count.value])
    os.environ[_ACTIVATED] = f"{os.getpid()}={','.join(map(str, activated))}"
    return activated


def _handed_over(number: int) -> socket.socket:
    """Take a socket by its descriptor, which stays open for a program that the watchdog starts in this one's place."""
    try:
        if not stat.S_ISSOCK(os.fstat(number).st_mode):
            raise SettingError(f"--fd {number} is no socket")
        listener = socket.socket(fileno=number)
        is_fit = listener.type == socket.SOCK_STREAM and _address(listener)
    except OSError as error:
        raise SettingError(f"--fd {number} cannot be used: {(error.strerror or str(error)).lower()}") from None
    if not is_fit:
        raise SettingError(f"--fd {number} is no socket to listen on: give one of TCP, or a unix socket with a path")
    listener.set_inheritable(True)
    return listener


def _address(listener: socket.socket) -> str:
    """Give the address of a socket; empty for one that has none, or of another kind."""
    name = listener.getsockname()
    if listener.family == socket.AF_UNIX:
        return unix_address(name) if isinstance(name, str) and name else ""
    return str(name[0]) if listener.family in {socket.AF_INET, socket.AF_INET6} else ""


def _bind_all(settings: Settings) -> list[socket.socket]:
    """Bind before anything slow is imported, so that a port in use is reported at once."""
    listeners: list[socket.socket] = []
    try:
        for host in settings.host:
            path = socket_path(host)
            port = port_of(listeners, settings.port)  # with --port 0, all take the one that the first has got
            listeners.append(_bind_path(path) if path else _bind(host, port, alone=len(settings.host) == 1))
    except BaseException:
        for listener in listeners:
            listener.close()
        raise
    return listeners


def _bind(host: str, port: int, *, alone: bool) -> socket.socket:
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if listener.family == socket.AF_INET6 and not alone:  # else :: takes the port from 0.0.0.0
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        reason = "the port is in use" if error.errno == errno.EADDRINUSE else error.strerror
        raise SettingError(f"cannot listen on {host}:{port}: {reason}") from None
    return listener


def _bind_path(path: Path) -> socket.socket:
    """Bind a unix socket for its owner alone, in the place of one that a killed server has left."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        atomic.private_folder(path.parent)
        if _is_left(path):
            path.unlink()
        mask = os.umask(0o177)
        try:
            listener.bind(str(path))
        finally:
            os.umask(mask)
    except OSError as error:
        listener.close()
        reason = "a server listens on it" if error.errno == errno.EADDRINUSE else error.strerror or str(error)
        raise SettingError(f"cannot listen on {unix_address(str(path))}: {reason.lower()}") from None
    return listener


def _is_left(path: Path) -> bool:
    """Whether there is a socket to which nobody listens any more. Raises OSError if there is something else."""
    if not path.exists():
        return False
    if not path.is_socket():
        raise OSError(errno.EEXIST, "there is a file that is no socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            return True
    return False
