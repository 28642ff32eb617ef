"""A library folder as Tiles installs it, made up, and all that can be told of a folder's contents."""

import os
import shutil
from pathlib import Path

PYTHON = "stack_export_prod/app-server/bin/python"
PARTS = {"modelfiles", "pi", "server"}


def make(library: Path) -> Path:
    """Make a library folder with a server of Tiles' own: modes, links, times, a file that is not to be read."""
    for part in ("modelfiles", "pi"):
        (library / part).mkdir(parents=True)
    put_own_server(library, "1")
    return library


def put_own_server(library: Path, version: str) -> None:
    """Put a server there as Tiles' installer and its `tiles update` do: the old one is removed, whatever it is."""
    server = library / "server"
    if server.is_symlink():
        server.unlink()
    shutil.rmtree(server, ignore_errors=True)
    environment = server / "stack_export_prod/app-server"
    for folder in ("bin", "lib/empty"):
        (environment / folder).mkdir(parents=True)
    for name, text in {
        "main.py": version,
        "__init__.py": "",
        "größe und so.txt": "ä",
        "bin/llama-server": "#!/bin/sh\n",
    }.items():
        (server / name).parent.mkdir(exist_ok=True)
        (server / name).write_text(text)
    (server / "bin/llama-server").chmod(0o755)
    (server / "main.py").chmod(0o400)
    (server / PYTHON).symlink_to("../../cpython3.13/bin/python")
    (environment / "dangling").symlink_to("/nowhere/at all")
    (environment / "lib/empty").chmod(0o750)
    for number, path in enumerate(sorted(server.rglob("*"), reverse=True)):
        os.utime(path, ns=(10**18 + number, 10**18 + 7 * number), follow_symlinks=False)
    os.utime(server, ns=(10**18, 123_456_789))


def tree(folder: Path) -> dict[str, tuple[object, ...]]:
    """Tell of a folder and all that is in it: kind and mode, owner, time, and content or target."""
    facts: dict[str, tuple[object, ...]] = {}
    for path in (folder, *folder.rglob("*")):
        info = path.lstat()
        if path.is_symlink():
            content: object = path.readlink()
        else:
            content = path.read_bytes() if path.is_file() else None
        facts[str(path.relative_to(folder))] = (info.st_mode, info.st_uid, info.st_mtime_ns, content)
    return facts
