"""Compiles the C of the server, on Linux, if there is a compiler; without it, the server works and answers slower."""

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
from hashlib import blake2b
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SOURCE = "app/services/engine/model/row_products.c"
LIBRARY = "app/services/engine/model/librow_products.so"
FLAGS = ("-O3", "-shared", "-fPIC", "-pthread")


class CompileHook(BuildHookInterface):
    """Runs before a wheel is built, or an editable one: that has the library among the sources."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, and say which machine the wheel is for then."""
        if sys.platform != "linux" or not compile_library(Path(self.root, SOURCE), Path(self.root, LIBRARY)):
            return
        build_data["artifacts"].append(LIBRARY)
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{sysconfig.get_platform().replace('-', '_').replace('.', '_')}"


def compile_library(source: Path, target: Path) -> bool:
    """Make a shared library, whole or not at all; whoever has the old one open keeps it. Returns whether it is made."""
    sources = sorted(source.parent.glob("row_products*.[ch]"))
    version = blake2b(b"".join(path.read_bytes() for path in sources), digest_size=8).hexdigest()
    flags = [*FLAGS, f'-DVERSION="{version}"']
    compiler = shlex.split(os.environ.get("CC", "")) or [next(filter(shutil.which, ("cc", "gcc", "clang")), "cc")]
    unfinished = target.with_name(f"{target.name}.{os.getpid()}")
    try:
        subprocess.run([*compiler, *flags, str(source), "-o", str(unfinished)], check=True, capture_output=True)
        unfinished.replace(target)
    except (OSError, subprocess.CalledProcessError):
        return False
    finally:
        unfinished.unlink(missing_ok=True)
    return True
