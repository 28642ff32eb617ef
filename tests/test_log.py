"""What the log shows, and what it never shows."""

import json
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
