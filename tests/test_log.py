"""What the log shows, and what it never shows."""

import json
import os
import subprocess
import sys

import pytest

from app.log import printable

FAILING = """
import logging
import structlog
from app import log

def answer(prompt):
    key = "Bearer " + "k3y"
    raise RuntimeError("it went wrong")

log.set_up({form!r})
try:
    answer("tell me " + "a s3cret")
except RuntimeError as error:
    structlog.get_logger().error("request failed", exc_info=error)
    structlog.get_logger().exception("answer failed")
    logging.getLogger("uvicorn.error").exception("library failed")
"""


@pytest.mark.parametrize("form", ["console", "json"])
def test_a_failure_is_logged_with_its_traceback_and_without_what_was_said(form: str) -> None:
    command = [sys.executable, "-c", FAILING.format(form=form)]
    log = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=True, timeout=60).stderr
    assert log.count("it went wrong") == 3
    assert log.count("Traceback") == 3
    assert "a s3cret" not in log
    assert "k3y" not in log.replace('"k3y"', "")  # the source line itself may stand there
    if form == "json":
        assert json.loads(log.splitlines()[0])["event"] == "request failed"


TALKATIVE = """
import structlog
from app import log

log.set_up("json")
said = structlog.get_logger()
for number in range(4000):
    said.info("line", number=number)
print("all said", flush=True)
input()
said.info("one more")
said.info("the last")
"""


def talkative() -> "subprocess.Popen[str]":
    """A program whose log nobody reads."""
    return subprocess.Popen(
        [sys.executable, "-c", TALKATIVE],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_log_that_nobody_reads_holds_up_nothing_and_says_later_how_much_is_lost() -> None:
    with talkative() as program:
        assert program.stdout is not None and program.stderr is not None
        assert program.stdout.readline() == "all said\n"
        early = os.read(program.stderr.fileno(), 2**20).decode()
        _, late = program.communicate("\n", timeout=60)
    assert program.returncode == 0
    *numbered, lost, more, last = [json.loads(line) for line in (early + late).splitlines()]
    assert [line["number"] for line in numbered] == list(range(len(numbered)))
    assert (lost["event"], lost["lines"]) == ("log lines were lost", 4000 - len(numbered))
    assert 0 < len(numbered) < 4000
    assert (more["event"], last["event"]) == ("one more", "the last")


def test_a_log_whose_reader_is_gone_holds_up_nothing() -> None:
    with talkative() as program:
        assert program.stdout is not None and program.stderr is not None
        program.stderr.close()
        assert program.stdout.readline() == "all said\n"
        program.stderr = None  # closed: communicate would read it
        program.communicate("\n", timeout=60)
    assert program.returncode == 0


HOSTILE = """
import logging
import sys
import structlog
from app import log

log.set_up({form!r})
text = bytes.fromhex(sys.argv[1]).decode("utf-8", "surrogateescape")
said = structlog.get_logger()
said.info("request", route=text, note=[text], more={{text: text}})
said.bind(name=text).warning(text)
logging.getLogger("library").warning("it says %s", text)
try:
    raise ValueError(text)
except ValueError as error:
    said.error("request failed", exc_info=error, reason=str(error), error=error)
    said.exception("once more")
"""
ODD = "".join(map(chr, [*range(32), *range(127, 161), 0xAD, 0x200B, 0x200E, 0x202E, 0x2028, 0x2066, 0xFEFF, 0xE0041]))


@pytest.mark.parametrize("form", ["console", "json"])
@pytest.mark.parametrize(
    "text",
    [
        ODD,
        "\x1b]0;PWNED\x07",
        "\x1b]52;c;cHduZWQ=\x07",
        "a\u202eb",
        "a\n2026-11-28T20:00:00 [info     ] forged",
        "\udcff",
    ],
)
def test_no_text_reaches_the_terminal_as_more_than_text(form: str, text: str) -> None:
    hexed = text.encode("utf-8", "surrogateescape").hex()
    command = [sys.executable, "-c", HOSTILE.format(form=form), hexed]
    log = subprocess.run(command, stderr=subprocess.PIPE, check=True, timeout=60).stderr.decode()
    lines = log.split("\n")
    assert all(line.isprintable() for line in lines), log
    if form == "json":
        assert len([json.loads(line) for line in lines if line]) == 5
    else:
        assert len([line for line in lines if "[" in line[:60] and not line.startswith(" ")]) == 5
    assert log.count("ValueError") >= 2


def test_texts_that_are_no_threat_are_shown_as_they_are() -> None:
    for text in ("/v1/models", "Müller", "模型", "🙂", "a b"):
        assert printable(text) == text
    assert printable("\x1b[2J") == "\\x1b[2J"
    assert printable("a\nb", besides="\n") == "a\nb"
