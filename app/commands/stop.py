"""`tiles-server stop`: have a running server unload a model, or stop its download."""

import click

from app.commands.server_client import ServerFailure
from app.commands.server_options import connect, server_options


@click.command()
@click.argument("name", metavar="MODEL")
@server_options("Address of the server; the one on this machine by default.")
def stop(name: str, url: str | None, api_key: str | None) -> None:
    """Unload MODEL from a running server, or stop its download, which `pull` continues. The server itself goes on."""
    server = connect(url, api_key)
    try:
        reply = server.call("POST", "/models/unload", {"model": name})
    except ServerFailure as error:
        raise click.ClickException(str(error)) from None
    if not reply["success"]:
        raise click.ClickException(reply["error"])
    click.echo(f"Stopped {name}.")
