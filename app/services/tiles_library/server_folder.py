"""The folder that Tiles takes for its own server, and that starts this one.

Tiles runs `server/stack_export_prod/app-server/bin/python -m server.main` in its library folder, a debug build
`server/.venv/bin/python3`. So the folder is a package `server` with a virtual environment in it, whose packages are
those of this installation: an upgrade of them needs no second `install`.
"""

import json
import os
import site
import subprocess
import sys
from pathlib import Path

import app
from app.services.tiles_library import CannotSwap
from app.services.tiles_library.names import SERVER

PYTHON = Path("stack_export_prod/app-server/bin/python")
_MARKER = "tiles-server.json"
_START_SECONDS = 120.0  # for the imports, on a machine that does other things too

_MAIN = '''\
"""Tiles starts its server as `python -m server.main` in the folder above this one: Tiles Server answers."""

import os
import sys

# No folder of Tiles may stand in for a package of the server.
sys.path[:] = [path for path in sys.path if path and os.path.realpath(path) != os.path.realpath(os.curdir)]

from app.commands.cli import main  # noqa: E402

if __name__ == "__main__":
    main()
'''

_TRIAL = "import server.main, app.application, app.commands.serve; print(app.__version__)"


def build(folder: Path) -> None:
    """Write the folder. Raises OSError, and CannotSwap for a path that Python could not read."""
    environment = folder / PYTHON.parents[1]
    packages = environment / f"lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"
    interpreter = Path(getattr(sys, "_base_executable", None) or sys.executable)
    lines = {
        folder
        / "__init__.py": '"""Tiles Server, instead of Tiles\' own: `tiles-server tiles uninstall` undoes it."""\n',
        folder / "main.py": _MAIN,
        folder / _MARKER: json.dumps({"version": app.__version__, "interpreter": str(interpreter)}) + "\n",
        environment / "pyvenv.cfg": f"home = {interpreter.parent}\ninclude-system-site-packages = false\n",
        # ascii() for any letter in a path: Python reads these files in the locale's encoding
        packages / "tiles_server.pth": f"import site; list(map(site.addsitedir, {_site_folders()!a}))\n",
    }
    for path, text in lines.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        _write(path, text)
    python = folder / PYTHON
    python.parent.mkdir()
    python.symlink_to(interpreter)
    python.with_name("python3").symlink_to(python.name)
    (folder / ".venv").symlink_to(PYTHON.parents[1])
    _open_to_all(folder)


def is_ours(folder: Path) -> bool:
    """Whether a folder was written by `build`."""
    return (folder / _MARKER).is_file()


def version_at_install(folder: Path) -> str:
    """Give the version of the server that wrote a folder of ours."""
    try:
        return str(json.loads((folder / _MARKER).read_bytes())["version"])
    except (OSError, ValueError, KeyError, TypeError):
        return "unknown"


def try_start(library: Path) -> str:
    """Import the server as Tiles would start it, and give its version. Raises CannotSwap with the reason."""
    python = library / SERVER / PYTHON
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "__PYVENV"))}
    try:
        trial = subprocess.run(
            [python, "-B", "-c", _TRIAL],
            cwd=library,
            env=environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_START_SECONDS,
        )
    except (FileNotFoundError, PermissionError):
        target = Path(os.path.realpath(python))
        raise CannotSwap(f"its Python interpreter {target} is gone or cannot be run") from None
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CannotSwap(f"its Python interpreter does not start: {error}") from error
    if trial.returncode:
        reason = (trial.stderr.strip() or f"exit code {trial.returncode}").splitlines()[-1]
        raise CannotSwap(f"the server cannot be imported: {reason}")
    return trial.stdout.strip()


def _site_folders() -> list[str]:
    """Give the folders of this installation's packages; the last is that of the code, where it is in none of them."""
    folders = [*site.getsitepackages(), *([site.getusersitepackages()] if site.ENABLE_USER_SITE else [])]
    code = str(Path(app.__file__).parents[1])
    return list(dict.fromkeys([*(path for path in folders if Path(path).is_dir()), code]))


def _write(path: Path, text: str) -> None:
    try:
        content = text.encode()
    except UnicodeEncodeError as error:
        raise CannotSwap(f"Python cannot start from a path that is no UTF-8: {error.object!a}") from error
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())  # before the folder gets its name: a power cut leaves no empty files in it


def _open_to_all(folder: Path) -> None:
    """Let every user of the machine read it, whatever umask there is, and let it belong to whom the library belongs.

    Else a Tiles of another user could not start it, or one that was installed by sudo not be updated without it.
    """
    library = folder.parent.parent.stat()
    for path in (folder, *folder.rglob("*")):
        if os.geteuid() == 0:
            os.lchown(path, library.st_uid, library.st_gid)
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() else 0o644)
