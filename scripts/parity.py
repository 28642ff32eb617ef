"""Compare this server with recorded answers of llama-server on the same weights: python scripts/parity.py [SUITE …].

The recordings are not part of this repository. They are looked for where TILES_PARITY says, else in ../shared/parity.
A case that differs without a reason in parity_differences.py fails, and so does a reason of a case that is equal.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from parity_differences import reasons

ROOT = Path(__file__).parents[1]
KEY = "sk-test"  # which the recordings expect
SUITES: dict[str, tuple[str, ...]] = {  # the flags that a suite's server has besides
    "main": (),
    "apikey": ("--api-key", KEY),
    "slotsave": (),
    "embeddings": (),
    "router": (),
}
_FLAGS = ("--context-length", "512", "--max-batch", "4")
_START_SECONDS = 300.0


def recordings() -> Path:
    """Where the recordings are, or would be."""
    return Path(os.environ.get("TILES_PARITY") or ROOT.parent / "shared" / "parity").absolute()


def main(suites: list[str]) -> int:
    """Run the suites. Returns the exit code."""
    folder = recordings()
    if not (folder / "parity.py").is_file():
        print(f"SKIPPED: there are no recordings of llama-server in {folder}; TILES_PARITY may name another folder")
        return 0
    faults = [fault for suite in suites or SUITES for fault in faults_of(suite, _compared(folder, suite))]
    print("\n".join(faults) or "as recorded, but for what differs on purpose")
    return 1 if faults else 0


def _compared(folder: Path, suite: str) -> list[dict[str, Any]]:
    """Give the report of a suite, case by case; empty if there is none."""
    with tempfile.TemporaryDirectory() as scratch, _server(folder, suite, Path(scratch)) as url:
        report = Path(scratch) / "report.json"
        command = [sys.executable, str(folder / "parity.py"), url, "--suite", suite, "--json", str(report)]
        subprocess.run(command, check=False)
        return list(json.loads(report.read_text())) if report.exists() else []


def faults_of(suite: str, cases: list[dict[str, Any]]) -> Iterator[str]:
    """Name what has to be equal and is not, what differs without a reason, and reasons for nothing."""
    known = reasons()
    if not cases:
        yield f"{suite}: nothing was compared"
    for case in cases:
        name = f"{suite}: {case['name']}"
        if not case["ok"] and case["name"] not in known:
            matters = ", and clients rely on it" if case["level"] == "must" else ""
            yield f"{name} differs, for no reason that is written down{matters}"
        elif case["ok"] and case["name"] in known:
            yield f"{name} is equal: its reason has to go"


@contextmanager
def _server(folder: Path, suite: str, home: Path) -> Iterator[str]:
    port = _free_port()
    flags = [*_served(folder / "models" / "chat", suite, home), *_FLAGS, *SUITES[suite], "--port", str(port)]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TILES_")}
    with (home / "log").open("w") as log:
        command = [sys.executable, "-m", "app", "serve", *flags, "--data-dir", str(home / "data")]
        process = subprocess.Popen(command, cwd=ROOT, env=kept | {"HOME": str(home)}, stdout=log, stderr=log)
    try:
        _wait(f"http://127.0.0.1:{port}/health", process, home / "log")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(60)


def _served(model: Path, suite: str, home: Path) -> tuple[str, str]:
    """Say what is served: the model or, to the router's suite, a folder with two of it."""
    if suite != "router":
        return "--model", str(model)
    for name in ("chat-a", "chat-b"):
        shutil.copytree(model, home / "models" / name)
    return "--models-dir", str(home / "models")


def _wait(url: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(url, timeout=10):
                return
        except urllib.error.URLError:
            time.sleep(0.1)
    raise SystemExit(f"the server does not answer; it said:\n{log.read_text()[-3000:]}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
