"""The options of commands that ask a running server."""

from collections.abc import Callable
from typing import TypeVar

import click

from app import settings
from app.commands.server_client import ServerClient, ServerFailure
from app.settings import SettingError

Command = TypeVar("Command", bound=Callable[..., None])


def server_options(meaning: str) -> Callable[[Command], Command]:
    """Add --url and --api-key to a command."""

    def add(command: Command) -> Command:
        key = click.option("--api-key", metavar="KEY", help="API key of the server; TILES_API_KEY by default.")
        return click.option("--url", metavar="URL", help=meaning)(key(command))

    return add


def connect(url: str | None, api_key: str | None) -> ServerClient:
    """Give a client of a server, by default of that which the settings describe. Raises ClickException."""
    try:
        return ServerClient.of(settings.read(), url, api_key)
    except (SettingError, ServerFailure) as error:
        raise click.ClickException(str(error)) from None
