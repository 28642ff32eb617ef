"""What starts the server at each login and again when it fails: systemd on Linux, launchd on macOS."""

import sys

from app.services.supervisors.job import CannotSupervise, Job, JobState, Supervisor
from app.services.supervisors.launchd import Launchd
from app.services.supervisors.systemd import Systemd

__all__ = ["CannotSupervise", "Job", "JobState", "Supervisor", "supervisor"]


def supervisor() -> Supervisor:
    """Give this system's. Raises CannotSupervise where none is known."""
    match sys.platform:
        case "darwin":
            return Launchd()
        case "linux":
            return Systemd()
    raise CannotSupervise(f"there is no way to install a service on {sys.platform}")
