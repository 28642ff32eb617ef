"""`tiles-server rm`: delete a model that was downloaded, here or on a server."""

import sys

import click
from rich.filesize import decimal

from app.commands.server_client import ServerFailure
from app.commands.server_options import connect, server_options
from app.commands.usage_error import UsageError
from app.services.downloads.removal import Removal
from app.services.errors import AppError
from app.services.hub import hugging_face_cache


@click.command()
@click.argument("name", metavar="ID")
@click.option("--yes", is_flag=True, help="Do not ask first; needed without a terminal.")
@server_options("Delete it on the server at this address.")
def rm(name: str, yes: bool, url: str | None, api_key: str | None) -> None:
    """Delete the model ID from the Hugging Face cache, or a GGUF file of it: org/name:Q4_K_M.

    Models in other folders are yours: delete them yourself.
    """
    try:
        removal = None if url else Removal(name, hugging_face_cache())
        if not yes and not sys.stdin.isatty():
            raise UsageError(f"--yes is needed to delete {name} without a terminal")
        if not yes and not click.confirm(f"Delete {name}{f' on {url}' if url else ''}?", err=True):
            return
        if removal is not None:
            click.echo(f"Deleted {name}: {decimal(removal.run())} are free.")
        else:
            connect(url, api_key).call("DELETE", "/models", {"model": name}, {"X-Confirm-Delete": name})
            click.echo(f"Deleted {name} on {url}.")
    except AppError as error:
        raise click.ClickException(error.message) from error
    except (ServerFailure, OSError) as error:
        raise click.ClickException(str(error)) from None
