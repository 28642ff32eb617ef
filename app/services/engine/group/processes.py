"""Starts workers, here or by ssh on other machines, and ends them."""

import shlex
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress

import msgspec

from app.services.engine.group.messages import Setup
from app.services.hostfile import Host

_COMMAND = (sys.executable, "-m", "app.commands.worker")
_SSH = ("ssh", "-o", "BatchMode=yes", "-o", "ConnectTimeout=10")
_LAST_SECONDS = 2.0  # that one has to leave by itself


def command(host: Host, *arguments: str) -> Sequence[str]:
    """Give the command that runs a worker on a machine; with a folder, one that says what versions and model it has."""
    words = (*_COMMAND, *arguments)
    return words if host.is_local else (*_SSH, host.ssh, f"exec {shlex.join(words)}")


class WorkerProcess:
    """The process of a worker, or the ssh that runs it. It leaves once its standard input ends, as with this one."""

    def __init__(self, host: Host, setup: Setup) -> None:
        """Start it. Raises OSError."""
        self._process = subprocess.Popen(
            command(host),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            start_new_session=True,  # a terminal's Ctrl-C is for this process, which lets workers go
        )
        assert self._process.stdin is not None
        self._input = self._process.stdin
        with suppress(BrokenPipeError):  # it ended at once, which is noticed soon
            self._input.write(msgspec.json.encode(setup) + b"\n")
            self._input.flush()

    @property
    def exit_code(self) -> int | None:
        """The exit code, None while it runs."""
        return self._process.poll()

    def end(self, *, at_once: bool = False) -> None:
        """Have it leave, and see that it has; `at_once` gives it no time, for one that may hang."""
        with suppress(OSError):
            self._input.close()
        if not at_once:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(_LAST_SECONDS)
        self._process.kill()
        self._process.wait()
