"""The check of the machines of `--hostfile` by `tiles-server doctor`."""

import json
import subprocess
from typing import Any

from app.commands.checks import Check, CheckContext
from app.services.engine.group.processes import command
from app.services.hostfile import Host

_SECONDS = 60.0  # that a machine has to answer
_LOOK = "Compare it with docs/several-machines.md."


def machines(context: CheckContext) -> Check | None:
    """Check that other machines are reached, and have the same versions and the same model."""
    settings, model = context.settings, context.model
    if settings.hostfile is None:
        return None
    try:
        here, *others = settings.machines.hosts
    except ValueError as error:
        return Check("Machines", "failed", str(error), _LOOK)
    folder = str(model.path) if model is not None else ""
    try:
        own = _look(Host("localhost", here.ips), folder)
        for host in others:
            their = _look(host, folder)
            for what, value in own.items():
                if their.get(what) != value:
                    detail = f"{host.ssh} has {what} {their.get(what)}, this machine {value}"
                    return Check("Machines", "failed", detail, "Make both the same: versions, and the model's folder.")
    except _NoAnswer as error:
        return Check("Machines", "failed", str(error), "ssh has to reach it without a password.")
    names = ", ".join(host.ssh for host in others)
    return Check("Machines", "ok", f"{names}: the same versions{' and the same model' if model else ''}")


class _NoAnswer(Exception):
    """A machine does not say what it has."""


def _look(host: Host, folder: str) -> dict[str, Any]:
    """Ask a machine for its versions and the checksum of a model."""
    try:
        done = subprocess.run(command(host, folder), capture_output=True, text=True, timeout=_SECONDS)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _NoAnswer(f"{host.ssh} does not answer: {type(error).__name__}") from error
    try:
        answer = json.loads(done.stdout)
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        last = next(iter(reversed(done.stderr.strip().splitlines())), f"exit code {done.returncode}")
        raise _NoAnswer(f"{host.ssh} does not answer: {last[:200]}")
    return answer
