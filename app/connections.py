"""The open connections of a server: how many there may be, and which is closed when there are more."""

import resource
import time
from typing import Protocol

import structlog

log = structlog.get_logger()

_MAX_CONNECTIONS = 1024
_MAX_FILES = 4096  # open files to ask the system for; connections may take half of what it grants
_QUIET_SECONDS = 60.0  # between two lines about connections that were closed


class Connection(Protocol):
    """A connection that can be closed."""

    def close(self) -> None:
        """Close it."""


class Connections:
    """The idle connections, on which no request runs; the one that has been idle for longest comes first."""

    def __init__(self) -> None:
        self._idle: dict[Connection, None] = {}
        self._closed = 0  # since the last log line about it
        self._logged = -_QUIET_SECONDS

    def mark_idle(self, connection: Connection) -> None:
        """Note that no request runs on a connection, as of now."""
        self._idle.pop(connection, None)
        self._idle[connection] = None

    def mark_busy(self, connection: Connection) -> None:
        """Note that a request runs on a connection, or that it is closed."""
        self._idle.pop(connection, None)

    def close_longest_idle(self, newcomer: Connection) -> bool:
        """Close the one that has been idle for longest, but not the newcomer. False if all others are busy."""
        longest_idle = next((connection for connection in self._idle if connection is not newcomer), None)
        if longest_idle is None:
            return False
        self.mark_busy(longest_idle)
        longest_idle.close()
        self._log()
        return True

    def _log(self) -> None:
        self._closed += 1
        now = time.monotonic()
        if now - self._logged >= _QUIET_SECONDS:
            log.warning("too many connections: idle ones are closed", closed=self._closed, most=max_connections())
            self._closed, self._logged = 0, now


def max_connections() -> int:
    """Give the maximum number of open connections: at most half of the files that this process may open."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _MAX_CONNECTIONS if soft == resource.RLIM_INFINITY else max(1, min(_MAX_CONNECTIONS, soft // 2))


def raise_limit() -> None:
    """Let this process open more files, where the system allows that."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = _MAX_FILES if hard == resource.RLIM_INFINITY else min(_MAX_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < limit:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
