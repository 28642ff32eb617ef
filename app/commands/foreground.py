"""Another program in the place of this one, or before it: terminal, signals and exit code are its own."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import NoReturn

_FORWARDED = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT)
_OF_TERMINALS = {signal.SIGINT, signal.SIGQUIT}  # a terminal sends them to each process in its foreground


def exit_on_signals() -> None:
    """Let the signals that end a process raise SystemExit, so that what it has started is ended first."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _exit)


def _exit(number: int, _: FrameType | None) -> NoReturn:
    sys.exit(128 + number)


@contextmanager
def signals_later() -> Iterator[None]:
    """Hold the signals of `exit_on_signals` and Ctrl-C back, so that what is begun here is known before they count."""
    held: list[int] = []
    with _handling((signal.SIGTERM, signal.SIGHUP, signal.SIGINT), lambda number, _: held.append(number)):
        yield
    if held:
        signal.raise_signal(held[0])


@contextmanager
def _handling(numbers: Sequence[signal.Signals], handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Have signals handled otherwise for now."""
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


def become(program: str, arguments: Sequence[str], environ: Mapping[str, str]) -> NoReturn:
    """Let a program take the place of this process. Raises OSError."""
    os.execve(program, [program, *arguments], environ)


def run(program: str, arguments: Sequence[str], environ: Mapping[str, str]) -> int:
    """Run a program until it ends and give its exit code; signals are for it. Raises OSError.

    It stays in the process group of this process, so that both stop and go on together (Ctrl-Z).
    """
    process: subprocess.Popen[bytes] | None = None
    early: list[int] = []

    def forward(number: int, _: FrameType | None) -> None:
        if process is None:
            early.append(number)
        elif number not in _OF_TERMINALS or not _in_foreground():
            process.send_signal(number)

    with _handling(_FORWARDED, forward):
        process = subprocess.Popen([program, *arguments], env=environ)
        for number in early:
            process.send_signal(number)
        code = process.wait()
    return code if code >= 0 else 128 - code  # as shells say that a signal has ended it


def _in_foreground() -> bool:
    """Whether this process belongs to those that its terminal sends its signals to."""
    with suppress(OSError), Path("/dev/tty").open("rb") as terminal:
        return os.tcgetpgrp(terminal.fileno()) == os.getpgrp()
    return False
