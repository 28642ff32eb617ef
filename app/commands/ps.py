"""`tiles-server ps`: what a running server has in memory, and what it downloads."""

import json
from collections.abc import Iterator
from typing import Any

import click
from rich.console import Console
from rich.filesize import decimal
from rich.table import Table
from rich.text import Text

from app.commands.server_client import ServerFailure
from app.commands.server_options import connect, server_options

_AT_REST = {"unloaded", "failed"}


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object instead of a table.")
@server_options("Address of the server; the one on this machine by default.")
def ps(as_json: bool, url: str | None, api_key: str | None) -> None:
    """List the models that a running server has in memory or loads, and its downloads."""
    server = connect(url, api_key)
    try:
        activity = server.get("/v1/activity")
    except ServerFailure as error:
        raise click.ClickException(str(error)) from None
    models = [model for model in activity["models"] if model["status"] not in _AT_REST]
    if as_json:
        names = ("status", "running", "waiting", "downloads")
        facts = {"url": server.url, "models": models, **{name: activity[name] for name in names}}
        click.echo(json.dumps(facts, indent=2, ensure_ascii=False))
    elif rows := list(_rows(activity, models)):
        table = Table("model", "status", "size", "context", box=None, pad_edge=False)
        for row in rows:
            table.add_row(*(Text(cell, overflow="fold") for cell in row))
        Console(highlight=False).print(table)
    else:
        click.echo(f"The server at {server.url} has no model in memory.")


def _rows(activity: dict[str, Any], models: list[dict[str, Any]]) -> Iterator[tuple[str, ...]]:
    if activity["loading"]:
        yield activity["loading"], _percent("loading", activity["progress"]), "", ""
    for model in models:
        size = decimal(model["size_bytes"]) if "size_bytes" in model else ""
        context = f"{model['context']:,}" if "context" in model else ""
        yield model["id"], _percent(model["status"], model.get("progress")), size, context
    for download in activity["downloads"]:
        share = download["done_bytes"] / (download["total_bytes"] or 1)
        is_active = download["status"] == "downloading"
        status = _percent("downloading", share) if is_active else f"download {download['status']}"
        yield download["id"], status, decimal(download["total_bytes"]), ""


def _percent(status: str, share: float | None) -> str:
    return status if share is None else f"{status}, {share:.0%}"
