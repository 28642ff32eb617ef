"""How the server's process exits, and how it replaces itself with a new one."""

import os
import signal
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:  # a signal may come before it is imported
    import asyncio

SIGNALS = (signal.SIGINT, signal.SIGTERM)
_LAST_SECONDS = 1.0  # in which streams can send their errors
_WATCHDOG_FACTOR = 2.0  # how many times longer than before a successor waits for a step


def end(code: int = 0) -> NoReturn:
    """End the process without the interpreter's own shutdown.

    A thread on which MLX was used calls the interpreter when it ends. If that is ending too, the thread is taken apart
    within C++ and aborts the process; an import of MLX that is under way does the same. So nothing of that is waited
    for. What is not done thereby: `atexit` functions, destructors, the joining of threads. All that has to last is
    written by then (docs/engine.md, "Shutdown").
    """
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()
    os._exit(code)


def end_at_once(*_: object) -> NoReturn:
    """End the process in a signal handler: whatever is held or blocked, nothing is waited for."""
    os._exit(0)


def end_on_signals() -> None:
    """Exit at once on SIGINT or SIGTERM, with code 0, until other handlers are set.

    A signal that came while the process was being replaced is delivered now.
    """
    for number in SIGNALS:
        signal.signal(number, end_at_once)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def end_within(seconds: float) -> None:
    """End the process after so many seconds, whatever it is doing then."""
    signal.signal(signal.SIGALRM, end_at_once)
    signal.setitimer(signal.ITIMER_REAL, seconds)


class Successor:
    """A new process with this one's id and command, in its place: a thread that hangs cannot be ended.

    It waits longer than this one before it calls a step hanging, so that a machine which is only slow gets through.
    """

    def __init__(self, port: int, watchdog_seconds: float) -> None:
        self._port = port
        self._watchdog_seconds = watchdog_seconds
        self._due: asyncio.TimerHandle | None = None
        self._is_called_off = False

    def come(self, *, is_slow: bool = True) -> None:
        """Start soon, once the streams have sent their errors. On the event loop.

        `is_slow`: a step took too long, so the new process waits longer for one.
        """
        import asyncio

        if self._due is None and not self._is_called_off:
            factor = _WATCHDOG_FACTOR if is_slow else 1.0
            self._due = asyncio.get_running_loop().call_later(_LAST_SECONDS, self._take_over, factor)

    def call_off(self) -> None:
        """Start none: the process is to end."""
        self._is_called_off = True
        if self._due is not None:
            self._due.cancel()

    def _take_over(self, factor: float) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # one that comes from now on is for the successor
        if not self._is_called_off:
            command = _command(sys.orig_argv[1:], self._port, self._watchdog_seconds * factor)
            os.execv(sys.executable, [sys.executable, *command])


def _command(command: list[str], port: int, watchdog_seconds: float) -> list[str]:
    """Give the same command, on the port that the process listens on, and with a longer watchdog time."""
    flags = ["--port", str(port), "--watchdog-seconds", f"{min(86_400.0, watchdog_seconds):g}"]
    was_replaced = command[-4::2] == flags[::2]
    return [*(command[:-4] if was_replaced else command), *flags]
