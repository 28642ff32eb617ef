"""What SIGHUP means: the terminal is gone, or the configuration file is to be read again."""

import asyncio
import os
import signal
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

import structlog

from app.settings import SettingError, Settings, read

log = structlog.get_logger()


class Hangup:
    """Follows SIGHUP. On the event loop."""

    def __init__(self, settings: Settings, flags: Mapping[str, Any]) -> None:
        self._settings = settings
        self._flags = flags
        # Without a terminal, or under nohup, nobody ends the server by closing one.
        self._ends_with_terminal = _has_terminal() and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN
        self._task: asyncio.Task[None] | None = None

    def follow(self, end: Callable[[], None]) -> None:
        """Begin to listen. `end` ends the server."""
        self._end = end
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._hang_up)

    def _hang_up(self) -> None:
        if self._ends_with_terminal and not _has_terminal():
            self._end()
        else:
            self._task = asyncio.create_task(self._read_again())

    async def _read_again(self) -> None:
        """Take over the tables of models; what else is different counts from the next start."""
        try:
            settings = await asyncio.to_thread(read, self._flags)
        except SettingError as error:
            log.warning("configuration not read again", reason=str(error))
            return
        self._settings.presets.tables = settings.presets.tables
        log.info("configuration read again", after_restart=_differences(self._settings, settings))


def _differences(old: Settings, new: Settings) -> list[str]:
    return [item.name for item in fields(old) if getattr(old, item.name) != getattr(new, item.name)]


def _has_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True
