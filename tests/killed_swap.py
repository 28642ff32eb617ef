"""Kill `install` and `uninstall` at each of their steps, and look at what is there: `python -m tests.killed_swap`.

A step is whatever Python tells its audit hooks of: a file opened, renamed, made, removed, a C function loaded. The
process is killed before the step; each kill is tried on a library folder of its own. Prints the number of kills.
"""

import errno
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

from app.services.tiles_library import exchange, server_folder, swap
from tests import tiles_library
from tests.tiles_library import PARTS, tree

Change = Callable[[Path], object]
Tree = dict[str, tuple[object, ...]]


def install(library: Path) -> None:
    swap.install(library, check=lambda work: None)


def updated(library: Path) -> None:
    install(library)
    tiles_library.put_own_server(library, "2")


CASES: dict[str, tuple[Change, Change]] = {
    "the first install": (lambda library: None, install),
    "an install over an install": (install, install),
    "an install after an update": (updated, install),
    "an uninstall": (install, swap.uninstall),
    "an uninstall after an update": (updated, swap.uninstall),
}


def main(work: Path, *, at_once: bool) -> None:
    os.fsync = lambda descriptor: None  # the power stays on
    if not at_once:
        exchange._exchange_at_once = unsupported
    kills = 0
    for name, (prepare, change) in CASES.items():
        for step in count():
            library = tiles_library.make(work / name / str(step) / "Ti les é")
            prepare(library)
            own = own_server(library)
            was_killed = run(change, library, step)
            check(library, own, f"{name}, killed at step {step}", at_once=at_once)
            shutil.rmtree(library)
            if not was_killed:
                assert step > 5, f"{name} has only {step} steps"
                break
            kills += 1
    print(kills)


def unsupported(first: bytes, second: bytes) -> None:
    raise OSError(errno.EINVAL, "no exchange on this file system")


def run(change: Change, library: Path, step: int) -> bool:
    """Let a process make a change until it is killed at a step; False if it came to its end before."""
    child = os.fork()
    if child == 0:
        steps = count()

        def hook(event: str, arguments: tuple[Any, ...]) -> None:
            if event.startswith(("os.", "open", "ctypes.", "shutil.", "tempfile.")) and next(steps) == step:
                os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(hook)
        change(library)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in {0, -signal.SIGKILL}, code
    return code != 0


def check(library: Path, own: Tree, when: str, *, at_once: bool) -> None:
    """The old server is in place or the new one, whole; what comes next works, and nothing is left of us in the end."""
    if at_once:
        assert is_whole(library / "server", own), when
    for copy in copies(library, 2):
        if copy.name == "1":
            install(copy)
            assert server_folder.is_ours(copy / "server"), when
            assert is_whole(copy / "server", own), when
            assert tree(copy / "server.original") == own, when
        swap.uninstall(copy)
        assert tree(copy / "server") == own, when
        assert {path.name for path in copy.iterdir()} == PARTS, when


def own_server(library: Path) -> Tree:
    """The newer of the servers of Tiles' own that are there."""
    servers = [path for path in library.glob("server*") if not server_folder.is_ours(path)]
    return tree(max(servers, key=lambda path: (path / "main.py").read_bytes()))


def is_whole(server: Path, own: Tree) -> bool:
    return tree(server) == own or (server_folder.is_ours(server) and contents(server) == CONTENTS)


def contents(server: Path) -> Tree:
    return {name: (mode, uid, content) for name, (mode, uid, _, content) in tree(server).items()}


def copies(library: Path, number: int) -> Iterator[Path]:
    for name in range(number):
        copy = library.parent / str(name)
        shutil.copytree(library, copy, symlinks=True)
        yield copy
        shutil.rmtree(copy)


if __name__ == "__main__":
    place = Path(sys.argv[1])
    server_folder.build(place / "ours/server")
    CONTENTS = contents(place / "ours/server")
    main(place, at_once=sys.argv[2] == "at-once")
