"""Standard error as a place for log lines: one that never holds up the server."""

import os
import stat
import sys
from contextlib import suppress
from select import PIPE_BUF, select


def open_closed_streams() -> None:
    """Open those of the three standard streams that are closed, onto nothing.

    Else the next file or socket would take the place of one, and have written to it what was meant for people.
    """
    for descriptor, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # it takes the lowest number that is free
        if getattr(sys, name) is None:
            setattr(sys, name, open(descriptor, mode, closefd=False))  # noqa: SIM115


class StandardError:
    """Whatever standard error is now: a progress bar puts itself before it, so that lines appear above the bar.

    A line that cannot be written is lost. Whoever started the server may have left the pipe unread, or gone; a full
    pipe would stop everything. Once there is room again, a line says how many were lost.
    """

    def __init__(self) -> None:
        self._pipe = _pipe()
        self._lost = 0  # lines

    def write(self, text: str) -> int:
        """Write a line, if that can be done now."""
        if self._pipe is None:
            with suppress(OSError):  # a full disk, say
                sys.stderr.write(text)
        elif self._told_of_losses(self._pipe) and not _put(self._pipe, text):
            self._lost += 1
        return len(text)

    def flush(self) -> None:
        """Pass on what is held back."""
        with suppress(OSError):
            sys.stderr.flush()

    def _told_of_losses(self, pipe: int) -> bool:
        if self._lost and not _put(pipe, f'{{"event": "log lines were lost", "lines": {self._lost}}}\n'):
            self._lost += 1
            return False
        self._lost = 0
        return True


def _pipe() -> int | None:
    """The descriptor of standard error, if it leads to another program."""
    try:
        descriptor = sys.stderr.fileno()
        mode = os.fstat(descriptor).st_mode
    except (OSError, ValueError, AttributeError):  # none, or not a file
        return None
    return descriptor if stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) else None


def _put(pipe: int, text: str) -> bool:
    """Write as far as there is room: a pipe that is ready takes so many bytes without waiting."""
    data = text.encode(errors="backslashreplace")
    try:
        for start in range(0, len(data), PIPE_BUF):
            if not select([], [pipe], [], 0)[1]:
                return False
            os.write(pipe, data[start : start + PIPE_BUF])
    except OSError:  # nobody is at its other end any more
        return False
    return True
