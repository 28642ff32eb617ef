"""A server that a command starts for itself, with its log in a file, and stops again."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from app.commands.server_client import NoServer, ServerClient, ServerFailure
from app.services import atomic

_ADDRESS = re.compile(r"^API +(https?://\S+)/v1$", re.MULTILINE)  # as `serve` says it
_INTERVAL = 0.1  # seconds between two looks at a server that starts
_STOP_SECONDS = 40.0  # after which it is ended; it takes less unless its disk is very slow


class OwnServer:
    """A server process in a session of its own, so that Ctrl-C in the terminal is not for it."""

    def __init__(self, flags: Sequence[str], key: str | None, log_path: Path) -> None:
        """Start it; raises OSError. The key goes by the environment: command lines can be read by everybody."""
        self._log_path = log_path
        atomic.private_folder(log_path.parent)
        env = os.environ | ({"TILES_API_KEY": key} if key else {})
        with atomic.private_file(log_path) as log:
            self._process = subprocess.Popen(
                [*_program(), "serve", *flags],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=env,
                start_new_session=True,
            )

    @property
    def process_id(self) -> int:
        """The id of the process."""
        return self._process.pid

    def wait_until_up(self) -> str:
        """Wait until it listens, and give its address. Raises ServerFailure if it ends instead."""
        while (match := _ADDRESS.search(self._log_path.read_text(errors="replace"))) is None:
            self.check()
            time.sleep(_INTERVAL)
        return match[1]

    def check(self) -> None:
        """Raise ServerFailure if it has ended."""
        if (code := self._process.poll()) is not None:
            lines = self._log_path.read_text(errors="replace").splitlines()
            reason = lines[-1].removeprefix("tiles-server: ") if lines else f"exit code {code}"
            raise ServerFailure(f"The server has ended: {reason} (log: {self._log_path})")

    def stop(self) -> None:
        """End it, and wait for that."""
        self._process.terminate()
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def wait_until_loaded(
    client: ServerClient, on_progress: Callable[[float], None], server: OwnServer | None = None
) -> None:
    """Wait until a server has loaded its model; an own one may not answer yet.

    Raises ServerFailure if the model cannot be loaded, or the server ends.
    """
    while True:
        try:
            health = client.get_health()
        except NoServer:
            if server is None:
                raise
            health = {"status": "loading model"}
        if health.get("status") == "stuck":
            raise ServerFailure(f"The server at {client.url} hangs; it restarts by itself")
        if health.get("status") != "loading model":
            break
        on_progress(float(health.get("progress") or 0.0))
        if server is not None:
            server.check()
        time.sleep(_INTERVAL)
    on_progress(1.0)
    if health.get("last_error") and not health.get("model_loaded"):
        raise ServerFailure(f"The server has no model: {health['last_error']}")


def _program() -> list[str]:
    """Give the words that started this process, without its arguments: the server starts in the same way."""
    words = sys.orig_argv[1 : len(sys.orig_argv) - len(sys.argv[1:])]
    return [sys.executable, *words]
