"""What `tiles-server launch` says: the agents, a plan, warnings, and that a model loads."""

import os
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import click

from app.commands.launch_target import LaunchServer
from app.services.coding_agents import AGENTS, Agent, Profile
from app.services.coding_agents.folder import text

_MASK = "****"


def note(message: str) -> None:
    """Say what happens, away from the agent's output."""
    click.echo(message, err=True)


def warn(message: str) -> None:
    """Say what may go wrong."""
    click.echo(f"Warning: {message}", err=True)


class Progress:
    """Shows that a model loads: a bar on a terminal, elsewhere one line."""

    def __init__(self) -> None:
        self._show: Callable[[str, float], None] | None = None
        self._was_shown = False

    def __call__(self, fraction: float) -> None:
        """Show how far a load is, 0 to 1."""
        if sys.stderr.isatty():
            if self._show is None:
                from app.commands.loading_bar import LoadingBar

                self._show = LoadingBar()
            self._show("the model", fraction)
        elif fraction < 1 and not self._was_shown:
            note("Loading the model")
            self._was_shown = True


def list_agents(environ: Mapping[str, str]) -> None:
    """List the agents: which are installed, and how to install the others."""
    for agent in AGENTS.values():
        program = agent.find(environ)
        click.echo(f"{agent.name:<10} {agent.title:<14} {program or 'not installed: ' + agent.install}")


def print_plan(agent: Agent, profile: Profile, server: LaunchServer, folder: Path, arguments: Sequence[str]) -> None:
    """Print what a start would do, as commands of a shell; the key is masked."""
    for line in _plan(agent, profile, server, folder, arguments):
        key = server.facts.api_key
        click.echo(line.replace(key, _MASK) if key else line)


def _plan(agent: Agent, profile: Profile, server: LaunchServer, folder: Path, arguments: Sequence[str]) -> list[str]:
    facts = server.facts
    of = f"{facts.model}, {facts.context:,} tokens of context{', assumed' if server.assumed else ''}"
    lines = [f"# {agent.title} with {of}, at {facts.url}"]
    if agent.find(os.environ) is None:
        lines.append(f"# It is not installed: {agent.install}")
    if server.is_own:
        end = "and runs on" if server.stays else "and stopped at the end"
        lines.append(f"# No server runs: {shlex.join(['tiles-server', *server.flags])} is started, {end}")
    for name, file in profile.files.items():
        lines += [f"# {folder / name} has:", *(f"#   {line}" for line in text(file, {}).splitlines())]
    for name, value in profile.env.items():
        lines.append(f"unset {name}" if value is None else f"export {name}={shlex.quote(value)}")
    lines.append(shlex.join([agent.command, *profile.arguments, *arguments]))
    return lines
