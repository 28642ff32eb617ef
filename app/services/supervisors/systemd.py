"""A unit of systemd's user manager, as systemd.unit(5), systemd.service(5) and systemd.exec(5) describe it."""

import os
from collections.abc import Sequence
from pathlib import Path

from app.services.supervisors.job import CannotSupervise, Job, JobState, require_success, run

UNIT = "tiles-server.service"
_OBJECTIONABLE = "\"'\\"  # in the path of the program; in its arguments all characters can stand
_SHELL = ("/bin/sh", "-c", 'exec "$0" "$@"')


class Systemd:
    """The user manager."""

    mark = "# Written by `tiles-server service install`, which writes all of it anew."
    login_advice = "`loginctl enable-linger` has it start with the machine, without a login."

    def __init__(self) -> None:
        config = os.environ.get("XDG_CONFIG_HOME", "")
        folder = Path(config) if config.startswith("/") else Path.home() / ".config"
        self.path = folder / "systemd" / "user" / UNIT

    def describe(self, job: Job) -> str:
        """Give the unit."""
        words = job.arguments
        if any(letter in _OBJECTIONABLE or not letter.isprintable() for letter in words[0]):
            words = (*_SHELL, *words)
        # The colon turns $ into a letter like any other.
        lines = [f"ExecStart=:{' '.join(map(quote, words))}"]
        lines += [f"Environment={quote(f'{name}={value}')}" for name, value in job.environment.items()]
        return _UNIT.format(mark=self.mark, lines="\n".join(lines), seconds=round(job.stop_seconds))

    def require(self) -> None:
        """Check that there is a manager."""
        if run("systemctl", "--user", "show-environment").returncode:
            raise CannotSupervise(
                "no user manager of systemd runs here: log in, or have an administrator run "
                "`loginctl enable-linger USER`"
            )

    def start(self) -> None:
        """Start it anew, so that what was changed counts."""
        require_success("systemctl", "--user", "daemon-reload")
        require_success("systemctl", "--user", "enable", UNIT)
        require_success("systemctl", "--user", "restart", UNIT)

    def stop(self) -> None:
        """End it."""
        self.require()
        require_success("systemctl", "--user", "disable", "--now", UNIT)

    def state(self) -> JobState:
        """Ask the manager."""
        names = ("ActiveState", "SubState", "MainPID", "ExecMainStatus")
        done = run("systemctl", "--user", "show", UNIT, *(f"--property={name}" for name in names))
        facts = dict(line.partition("=")[::2] for line in done.stdout.splitlines())
        if done.returncode or not facts:
            return JobState(False, "unknown: no user manager of systemd runs here")
        active, process = facts.get("ActiveState", ""), int(facts.get("MainPID") or 0)
        text = f"{active} ({facts.get('SubState', '')})"
        if active == "failed":
            text += f", exit code {facts.get('ExecMainStatus', '')}"
        return JobState(active == "active", text, process or None)

    def log_command(self, lines: int, log_path: Path, *, follow: bool) -> Sequence[str]:
        """Give the command that shows the journal."""
        more = ("--follow",) if follow else ("--no-pager",)
        return ("journalctl", "--user", f"--unit={UNIT}", f"--lines={lines}", "--output=cat", *more)


def quote(word: str) -> str:
    """Spell a word so that systemd reads it as it is. Raises CannotSupervise for one that no unit can hold."""
    if not all(_is_text(letter) for letter in word):
        raise CannotSupervise(f"{word!a} cannot stand in a unit of systemd: it is no text")
    return '"' + "".join(map(_escape, word)) + '"'


def _escape(letter: str) -> str:
    if letter < " " or letter == "\x7f":
        return f"\\x{ord(letter):02x}"
    return {"%": "%%", '"': '\\"', "\\": "\\\\"}.get(letter, letter)


def _is_text(letter: str) -> bool:
    """Whether systemd takes a character: no half of a pair, no zero, and none that Unicode says is none."""
    number = ord(letter)
    return number != 0 and not 0xD800 <= number < 0xE000 and not 0xFDD0 <= number < 0xFDF0 and number & 0xFFFE != 0xFFFE


# Exit code 2 says that the settings cannot be used: to start again would not help.
_UNIT = """\
{mark}
# Lines of your own: `systemctl --user edit tiles-server`.

[Unit]
Description=Tiles Server

[Service]
Type=exec
{lines}
ExecReload=/bin/kill -HUP $MAINPID
Restart=on-failure
RestartSec=5
RestartPreventExitStatus=2
KillMode=mixed
TimeoutStopSec={seconds}

[Install]
WantedBy=default.target
"""
