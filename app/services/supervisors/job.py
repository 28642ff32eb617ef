"""What a supervisor runs, how it stands, and the file that says so."""

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from app.services import atomic

_SECONDS = 60.0  # for an answer of the supervisor


class CannotSupervise(Exception):
    """Why a supervisor cannot do what it should; the message is for people."""


@dataclass(frozen=True, slots=True)
class Job:
    """A program that is to run."""

    arguments: tuple[str, ...]  # the program first, as an absolute path
    environment: Mapping[str, str] = field(default_factory=dict)
    log_path: Path = Path("/dev/null")  # where the supervisor keeps no log itself
    stop_seconds: float = 40.0  # that it gets to end


@dataclass(frozen=True, slots=True)
class JobState:
    """How a job stands, in the supervisor's own words."""

    is_running: bool
    text: str
    process_id: int | None = None


class Supervisor(Protocol):
    """Its methods raise CannotSupervise, and OSError where a file cannot be read or written."""

    path: Path  # of the file that describes the job
    mark: str  # in that file, which tells it from one of somebody else
    login_advice: str  # how the job starts without a login; empty if it cannot

    def describe(self, job: Job) -> str:
        """Give what belongs into the file."""

    def require(self) -> None:
        """Check that the supervisor runs for this user."""

    def start(self) -> None:
        """Have it read the file, and run the job from now on, and from each login on."""

    def stop(self) -> None:
        """End the job, and have it forgotten."""

    def state(self) -> JobState:
        """Give how it stands."""

    def log_command(self, lines: int, log_path: Path, *, follow: bool) -> Sequence[str]:
        """Give the program that shows the end of its log."""


def is_installed(supervisor: Supervisor) -> bool:
    """Whether there is a file of ours. Raises CannotSupervise if there is one that is not."""
    try:
        content = supervisor.path.read_bytes()
    except FileNotFoundError:
        if supervisor.path.is_symlink():
            raise CannotSupervise(f"{supervisor.path} leads nowhere: remove it first") from None
        return False
    if supervisor.mark.encode() not in content:
        raise CannotSupervise(f"{supervisor.path} is not of tiles-server: move it away first")
    return True


def install(supervisor: Supervisor, job: Job) -> None:
    """Write the file, or write it anew, and start the job."""
    text = supervisor.describe(job)
    is_installed(supervisor)
    supervisor.require()
    atomic.write(supervisor.path, text)
    supervisor.start()


def uninstall(supervisor: Supervisor) -> bool:
    """Stop the job and remove the file. False if there was none."""
    if not is_installed(supervisor):
        return False
    supervisor.stop()
    supervisor.path.unlink()
    return True


def run(*words: str) -> subprocess.CompletedProcess[str]:
    """Run a program of the supervisor. Raises CannotSupervise if there is none."""
    try:
        return subprocess.run(words, capture_output=True, text=True, timeout=_SECONDS, stdin=subprocess.DEVNULL)
    except FileNotFoundError:
        raise CannotSupervise(f"there is no {words[0]} here") from None
    except subprocess.TimeoutExpired:
        raise CannotSupervise(f"{' '.join(words)} does not come to an end") from None


def require_success(*words: str) -> None:
    """Run a program of the supervisor. Raises CannotSupervise with what it says if it fails."""
    done = run(*words)
    if done.returncode:
        reason = next(iter(reversed(done.stderr.split("\n")[:-1])), f"exit code {done.returncode}")
        raise CannotSupervise(f"`{' '.join(words)}`: {reason}")
