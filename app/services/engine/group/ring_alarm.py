"""Ends the wait for a neighbour of MLX's ring that does not come: a process of its own, run as a script.

MLX waits for it without a limit, and holds the interpreter meanwhile, so that no thread of the process that waits can
do anything about it. A connection that is closed at once ends that: MLX goes on, and fails where it uses it.
"""

import select
import socket
import sys
import time
from contextlib import suppress

_SECONDS = 2.0  # MLX listens at one address after another


def main() -> None:
    """Wait for so many seconds, or until standard input ends, then connect to the addresses ("ip:port")."""
    seconds, *addresses = sys.argv[1:]
    if not select.select([sys.stdin], [], [], float(seconds))[0]:
        for address in addresses:
            _connect(address)


def _connect(address: str) -> None:
    host, _, port = address.rpartition(":")
    deadline = time.monotonic() + _SECONDS
    while time.monotonic() < deadline:
        with suppress(OSError):
            socket.create_connection((host, int(port)), timeout=_SECONDS).close()
            return
        time.sleep(0.05)


if __name__ == "__main__":
    main()
