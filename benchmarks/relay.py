"""Takes the place of ssh: another machine is this one, behind a network that takes its time and is counted.

`python -m benchmarks.relay SECONDS COUNTS …` is called with the words of an ssh, of which the last is the command. What
goes to or comes from the process that it starts arrives SECONDS later; COUNTS is a file for what went over in all.
"""

import json
import mmap
import os
import socket
import struct
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any, NamedTuple

from benchmarks.processes import free_port

_CONNECT_SECONDS = 30.0
_LAYOUT = struct.Struct("4q")
_counting = threading.Lock()


class Counts(NamedTuple):
    """What machines have sent each other: messages as they came from the socket, and bytes."""

    messages: int  # of the server's own connection
    message_bytes: int
    parts: int  # of the ring
    ring_bytes: int

    def since(self, before: "Counts") -> "Counts":
        """What has come since."""
        return Counts(*(now - then for now, then in zip(self, before, strict=True)))


def read(path: Path | None) -> Counts:
    """Read what has gone over so far: nothing where there is no relay."""
    return Counts(*_LAYOUT.unpack(bytes(_LAYOUT.size) if path is None else path.read_bytes()))


def as_ssh(folder: Path, seconds: float) -> tuple[dict[str, str], Path]:
    """Put a program named ssh into a folder. Gives the environment in which it is found, and its file of counts."""
    counts = folder / "counts"
    counts.write_bytes(bytes(_LAYOUT.size))
    program = folder / "ssh"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m benchmarks.relay {seconds} "{counts}" "$@"\n')
    program.chmod(0o755)
    root = Path(__file__).parents[1]
    return {"PATH": f"{folder}:{os.environ['PATH']}", "PYTHONPATH": str(root)}, counts


@dataclass
class Link:
    """A connection of two sides. What one sends the other has after some seconds; both directions are counted."""

    seconds: float
    counts: mmap.mmap
    first: int  # of its two numbers in the counts

    def open(self, host: str, port: int, at: int = 0) -> int:
        """Listen at a port, for one connection that is for another address. Gives the port."""
        listener = socket.create_server(("127.0.0.1", at))
        threading.Thread(target=self._serve, args=(listener, (host, port)), daemon=True).start()
        return int(listener.getsockname()[1])

    def _serve(self, listener: socket.socket, address: tuple[str, int]) -> None:
        with listener:
            near = listener.accept()[0]
        with near, _connect(address) as far, ThreadPoolExecutor(4) as pool:
            for source, target in ((near, far), (far, near)):
                source.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                parts: SimpleQueue[tuple[float, bytes]] = SimpleQueue()
                pool.submit(self._take, source, parts)
                pool.submit(self._give, target, parts)

    def _take(self, source: socket.socket, parts: "SimpleQueue[tuple[float, bytes]]") -> None:
        data = b"-"
        while data:
            try:
                data = source.recv(2**20)
            except OSError:
                data = b""
            arrives = time.perf_counter() + self.seconds
            with _counting:
                numbers = list(_LAYOUT.unpack(self.counts[:]))
                numbers[self.first] += bool(data)
                numbers[self.first + 1] += len(data)
                self.counts[:] = _LAYOUT.pack(*numbers)
            parts.put((arrives, data))

    def _give(self, target: socket.socket, parts: "SimpleQueue[tuple[float, bytes]]") -> None:
        with suppress(OSError):
            while (part := parts.get())[1]:
                arrives, data = part
                time.sleep(max(0.0, arrives - time.perf_counter()))
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)


def _connect(address: tuple[str, int]) -> socket.socket:
    deadline = time.monotonic() + _CONNECT_SECONDS
    while True:
        try:
            return socket.create_connection(address)
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def _rewritten(setup: dict[str, Any], seconds: float, counts: mmap.mmap) -> dict[str, Any]:
    """Have a process find the others behind links, and them it; it is the second of two."""
    messages, ring = Link(seconds, counts, 0), Link(seconds, counts, 2)
    (leader,), (own,) = (address.rpartition(":")[::2] for address in setup["ring"][0]), setup["ring"][1]
    port = free_port()
    ring.open("127.0.0.1", port, at=int(own.rpartition(":")[2]))
    there = ring.open(leader[0], int(leader[1]))
    addresses = [[f"127.0.0.1:{there}"], [f"127.0.0.1:{port}"]]
    return setup | {"host": "127.0.0.1", "port": messages.open(setup["host"], setup["port"]), "ring": addresses}


def main() -> None:
    """Run a command as if it were on another machine, until it ends or standard input does."""
    seconds, path, command = float(sys.argv[1]), Path(sys.argv[2]), sys.argv[-1]
    with path.open("r+b") as file:
        counts = mmap.mmap(file.fileno(), _LAYOUT.size)
    setup = _rewritten(json.loads(sys.stdin.buffer.readline()), seconds, counts)
    process = subprocess.Popen(["sh", "-c", command], stdin=subprocess.PIPE)
    assert process.stdin is not None
    process.stdin.write(json.dumps(setup).encode() + b"\n")
    process.stdin.flush()
    threading.Thread(target=_end_with_input, args=(process,), daemon=True).start()
    os._exit(process.wait())


def _end_with_input(process: subprocess.Popen[bytes]) -> None:
    while sys.stdin.buffer.read(2**10):
        pass
    assert process.stdin is not None
    process.stdin.close()


if __name__ == "__main__":
    main()
