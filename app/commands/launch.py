"""`tiles-server launch`: start a coding agent against a server."""

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

import click

from app import settings
from app.commands import foreground, launch_server, launch_text
from app.commands.launch_target import Choice
from app.commands.server_client import ServerFailure
from app.commands.usage_error import UsageError
from app.services.coding_agents import AGENTS, Agent, folder
from app.settings import SettingError, Settings

_NOT_INSTALLED = 127  # as shells say that there is no such command


class _Launch(click.Command):
    """Takes its own options on either side of the agent's name; what follows is the agent's."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, arrange(args, self._values()))

    def _values(self) -> Mapping[str, int]:
        """Give the options that may stand behind the name, with the number of their values."""
        options = [param for param in self.params if isinstance(param, click.Option)]
        return {name: 0 if option.is_flag else 1 for option in options for name in option.opts}


def arrange(words: list[str], options: Mapping[str, int]) -> list[str]:
    """Put options that stand behind the agent's name before it.

    `options` has the number of values of each. One `--` behind them is left out: it says that the agent's own
    arguments begin.
    """
    before = _length(words, options)
    name, rest = words[before : before + 1], words[before + 1 :]
    behind = _length(rest, options)
    own, arguments = rest[:behind], rest[behind:]
    if arguments[:1] == ["--"]:
        del arguments[0]
    return [*words[:before], *own, *(["--", *name, *arguments] if name and not name[0].startswith("-") else name)]


def _length(words: list[str], options: Mapping[str, int]) -> int:
    """Count the words that options and their values take at the beginning."""
    length = 0
    while length < len(words) and (values := options.get(words[length].partition("=")[0])) is not None:
        length += 1 if "=" in words[length] else 1 + values
    return length


@click.command(cls=_Launch, context_settings={"allow_interspersed_args": False})
@click.option("--url", help="Address of a running server; the one on this machine's port 6969 by default.")
@click.option("--api-key", metavar="KEY", help="API key of the server; TILES_API_KEY by default.")
@click.option("--model", metavar="NAME", help="Model to use; the one that is served by default.")
@click.option("--demo", is_flag=True, help="Serve the small demo model.")
@click.option("--models-dir", metavar="DIR", help="Serve every model in this folder.")
@click.option("--context-length", metavar="TOKENS", help="Maximum context length of a server that is started.")
@click.option("--keep-server", is_flag=True, help="Let a server that was started run on when the agent ends.")
@click.option("--print", "only_print", is_flag=True, help="Show what would be done, and do nothing.")
@click.option("--remove", is_flag=True, help="Take away the agent's profile, with its sessions; all without a name.")
@click.argument("name", metavar="[AGENT]", required=False)
@click.argument("arguments", metavar="[ARGS]...", nargs=-1, type=click.UNPROCESSED)
def launch(name: str | None, arguments: tuple[str, ...], only_print: bool, remove: bool, **options: Any) -> None:
    """Start a coding agent against this server.

    AGENT is one of claude, codex, opencode, qwen, pi, cline, continue and aider; without one, all are listed. If no
    server runs, one is started for as long as the agent runs; its log is launch/server.log in the data folder. The
    agent gets a profile of its own in that folder, which says where the server is and how long the model's context
    is: your own configuration stays as it is. Telemetry is off, unless your environment says otherwise.

    ARGS are the agent's own arguments. They begin with the first word that is no option of this command, or behind
    `--`: Claude Code's own --print is -p, or stands behind `--`.
    """
    try:
        choice = Choice(**options)
        values = settings.read(choice.settings())
        if not name:
            _remove_all(values) if remove else launch_text.list_agents(os.environ)
            return
        agent = _agent(name)
        if remove:
            _remove(agent, values)
        elif only_print:
            server = launch_server.expect(choice, values)
            profile = agent.profile(server.facts, _folder(agent, values), os.environ)
            launch_text.print_plan(agent, profile, server, _folder(agent, values), arguments)
        else:
            _start(agent, arguments, choice, values)
    except SettingError as error:
        raise UsageError(str(error)) from None
    except (ServerFailure, OSError, ValueError) as error:
        raise click.ClickException(str(error)) from None


def _start(agent: Agent, arguments: tuple[str, ...], choice: Choice, values: Settings) -> NoReturn:
    program = agent.find(os.environ)
    if program is None:
        click.echo(f"{agent.title} is not installed: {agent.install}", err=True)
        sys.exit(_NOT_INSTALLED)
    foreground.exit_on_signals()  # a server that was started ends too then
    with launch_server.running(choice, values, log_path=_launch_folder(values) / "server.log") as server:
        facts = server.facts
        if facts.context < agent.least_context:
            launch_text.warn(
                f"{agent.title} needs about {agent.least_context:,} tokens of context, "
                f"and {facts.model} has {facts.context:,}: it may not get far"
            )
        profile = agent.profile(facts, _folder(agent, values), os.environ)
        folder.write(profile, _folder(agent, values))
        environ = {name: value for name, value in {**os.environ, **profile.env}.items() if value is not None}
        start: Callable[..., int] = foreground.run if server.is_own else foreground.become
        code = start(program, (*profile.arguments, *arguments), environ)
    sys.exit(code)


def _agent(name: str) -> Agent:
    if name not in AGENTS:
        raise UsageError(f"There is no agent '{name}' here: give one of {', '.join(AGENTS)}")
    return AGENTS[name]


def _launch_folder(values: Settings) -> Path:
    return values.data_dir / "launch"


def _folder(agent: Agent, values: Settings) -> Path:
    return _launch_folder(values) / agent.name


def _remove(agent: Agent, values: Settings) -> None:
    was_there = folder.remove(_folder(agent, values))
    click.echo(f"The profile of {agent.title} is removed." if was_there else f"There is no profile of {agent.title}.")


def _remove_all(values: Settings) -> None:
    was_there = folder.remove(_launch_folder(values))
    click.echo("All profiles are removed." if was_there else "There are no profiles.")
