"""What the log shows, and what it never shows."""

import json
import os
import subprocess
import sys

import pytest

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
