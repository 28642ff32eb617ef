"""The chat in the terminal, through a pseudo-terminal as a person has it, and without one."""

import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from app.services.errors import Unavailable
from benchmarks.processes import free_port
from tests.conftest import START_SECONDS, Server, environment
from tests.scripted import ScriptedModel, answer, serving, thought

pytestmark = pytest.mark.slow

_STEERING = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]|\x1b[=>]|\r")
PROMPT = "\x1b[?2004h"  # what is written whenever a line is asked for: pasting is told apart from typing


def _take_terminal() -> None:
    """In the child: make the pseudo-terminal its own, and hear of Ctrl-C even where whoever runs the tests does not."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Terminal:
    """A program in a terminal of its own."""

    def __init__(self, home: Path, *arguments: str) -> None:
        self._end, inner = pty.openpty()
        fcntl.ioctl(inner, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 200, 0, 0))
        env = environment(home, TERM="xterm-256color", PROMPT_TOOLKIT_NO_CPR="1")
        del env["NO_COLOR"]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "app", "chat", *arguments],
            stdin=inner,
            stdout=inner,
            stderr=inner,
            env=env,
            start_new_session=True,
            preexec_fn=_take_terminal,
        )
        os.close(inner)
        self.seen = ""

    def type(self, text: str) -> None:
        os.write(self._end, text.encode())

    def until(self, text: str, seconds: float = START_SECONDS) -> str:
        """Read on until a text has come; give what came up to it, as it was written."""
        deadline = time.monotonic() + seconds
        while text not in self.seen:
            ready, _, _ = select.select([self._end], [], [], max(0.0, deadline - time.monotonic()))
            try:
                more = os.read(self._end, 65536) if ready else b""
            except OSError:  # the other end is closed
                more = b""
            assert more, f"waited for {text!r}, saw {self.seen[-2000:]!r}"
            self.seen += more.decode(errors="replace")
        before, _, self.seen = self.seen.partition(text)
        return before

    def ask(self, line: str, then: str = PROMPT) -> str:
        """Type a line once one is asked for, and give what is answered, up to the next question."""
        self.type(f"{line}\r")
        self.until("\x1b[?2004l")  # the line is taken
        return self.until(then)

    def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        self.process.wait(10)
        os.close(self._end)


@contextmanager
def chatting(home: Path, *arguments: str) -> Iterator[Terminal]:
    terminal = Terminal(home, *arguments)
    try:
        terminal.until(PROMPT)
        yield terminal
    finally:
        terminal.close()


def plain(text: str) -> str:
    return _STEERING.sub("", text)


def prompt_tokens(said: str) -> int:
    found = re.search(r"\d+ tokens, [\d.]+ tokens/s, first token after [\d.]+ s, prompt (\d+), \d+ cached", plain(said))
    assert found, said
    return int(found[1])


def test_a_person_talks_to_a_model(server: Server, home: Path) -> None:
    with chatting(home, "--url", server.url, "--max-tokens", "8") as terminal:
        assert "/reset" in terminal.ask("/help")
        first = prompt_tokens(terminal.ask("Hello"))
        assert prompt_tokens(terminal.ask("And now?")) > first + 8
        assert "new conversation" in terminal.ask("/reset")
        assert prompt_tokens(terminal.ask("Hello")) == first
        assert "Be brief." in terminal.ask("/system Be brief.")
        terminal.ask("/reset")
        assert prompt_tokens(terminal.ask("Hello")) > first
        assert "no system message" in terminal.ask("/system -")
        assert "tiny" in terminal.ask("/model")
        assert "no model 'nope'" in terminal.ask("/model nope")
        assert "answers from now on" in terminal.ask("/model tiny")
        assert "* tiny" in plain(terminal.ask("/model"))
        assert "Unknown command" in terminal.ask("/nonsense")
        terminal.type("/exit\r")
        assert terminal.process.wait(20) == 0


def test_thoughts_are_dimmed_and_what_steers_a_terminal_is_left_out(home: Path) -> None:
    model = ScriptedModel([answer(thought("Hm."), "Well, \x1b[31mhello\x07.")])
    with serving(model, home) as url, chatting(home, "--url", url) as terminal:
        said = terminal.ask("Hi")
        assert "\x1b[2mHm.\x1b[0m" in said
        assert "Well, [31mhello." in said


def test_ctrl_c_ends_an_answer_and_ctrl_d_the_chat(home: Path) -> None:
    endless = answer("One, ", "two, ")[:-1]
    model = ScriptedModel([endless, answer("Three.")])
    with serving(model, home) as url, chatting(home, "--url", url) as terminal:
        terminal.ask("Count", then="two, ")
        terminal.type("\x03")
        terminal.until("(stopped)")
        terminal.until(PROMPT)
        assert "Three." in terminal.ask("Go on")
        assert model.cancelled
        roles = [(message.role, message.content) for message in model.requests[-1].messages]
        assert roles == [("user", "Count"), ("assistant", "One, two, "), ("user", "Go on")]
        terminal.type("\x04")
        assert terminal.process.wait(20) == 0


def test_what_goes_wrong_is_said_and_the_chat_goes_on(home: Path) -> None:
    model = ScriptedModel([[*answer("Half")[:-1], Unavailable("the engine is gone")], answer("Whole.")])
    with serving(model, home) as url, chatting(home, "--url", url) as terminal:
        assert "the engine is gone" in terminal.ask("Hi")
        assert "Whole." in terminal.ask("Again")
        assert [message.content for message in model.requests[-1].messages] == ["Again"]


def piped(home: Path, typed: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "app", "chat", *arguments]
    return subprocess.run(
        command, input=typed, env=environment(home), capture_output=True, text=True, timeout=START_SECONDS
    )


def test_without_a_terminal_every_line_is_asked(home: Path) -> None:
    model = ScriptedModel([answer("One."), answer("Two.")])
    with serving(model, home) as url:
        done = piped(home, "a\nb\n", "--url", url, "--system", "Be brief.", "--model", "m")
    assert done.returncode == 0, done.stderr
    assert re.findall(r"^\w+\.$", done.stdout, re.MULTILINE) == ["One.", "Two."]
    assert [message.content for message in model.requests[-1].messages] == ["Be brief.", "a", "One.", "b"]


def test_a_server_that_is_not_there_is_said_so(home: Path) -> None:
    done = piped(home, "Hi\n", "--url", f"127.0.0.1:{free_port()}")
    assert "No server answers at http://127.0.0.1:" in done.stdout
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("url", ["ftp://x", "http://", "http://x:y"])
def test_what_is_no_address_is_refused(home: Path, url: str) -> None:
    done = piped(home, "", "--url", url)
    assert done.returncode == 1
    assert "is no address" in done.stderr


def test_a_key_is_needed_where_the_server_has_one(guarded: Server, home: Path) -> None:
    from tests.conftest import KEY

    refused = piped(home, "Hi\n", "--url", guarded.url)
    assert "tokens/s" not in refused.stdout
    done = piped(home, "Hi\n", "--url", guarded.url, "--api-key", KEY, "--max-tokens", "4")
    assert "tokens/s" in done.stdout


def test_serving_does_not_import_the_terminal(home: Path) -> None:
    code = "import sys, app.commands.serve; sys.exit('prompt_toolkit' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], env=environment(home), check=False).returncode == 0
