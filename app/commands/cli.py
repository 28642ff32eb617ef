"""tiles-server and its commands; each is imported when it is used, so that the server starts quickly."""

import importlib
import sys
from typing import Any

import click

from app import __version__
from app.commands.process import end_on_signals
from app.standard_error import open_closed_streams

_COMMANDS = {
    "serve": "Serve a model (the default).",
    "chat": "Chat with a server in the terminal.",
    "launch": "Start a coding agent, such as Claude Code, against a server.",
    "models": "List the models on this machine.",
    "show": "Show what a model of this machine is, and what it takes.",
    "pull": "Download a model.",
    "rm": "Delete a model that was downloaded.",
    "ps": "List what a running server has in memory.",
    "stop": "Have a running server unload a model.",
    "webui": "Install the llama.cpp Web UI.",
    "explain": "Show where a request's time went.",
    "stats": "Show what was used: requests, tokens and seconds by day, model, client and key.",
    "memory": "List, show, export and undo what the memory agent wrote.",
    "tiles": "Let Tiles start this server instead of its own.",
    "service": "Run the server in the background, from each login on.",
    "config": "Show what is in force, and where each value comes from.",
    "doctor": "Check the machine and the model for problems.",
}


class _Lazy(click.Group):
    """Imports a command when it is used; without one, runs `serve`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        command = getattr(importlib.import_module(f"app.commands.{cmd_name}"), cmd_name)
        assert isinstance(command, click.Command)
        return command

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if _is_to_serve(args):
            args = ["serve", *args]
        return super().parse_args(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))


def _is_to_serve(args: list[str]) -> bool:
    """Whether there is no command, which means `serve`."""
    return not args or (args[0].startswith("-") and args[0] not in {"--help", "-h", "--version"})


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="tiles-server")
def cli() -> None:
    """Tiles Server: MLX language models behind one HTTP API.

    Without a command it runs serve: `tiles-server --demo` is `tiles-server serve --demo`.
    """


def main(args: list[str] | None = None) -> Any:
    """Run the command line."""
    open_closed_streams()
    words = sys.argv[1:] if args is None else args
    if _is_to_serve(words) or words[0] == "serve":
        end_on_signals()  # before the imports, which take a while
    return cli.main(args=args, prog_name="tiles-server")
