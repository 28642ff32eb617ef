"""`tiles-server launch`, with a program on the PATH that tells what it was started with."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from app.commands.launch import arrange
from app.services.coding_agents import AGENTS
from benchmarks.processes import free_port
from tests.conftest import KEY, START_SECONDS, Server, environment, wait_for

STUB = """#!{python}
import json, os, signal, sys, time, urllib.request
report = {{"arguments": sys.argv[1:], "env": dict(os.environ), "cwd": os.getcwd(), "pid": os.getpid()}}
url, key = os.environ["ANTHROPIC_BASE_URL"], os.environ["ANTHROPIC_AUTH_TOKEN"]
ask = urllib.request.Request(url + "/v1/models", headers={{"Authorization": "Bearer " + key}})
with urllib.request.urlopen(ask) as answer:
    report["models"] = [model["id"] for model in json.load(answer)["data"]]
if "wait" in sys.argv:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
print(json.dumps(report), flush=True)
if "wait" in sys.argv:
    signal.pause()
sys.exit(int(sys.argv[-1]) if sys.argv[-1:] and sys.argv[-1].isdigit() else 0)
"""
SECONDS = 3 * START_SECONDS  # a server may have to start first
OPTIONS = {"--print": 0, "--demo": 0, "--model": 1}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with a stub in place of Claude Code."""
    program = tmp_path / "bin" / "claude"
    program.parent.mkdir()
    program.write_text(STUB.format(python=sys.executable))
    program.chmod(0o755)
    return tmp_path


def command(home: Path, *words: str, **env: str) -> dict[str, Any]:
    """What `subprocess` needs to run the command in a home, with the stub on the PATH."""
    path = os.pathsep.join([str(home / "bin"), *os.environ["PATH"].split(os.pathsep)])
    more = {"TILES_PORT": str(free_port()), "PATH": path} | env
    return {"args": [sys.executable, "-m", "app", "launch", *words], "env": environment(home, **more)}


def launch(home: Path, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(**command(home, *words, **env), capture_output=True, text=True, timeout=SECONDS)


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    "typed, arranged",
    [
        (["claude"], ["--", "claude"]),
        (["--demo", "claude", "-p", "hi"], ["--demo", "--", "claude", "-p", "hi"]),
        (["claude", "--model", "x", "--print"], ["--model", "x", "--print", "--", "claude"]),
        (["claude", "--model=x", "go", "--demo"], ["--model=x", "--", "claude", "go", "--demo"]),
        (["claude", "--", "--print"], ["--", "claude", "--print"]),
        (["claude", "--", "--", "x"], ["--", "claude", "--", "x"]),
        (["claude", "a", "--", "b"], ["--", "claude", "a", "--", "b"]),
        (["claude", "--help"], ["--", "claude", "--help"]),
        (["--help"], ["--help"]),
        ([], []),
    ],
)
def test_options_stand_on_either_side_of_the_name(typed: Sequence[str], arranged: Sequence[str]) -> None:
    assert arrange(list(typed), OPTIONS) == arranged


def test_it_takes_the_place_of_the_command_where_a_server_runs(home: Path, demo: Server) -> None:
    result = launch(home, "--url", demo.url, "claude", "fix it", "--", "-x", "5")
    report = json.loads(result.stdout)
    assert result.returncode == 5
    assert report["arguments"] == ["fix it", "--", "-x", "5"]
    assert report["models"] == ["tiles-nano"]
    assert report["cwd"] == str(Path.cwd())
    assert report["env"]["HOME"] == str(home)
    assert report["env"]["ANTHROPIC_MODEL"] == "tiles-nano"
    assert report["env"]["CLAUDE_CODE_MAX_CONTEXT_TOKENS"] == "8192"
    assert report["env"]["DISABLE_TELEMETRY"] == "1"
    assert "8,192" in result.stderr  # the context is too short for it
    profile = home / ".tiles/server/launch/claude"
    assert report["env"]["CLAUDE_CONFIG_DIR"] == str(profile)
    written = {str((profile / name).relative_to(home)) for name in (".claude.json", "settings.json")}
    assert files(home) == {"bin/claude", *written}


def test_a_key_is_sent_and_never_shown(home: Path, guarded: Server) -> None:
    result = launch(home, "--url", guarded.url, "claude", TILES_API_KEY=KEY)
    assert json.loads(result.stdout)["env"]["ANTHROPIC_AUTH_TOKEN"] == KEY
    printed = launch(home, "--print", "--url", guarded.url, "--api-key", KEY, "claude")
    assert printed.returncode == 0
    assert "ANTHROPIC_AUTH_TOKEN=****" in printed.stdout.replace("'", "")
    assert KEY not in printed.stdout + printed.stderr
    assert KEY not in "".join(path.read_text() for path in (home / ".tiles").rglob("*") if path.is_file())
    refused = launch(home, "--url", guarded.url, "--api-key", "wrong", "claude")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "Invalid API Key" in refused.stderr


def test_a_model_that_is_not_served_is_refused(home: Path, demo: Server) -> None:
    result = launch(home, "--url", demo.url, "claude", "--model", "other")
    assert (result.returncode, result.stdout) == (1, "")
    assert "has no model other: it serves tiles-nano" in result.stderr


def test_a_model_may_be_named_by_its_path(home: Path, server: Server, tiny: Path) -> None:
    result = launch(home, "--url", server.url, "--model", str(tiny), "claude")
    assert json.loads(result.stdout)["env"]["ANTHROPIC_MODEL"] == str(tiny)


@pytest.mark.parametrize("name", AGENTS)
def test_it_shows_what_it_would_do_and_does_nothing(home: Path, name: str) -> None:
    (home / "bin" / "claude").unlink()
    result = launch(home, name, "--demo", "--print", "word", PATH=str(home / "bin"))
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert "tiles-nano, 8,192 tokens" in lines[0]
    assert "not installed" in lines[1]
    assert "tiles-server --demo" in lines[2]
    assert lines[-1].split()[0] == AGENTS[name].command
    assert lines[-1].split()[-1] == "word"
    assert files(home) == set()
    plain = "\n".join(line for line in lines[:-1] if not line.startswith("#"))
    assert subprocess.run(["sh", "-ec", plain], capture_output=True, text=True).stderr == ""


def test_a_profile_is_taken_away(home: Path, demo: Server) -> None:
    assert launch(home, "--url", demo.url, "claude").returncode == 0
    removed = launch(home, "--remove", "claude")
    assert (removed.returncode, removed.stdout) == (0, "The profile of Claude Code is removed.\n")
    assert files(home) == {"bin/claude"}
    assert "There is no profile" in launch(home, "claude", "--remove").stdout


def test_who_is_missing_or_unknown_is_said_in_a_line(home: Path) -> None:
    missing = launch(home, "codex", "--demo", PATH=str(home / "bin"))
    assert (missing.returncode, missing.stdout) == (127, "")
    assert missing.stderr == "Codex is not installed: npm install -g @openai/codex\n"
    unknown = launch(home, "clod")
    assert (unknown.returncode, unknown.stdout) == (2, "")
    assert unknown.stderr.count("\n") == 1
    assert "claude" in unknown.stderr


def test_without_a_name_all_are_listed(home: Path) -> None:
    listed = launch(home, PATH=str(home / "bin")).stdout.splitlines()
    assert str(home / "bin" / "claude") in listed[0]
    assert "npm install -g @openai/codex" in listed[1]


def test_without_a_server_and_a_model_it_says_what_to_give(home: Path) -> None:
    result = launch(home, "claude")
    assert (result.returncode, result.stdout) == (1, "")
    assert "--model" in result.stderr


@pytest.mark.slow
def test_its_own_server_lives_as_long_as_the_agent(home: Path) -> None:
    port = free_port()
    result = launch(home, "claude", "--demo", "7", TILES_PORT=str(port), TILES_API_KEY=KEY)
    assert result.returncode == 7, result.stderr
    report = json.loads(result.stdout)  # the server's log is not in it
    assert report["env"]["ANTHROPIC_BASE_URL"] == f"http://127.0.0.1:{port}"
    assert report["models"] == ["tiles-nano"]
    log = home / ".tiles/server/launch/server.log"
    assert "model loaded" in log.read_text()
    assert log.stat().st_mode & 0o077 == 0
    assert not listens(port)


@pytest.mark.slow
def test_a_signal_is_for_the_agent_and_its_server_ends_after_it(home: Path) -> None:
    port = free_port()
    started = command(home, "--demo", "claude", "wait", TILES_PORT=str(port))
    with subprocess.Popen(**started, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        report = json.loads(process.stdout.readline())
        assert report["pid"] != process.pid
        process.send_signal(signal.SIGTERM)
        assert process.wait(SECONDS) == 7
    assert not listens(port)


@pytest.mark.slow
def test_a_signal_before_the_agent_runs_ends_its_server(home: Path) -> None:
    port = free_port()
    started = command(home, "--demo", "claude", TILES_PORT=str(port))
    with subprocess.Popen(**started, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stderr.readline() == "Starting a server\n"
        wait_for((home / ".tiles/server/launch/server.log").exists, what="the log of the server")
        process.send_signal(signal.SIGTERM)
        assert process.wait(SECONDS) == 128 + signal.SIGTERM
        assert process.stdout.read() == ""
    assert not listens(port)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_while_a_server_is_begun_counts_once_it_is_known(number: signal.Signals) -> None:
    # a shell has what it starts behind it ignore Ctrl-C, and this may be a child of such
    script = """
import os, signal, sys
from app.commands import foreground
signal.signal(signal.SIGINT, signal.default_int_handler)
foreground.exit_on_signals()
try:
    with foreground.signals_later():
        os.kill(os.getpid(), int(sys.argv[1]))
        print("begun", flush=True)
    print("not reached")
except BaseException as end:
    print(type(end).__name__, getattr(end, "code", ""))
"""
    done = subprocess.run([sys.executable, "-c", script, str(int(number))], capture_output=True, text=True, check=False)
    end = "KeyboardInterrupt " if number == signal.SIGINT else f"SystemExit {128 + number}"
    assert done.stdout == f"begun\n{end}\n"


@pytest.mark.slow
def test_a_server_that_is_to_stay_serves_the_next_start(home: Path) -> None:
    port = str(free_port())
    first = launch(home, "--demo", "--keep-server", "claude", TILES_PORT=port)
    assert first.returncode == 0, first.stderr
    second = launch(home, "claude", TILES_PORT=port)
    assert second.returncode == 0, second.stderr
    assert json.loads(second.stdout)["models"] == ["tiles-nano"]
    ending = re.search(r"`kill (\d+)`", first.stderr)
    assert ending is not None
    os.kill(int(ending[1]), signal.SIGTERM)
    wait_for(lambda: not listens(int(port)), what="the end of the server")


@pytest.mark.slow
def test_a_load_that_fails_is_said_and_leaves_no_server(home: Path) -> None:
    (home / "broken").mkdir()
    port = free_port()
    result = launch(home, "claude", "--model", str(home / "broken"), TILES_PORT=str(port))
    assert (result.returncode, result.stdout) == (1, "")
    assert "a folder with an MLX model is needed" in result.stderr
    assert not listens(port)
