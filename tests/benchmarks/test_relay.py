"""The network between two processes of a benchmark: all of it arrives, later, and is counted."""

import mmap
import socket
import time
from pathlib import Path

from benchmarks import relay

SECONDS = 0.02


def test_what_goes_over_arrives_later_and_is_counted(tmp_path: Path) -> None:
    _, path = relay.as_ssh(tmp_path, SECONDS)
    with path.open("r+b") as file:
        counts = mmap.mmap(file.fileno(), 0)
    with socket.create_server(("127.0.0.1", 0)) as far:
        port = relay.Link(SECONDS, counts, 2).open("127.0.0.1", far.getsockname()[1])
        with socket.create_connection(("127.0.0.1", port)) as near, far.accept()[0] as other:
            began = time.perf_counter()
            near.sendall(b"x" * 100_000)
            assert read(other, 100_000) == b"x" * 100_000
            other.sendall(b"yes")
            assert read(near, 3) == b"yes"
            assert time.perf_counter() - began >= 2 * SECONDS
            sent = relay.read(path)
            near.shutdown(socket.SHUT_WR)
            assert other.recv(1) == b""
    assert sent.ring_bytes == 100_003
    assert sent.parts >= 2
    assert sent.messages == sent.message_bytes == 0
    assert sent.since(sent) == (0, 0, 0, 0)


def read(connection: socket.socket, length: int) -> bytes:
    connection.settimeout(10)
    data = b""
    while len(data) < length:
        data += connection.recv(length)
    return data
