"""`tiles-server models`: the models in the caches of this machine, and why some cannot be loaded."""

import json
from typing import Any

import click
from rich.console import Console
from rich.filesize import decimal
from rich.table import Table
from rich.text import Text

from app.commands.server_client import ServerClient, ServerFailure
from app.commands.server_options import connect, server_options
from app.services import catalog
from app.services.catalog import CatalogEntry


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list instead of a table.")
@server_options("List what the server at this address can answer with, instead.")
def models(as_json: bool, url: str | None, api_key: str | None) -> None:
    """List the models on this machine: size, type, context length, and whether they can be loaded."""
    if url:
        _list_of_server(connect(url, api_key), as_json)
        return
    available = list(catalog.available())
    if as_json:
        click.echo(json.dumps([_described(model) for model in available], indent=2))
    elif available:
        _print(available)
    else:
        click.echo("There are no models on this machine. `tiles-server pull ID` downloads one.")


def _list_of_server(server: ServerClient, as_json: bool) -> None:
    try:
        rows = server.get("/v1/models")["data"]
    except ServerFailure as error:
        raise click.ClickException(str(error)) from None
    if as_json:
        click.echo(json.dumps(rows, indent=2, ensure_ascii=False))
        return
    table = Table("model", "status", "also called", box=None, pad_edge=False)
    for row in rows:
        cells = (row["id"], row["status"]["value"], ", ".join(row.get("aliases", [])))
        table.add_row(*(Text(cell, overflow="fold") for cell in cells))
    Console(highlight=False).print(table if rows else f"The server at {server.url} has no model.")


def _described(model: CatalogEntry) -> dict[str, Any]:
    folder = model.folder
    return {
        "id": model.id,
        "path": str(folder.path if folder else model.path),
        "disk_bytes": model.disk_bytes,
        "loadable": folder is not None,
        "problem": model.problem,
        "model_type": folder and folder.model_type,
        "precision": folder and folder.precision,
        "parameters": folder and folder.parameters,
        "context_length": folder and folder.context.tokens,
        "context_source": folder and folder.context.source,
    }


def _print(available: list[CatalogEntry]) -> None:
    table = Table("model", "size", "type", "context", "can be loaded", box=None, pad_edge=False)
    for model in available:
        table.add_row(*(Text(cell, overflow="fold") for cell in _row(model)))
    console = Console(highlight=False)
    console.print(table)
    for model in available:
        if model.problem:
            console.print(Text(f"\n{model.id}: {model.problem}"), soft_wrap=True)


def _row(model: CatalogEntry) -> tuple[str, ...]:
    folder, size = model.folder, decimal(model.disk_bytes)
    if folder is None:
        return model.id, size, "", "", "no, see below"
    context = f"{folder.context.tokens:,}{', assumed' if folder.context.is_assumed else ''}"
    return model.id, size, f"{folder.model_type}, {folder.precision}", context, "yes"
