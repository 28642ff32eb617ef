"""A process that downloads one model: `python -m app.services.downloads`, as the server starts it.

A process of its own takes nothing of the answers' time, and ends at once whatever the network does. It reads a line of
JSON, an `Order`, and writes nothing, or one line that says what went wrong. It ends with whoever started it, whose end
of the pipe is closed then.
"""

import os
import sys
import threading
from pathlib import Path

import msgspec

from app.services.downloads import transfer
from app.services.downloads.download import Failure, Order
from app.services.errors import AppError, DownloadFailed


def main() -> None:
    """Download what is ordered."""
    order = msgspec.json.decode(sys.stdin.buffer.readline(), type=Order)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        transfer.fetch(order.plan, Path(order.cache))
    except Exception as error:
        failure = error if isinstance(error, AppError) else DownloadFailed(f"The download failed: {error!r}"[:500])
        sys.stdout.buffer.write(msgspec.json.encode(Failure(type(failure).__name__, failure.message)) + b"\n")
        sys.stdout.flush()


def _end_with_parent() -> None:
    while os.read(sys.stdin.fileno(), 4096):
        pass
    os._exit(1)


if __name__ == "__main__":
    main()
    os._exit(0)  # no thread is waited for
