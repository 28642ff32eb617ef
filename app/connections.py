"""The open connections of a server: how many there may be, and who goes when there are more."""

import resource
import time
from typing import Protocol

import structlog

log = structlog.get_logger()

_MOST = 1024
_FILES = 4096  # open files that the server wants to have; connections may take half of what it gets
_QUIET_SECONDS = 60.0  # between two lines about connections that were closed


class Connection(Protocol):
    """What can be closed."""

    def close(self) -> None:
        """Hang up."""


class Connections:
    """Those on which nothing is under way, the one that has been still for longest first."""

    def __init__(self) -> None:
        self._idle: dict[Connection, None] = {}
        self._closed = 0  # since the last line about it
        self._logged = -_QUIET_SECONDS

    def rest(self, connection: Connection) -> None:
        """Note that nothing is under way on a connection, and that it was heard of now."""
        self._idle.pop(connection, None)
        self._idle[connection] = None

    def work(self, connection: Connection) -> None:
        """Note that a request is under way on it, or that it is closed."""
        self._idle.pop(connection, None)

    def make_room(self, newcomer: Connection) -> bool:
        """Close the idle one that has been still for longest, but not the newcomer. False if all others are at work."""
        stillest = next((connection for connection in self._idle if connection is not newcomer), None)
        if stillest is None:
            return False
        self.work(stillest)
        stillest.close()
        self._log()
        return True

    def _log(self) -> None:
        self._closed += 1
        now = time.monotonic()
        if now - self._logged >= _QUIET_SECONDS:
            log.warning("too many connections: idle ones are closed", closed=self._closed, most=most())
            self._closed, self._logged = 0, now


def most() -> int:
    """How many connections may be open: no more than half of the files that this process may open."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _MOST if soft == resource.RLIM_INFINITY else max(1, min(_MOST, soft // 2))


def raise_limit() -> None:
    """Let this process open as many files as it may want, where the system allows that."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = _FILES if hard == resource.RLIM_INFINITY else min(_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < limit:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
