"""The process of a worker of `--hostfile`, which the server starts and tells on its standard input what to do."""

import json
import os
import sys
from pathlib import Path

import msgspec

from app import log
from app.services.engine.group.messages import Setup
from app.services.engine.model import blas

_LONGEST = 2**20  # bytes of what the server says


def main() -> None:
    """Work for the server that started this process; with an argument, print what there is of that model's folder."""
    if len(sys.argv) > 1:
        _describe(Path(sys.argv[1]))
        return
    setup = msgspec.json.decode(sys.stdin.buffer.readline(_LONGEST), type=Setup)
    log.set_up()
    os.environ.update(setup.variables)  # CUDA reads its own with the first array
    blas.preload(setup.blas)
    from app.services.engine.group import process  # with MLX, after the BLAS

    process.ignore_interrupts()
    process.run(setup)


def _describe(folder: Path) -> None:
    from app.services.engine.group import machine

    model = machine.checksum(folder) if sys.argv[1] else None
    print(json.dumps(machine.versions() | {"model": model}))


if __name__ == "__main__":
    main()
