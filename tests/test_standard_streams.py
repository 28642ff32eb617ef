"""Closed outputs, readers that have gone: whoever starts the server need not listen."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path

import httpx
import pytest

from benchmarks.processes import free_port
from tests.conftest import environment, wait_for

pytestmark = pytest.mark.slow

REDIRECTIONS = ["2>&-", ">&-", "<&-", "<&- >&- 2>&-", "2>&1 | true", "2>/dev/full", ">/dev/full 2>&1"]
LISTING = """
import json, os, sys
from app.standard_error import open_closed_streams

open_closed_streams()
probe = os.open(os.devnull, os.O_RDONLY)
inherited = [os.get_inheritable(number) for number in range(3)]
streams = [stream.fileno() for stream in (sys.stdin, sys.stdout, sys.stderr)]
with open(sys.argv[1], "w") as file:
    json.dump([probe > 2, inherited, streams], file)
"""


@contextmanager
def shell(redirection: str, home: Path, *command: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command with a shell's redirection; its process id goes to the file `pid`, its exit code to `rc`."""
    command_in_shell = f"""sh -c 'echo $$ >{home}/pid; exec "$@"' sh "$@\""""
    script = f"({command_in_shell}; echo $? >{home}/rc) {redirection}"
    with subprocess.Popen(
        ["sh", "-c", script, "sh", *command],
        env=environment(home),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        stdin=subprocess.DEVNULL,
    ) as process:
        yield process
        process.wait(60)


@pytest.mark.parametrize("redirection", REDIRECTIONS)
def test_no_file_takes_the_place_of_a_closed_stream(tmp_path: Path, redirection: str) -> None:
    with shell(redirection, tmp_path, sys.executable, "-c", LISTING, str(tmp_path / "found")):
        pass
    assert json.loads((tmp_path / "found").read_text()) == [True, [True] * 3, [0, 1, 2]]


@pytest.mark.slow
@pytest.mark.parametrize(("redirection", "form"), list(zip(REDIRECTIONS, cycle(["console", "json"]), strict=False)))
def test_the_server_starts_answers_and_ends_well_whoever_listens(
    tmp_path: Path, redirection: str, form: str, tiny: Path
) -> None:
    port = free_port()
    command = [sys.executable, "-m", "app", "--model", str(tiny), "--port", str(port), "--log-format", form]
    with (
        shell(redirection, tmp_path, *command),
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client,
    ):
        try:
            wait_for(lambda: answers(client), what="the server")
            body = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 3}
            assert client.post("/v1/chat/completions", json=body, timeout=60).status_code == 200
        finally:
            os.kill(int((tmp_path / "pid").read_text()), signal.SIGINT)
    assert (tmp_path / "rc").read_text() == "0\n"


def answers(client: httpx.Client) -> bool:
    try:
        return client.get("/health").status_code == 200
    except httpx.TransportError:
        return False


@pytest.mark.parametrize("redirection", ["2>&-", "2>&1 | true", "2>/dev/full"])
def test_a_setting_that_cannot_be_used_is_exit_code_2_whoever_listens(tmp_path: Path, redirection: str) -> None:
    with shell(redirection, tmp_path, sys.executable, "-m", "app", "--port", "70000"):
        pass
    assert (tmp_path / "rc").read_text() == "2\n"
