"""What was used, by day, model, client and key: counted as requests end, and written behind them."""

import asyncio
import re
import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import date
from pathlib import Path

import structlog

from app.services.errors import FeatureDisabled
from app.services.usage_file import Row, Usage, UsageFile

log = structlog.get_logger()

OTHERS = "others"  # stands for clients beyond the first ones of a day
_SECONDS = 10.0  # after which numbers are written
_MOST_CLIENTS = 64  # of a day: a client names itself
_PRODUCT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,39}")


def client_name(user_agent: str) -> str:
    """Give the product of a User-Agent, without its version; of browsers, which all say the same, that it is one."""
    match = _PRODUCT.match(user_agent)
    if match is None:
        return "unknown"
    return "browser" if match[0] == "Mozilla" else match[0]


class UsageLedger:
    """Counts in memory and writes now and then, on a thread. On the event loop."""

    def __init__(self, folder: Path, *, enabled: bool) -> None:
        self.enabled = enabled
        self._file = UsageFile(folder)
        self._rows: dict[Row, Usage] = {}  # that are not written yet
        self._clients: tuple[date, set[str]] = date.min, set()  # of which day
        self._timer: asyncio.TimerHandle | None = None
        self._writing: asyncio.Task[None] | None = None
        self._lock = asyncio.Lock()
        self._failed = False  # whether the last try to write did

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Write what is left at the end."""
        try:
            yield
        finally:
            if self._timer is not None:
                self._timer.cancel()
            await self._write()

    def count(self, model: str, client: str, key: str, usage: Usage) -> None:
        """Count a request, or what more has come of one. Never waits for the disk."""
        if not self.enabled:
            return
        row = date.today().isoformat(), model, self._bounded(client), key
        self._rows.setdefault(row, Usage()).add(usage)
        self._write_later()

    async def read(self, start: date, end: date, groups: Sequence[str]) -> list[tuple[tuple[str, ...], Usage]]:
        """Give the sums of some days as `UsageFile.read` does, with what is not written yet. Raises FeatureDisabled."""
        if not self.enabled:
            raise FeatureDisabled("This server counts nothing: it was started with --usage off")
        await self._write()
        return await asyncio.to_thread(self._file.read, start, end, groups)

    def _bounded(self, client: str) -> str:
        today = date.today()
        if self._clients[0] != today:
            self._clients = today, set()
        if len(self._clients[1]) < _MOST_CLIENTS:
            self._clients[1].add(client)
        return client if client in self._clients[1] else OTHERS

    def _write_later(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_SECONDS, self._begin_write)

    def _begin_write(self) -> None:
        self._timer = None
        self._writing = asyncio.create_task(self._write())

    async def _write(self) -> None:
        """Write what was counted; what cannot be written is tried again with what comes later."""
        async with self._lock:
            rows, self._rows = self._rows, {}
            if not rows:
                return
            try:
                await asyncio.to_thread(self._file.add, list(rows.items()))
                self._failed = False
            except (OSError, sqlite3.Error) as error:
                if not self._failed:
                    log.warning("usage not written", reason=str(error))
                self._failed = True
                for row, usage in rows.items():
                    self._rows.setdefault(row, Usage()).add(usage)
