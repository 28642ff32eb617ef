"""A launch agent, as launchd.plist(5) and launchctl(1) describe it. Not seen on a Mac yet."""

import os
import plistlib
import re
import time
from collections.abc import Sequence
from pathlib import Path

from app.services.supervisors.job import CannotSupervise, Job, JobState, require_success, run

LABEL = "tiles-server"
_STOP_SECONDS = 45.0  # after which launchd has ended any job
_INTERVAL = 0.2
_HEAD = b'<plist version="1.0">\n'


class Launchd:
    """The user's domain of it."""

    mark = "<!-- Written by `tiles-server service install`, which writes all of it anew. -->"
    login_advice = ""

    def __init__(self) -> None:
        self.path = Path.home() / "Library" / "LaunchAgents" / f"{LABEL}.plist"
        self._domain = f"gui/{os.getuid()}"
        self._target = f"{self._domain}/{LABEL}"

    def describe(self, job: Job) -> str:
        """Give the property list."""
        facts = {
            "Label": LABEL,
            "ProgramArguments": list(job.arguments),
            "EnvironmentVariables": dict(job.environment),
            "RunAtLoad": True,
            "KeepAlive": {"SuccessfulExit": False},
            "ThrottleInterval": 30,
            "ExitTimeOut": round(job.stop_seconds),
            "ProcessType": "Interactive",  # an answer is waited for: no fewer cycles than a program with a window
            "StandardOutPath": str(job.log_path),
            "StandardErrorPath": str(job.log_path),
        }
        try:
            text = plistlib.dumps(facts).decode()
            if plistlib.loads(text.encode()) != facts:  # XML makes \r a \n
                raise ValueError
        except ValueError:
            raise CannotSupervise("a setting has a control character, which no property list can hold") from None
        return text.replace(_HEAD.decode(), f"{_HEAD.decode()}{self.mark}\n", 1)

    def require(self) -> None:
        """Check that somebody is logged in."""
        if run("launchctl", "print", self._domain).returncode:
            raise CannotSupervise("launchd has no session for you: log in at the screen of this Mac")

    def start(self) -> None:
        """Start it anew, so that what was changed counts."""
        self._end()
        require_success("launchctl", "enable", self._target)
        require_success("launchctl", "bootstrap", self._domain, str(self.path))

    def stop(self) -> None:
        """End it."""
        self._end()

    def state(self) -> JobState:
        """Ask launchd, whose answer is for people."""
        done = run("launchctl", "print", self._target)
        if done.returncode:
            return JobState(False, "not loaded")
        facts = dict(re.findall(r"^\t(state|pid|last exit code) = (.+)$", done.stdout, re.MULTILINE))
        process = facts.get("pid", "")
        text = facts.get("state", "unknown")
        if "pid" not in facts and "last exit code" in facts:
            text += f", exit code {facts['last exit code']}"
        return JobState("pid" in facts, text, int(process) if process.isdecimal() else None)

    def log_command(self, lines: int, log_path: Path, *, follow: bool) -> Sequence[str]:
        """Give the command that shows the end of the file."""
        return ("tail", "-n", str(lines), *(("-F",) if follow else ()), str(log_path))

    def _end(self) -> None:
        """Have it forgotten, which takes as long as the server takes to end."""
        deadline = time.monotonic() + _STOP_SECONDS
        while not run("launchctl", "print", self._target).returncode:
            if time.monotonic() > deadline:
                raise CannotSupervise(f"the service does not end: `launchctl bootout {self._target}`")
            run("launchctl", "bootout", self._target)
            time.sleep(_INTERVAL)
