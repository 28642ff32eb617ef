"""The file that numbers of use stay in: SQLite, which several servers may write at the same time."""

import fcntl
import os
import sqlite3
import time
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import astuple, dataclass, fields
from datetime import date, timedelta
from pathlib import Path

import structlog

from app.services import atomic

log = structlog.get_logger()

NAME = "usage.sqlite3"  # in the data folder
DAYS = 90  # after which numbers are deleted
GROUPS = ("day", "model", "client", "key")
_VERSION = 1  # of the table
_WAIT = 5.0  # seconds for another server to finish writing


@dataclass(slots=True)
class Usage:
    """What was used, summed over requests."""

    requests: int = 0
    refusals: int = 0  # of these, those that were refused or failed
    prompt_tokens: int = 0  # cached ones too
    cached_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0

    def add(self, other: "Usage") -> None:
        """Add other numbers to these."""
        for field in fields(self):
            setattr(self, field.name, getattr(self, field.name) + getattr(other, field.name))


Row = tuple[str, str, str, str]  # a value for each of GROUPS; a day as 2026-11-29
_NUMBERS = tuple(field.name for field in fields(Usage))
_TABLE = (
    f"CREATE TABLE IF NOT EXISTS usage ({', '.join(f'{name} TEXT NOT NULL' for name in GROUPS)}, "
    f"{', '.join(f'{name} NUMERIC NOT NULL' for name in _NUMBERS)}, PRIMARY KEY ({', '.join(GROUPS)})) WITHOUT ROWID"
)
_ADD = (
    f"INSERT INTO usage VALUES ({', '.join('?' * (len(GROUPS) + len(_NUMBERS)))}) ON CONFLICT DO UPDATE SET "
    f"{', '.join(f'{name} = {name} + excluded.{name}' for name in _NUMBERS)}"
)


class UsageFile:
    """Reads and writes the file, opening it each time. What cannot be read is put aside, and a new one begun.

    Its methods touch the disk and may be called from any thread. They raise OSError or sqlite3.OperationalError where
    the file cannot be used for now: it is locked, say, or the disk is full.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / NAME

    def add(self, rows: Iterable[tuple[Row, Usage]]) -> None:
        """Add numbers in one transaction, and delete those that are too old."""
        values = [(*row, *astuple(usage)) for row, usage in rows]
        try:
            self._add(values)
        except sqlite3.DatabaseError as error:
            if not _is_broken(error):
                raise
            self._put_aside()
            self._add(values)

    def read(self, start: date, end: date, groups: Sequence[str]) -> list[tuple[tuple[str, ...], Usage]]:
        """Give the sums of the days from `start` to `end`, for each value of the groups, in their order."""
        if not self.path.exists():
            return []
        try:
            return self._read(start, end, groups)
        except sqlite3.DatabaseError as error:
            if not _is_broken(error):
                raise
            self._put_aside()
            return []

    def _open(self) -> sqlite3.Connection:
        atomic.private_folder(self.path.parent)
        os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))
        return sqlite3.connect(self.path, timeout=_WAIT, isolation_level=None)

    def _add(self, values: list[tuple[str | float, ...]]) -> None:
        oldest = date.today() - timedelta(days=DAYS - 1)
        with closing(self._open()) as connection:
            connection.execute("BEGIN IMMEDIATE")
            _check(connection)
            connection.execute(_TABLE)
            connection.execute(f"PRAGMA user_version = {_VERSION}")
            connection.executemany(_ADD, values)
            connection.execute("DELETE FROM usage WHERE day < ?", [oldest.isoformat()])
            connection.execute("COMMIT")

    def _read(self, start: date, end: date, groups: Sequence[str]) -> list[tuple[tuple[str, ...], Usage]]:
        names = [name for name in GROUPS if name in groups]  # nothing else comes into the statement
        sums = ", ".join(f"SUM({name})" for name in _NUMBERS)
        grouping = f" GROUP BY {', '.join(names)} ORDER BY {', '.join(names)}" if names else ""
        query = f"SELECT {', '.join([*names, sums])} FROM usage WHERE day BETWEEN ? AND ?{grouping}"
        with closing(self._open()) as connection:
            _check(connection)
            connection.execute(_TABLE)
            rows = connection.execute(query, [start.isoformat(), end.isoformat()]).fetchall()
        count = len(names)
        return [(tuple(map(str, row[:count])), Usage(*row[count:])) for row in rows if row[count] is not None]

    def _put_aside(self) -> None:
        """Rename a broken file, unless another server has done so while this one waited."""
        with (self.path.parent / f"{NAME}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            try:
                self._read(date.today(), date.today(), GROUPS)
            except sqlite3.DatabaseError as error:
                if not _is_broken(error):
                    raise
                broken = self.path.with_name(f"usage-broken-{time.strftime('%Y%m%d-%H%M%S')}.sqlite3")
                self.path.replace(broken)
                for suffix in ("-journal", "-wal", "-shm"):  # they belong to the broken one
                    self.path.with_name(NAME + suffix).unlink(missing_ok=True)
                log.warning("usage file broken, a new one is begun", reason=str(error), kept_as=str(broken))


def _check(connection: sqlite3.Connection) -> None:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version not in {0, _VERSION}:
        raise sqlite3.DatabaseError(f"its table is of version {version}, not {_VERSION}")


def _is_broken(error: sqlite3.DatabaseError) -> bool:
    """Whether the file is no database, or has another table; else it only cannot be used for now."""
    return not isinstance(error, sqlite3.OperationalError) or error.sqlite_errorcode == sqlite3.SQLITE_ERROR
