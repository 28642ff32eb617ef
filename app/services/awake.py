"""Keeps the machine from falling asleep while something is computed; never the display, and never against its user."""

import asyncio
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress

import structlog

from app.services.active_generations import ActiveGenerations

log = structlog.get_logger()

# Each ends when its standard input does, and so with this process, however that ends. Only idle sleep is put off: a lid
# that is closed, or a user who sends the machine to sleep, is obeyed.
_COMMANDS = {
    "darwin": ("caffeinate", "-i", "cat"),
    "linux": (
        *("systemd-inhibit", "--what=idle", "--mode=block", "--who=Tiles Server"),
        *("--why=An answer is being computed", "cat"),
    ),
}


def command() -> Sequence[str] | None:
    """Give the program of this system that keeps it awake, None where there is none."""
    words = _COMMANDS.get(sys.platform)
    return words if words and shutil.which(words[0]) else None


class Awake:
    """Runs that program while there is work. On the event loop; processes are started and ended on a thread."""

    def __init__(
        self, active: ActiveGenerations, command: Sequence[str] | None, *, patience: float = 2.0, linger: float = 10.0
    ) -> None:
        self._active = active
        self._command = command
        self._patience = patience  # seconds of work before it is worth a process
        self._linger = linger  # seconds for the next request to come

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Watch for work."""
        task = asyncio.create_task(self._watch(self._command)) if self._command else None
        try:
            yield
        finally:
            if task is not None:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task

    async def _watch(self, command: Sequence[str]) -> None:
        works = True
        while works:
            await self._active.not_empty.wait()
            await asyncio.sleep(self._patience)
            if self._active:
                works = await self._hold(command)

    async def _hold(self, command: Sequence[str]) -> bool:
        """Run the program until there is no work. False if it cannot be run, or failed."""
        starting = asyncio.ensure_future(asyncio.to_thread(_start, command))
        try:
            process = await asyncio.shield(starting)
            # A short pause between requests is work, too.
            while process is not None and self._active and process.poll() is None:  # noqa: ASYNC110
                await asyncio.sleep(self._linger)
        finally:
            process = await starting  # also where the server ends in this very moment
            if process is not None:
                await asyncio.to_thread(_end, process)
        if process is None or (process.returncode or 0) > 0:
            log.info("the machine is not kept awake", program=command[0], code=process and process.returncode)
            return False
        return True


def _start(command: Sequence[str]) -> subprocess.Popen[bytes] | None:
    quiet = subprocess.DEVNULL
    try:
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=quiet, stderr=quiet, start_new_session=True)
    except OSError:
        return None


def _end(process: subprocess.Popen[bytes]) -> None:
    """Close its input, which ends it; it is waited for a moment only, since it ends by itself."""
    assert process.stdin is not None
    process.stdin.close()
    with suppress(subprocess.TimeoutExpired):
        process.wait(1)
