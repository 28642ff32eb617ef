"""`tiles-server explain`: where a request's time went."""

import json
from typing import Any
from urllib.parse import quote

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from app.commands.server_client import ServerFailure
from app.commands.server_options import connect, server_options

_WIDTH = 40  # of the longest bar
_MEANINGS = {
    "request": "reading the request, finding or loading the model",
    "template": "chat template and tokenizer, images, compiling a grammar",
    "queue": "waiting for a slot and for memory",
    "cache": "looking up the prompt in the prefix cache",
    "prompt": "computing the rest of the prompt",
    "first_token": "the first token",
    "tokens": "the other tokens",
    "grammar": "which tokens a grammar allows",
    "client": "until what was ready was read",
}


@click.command()
@click.argument("request_id", metavar="[REQUEST_ID]", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object instead of a table.")
@server_options("Address of the server; the one on this machine by default.")
def explain(request_id: str | None, as_json: bool, url: str | None, api_key: str | None) -> None:
    """Show where a request's time went, of the last one by default.

    REQUEST_ID is what X-Request-Id of its answer says, and the line of the log. A server remembers its last answers.
    """
    server = connect(url, api_key)
    try:
        if request_id:
            request = server.get(f"/v1/timings/{quote(request_id, safe='')}")
        else:
            request = next(iter(server.get("/v1/timings?limit=1")["data"]), None)
    except ServerFailure as error:
        raise click.ClickException(str(error)) from None
    if request is None:
        raise click.ClickException(f"The server at {server.url} has not answered anything yet")
    if as_json:
        click.echo(json.dumps(request, indent=2, ensure_ascii=False))
    else:
        _print(request)


def _print(request: dict[str, Any]) -> None:
    console = Console(highlight=False)
    cached, prompt = request["cached_tokens"], request["prompt_tokens"]
    facts = f"prompt {prompt:,} tokens, {cached:,} cached, answer {request['completion_tokens']:,}"
    console.print(Text(f"{request['id']}  {request['route']}  {request['model']}\n{facts}, {request['finish']}\n"))
    timing = request["timing"]
    parts = {name: timing[f"{name}_ms"] for name in _MEANINGS}
    most = max(parts.values()) or 1
    table = Table(box=None, pad_edge=False, show_footer=True)
    table.add_column("part", footer="total")
    table.add_column("ms", footer=f"{timing['total_ms']:,.1f}", justify="right")
    table.add_column("")
    table.add_column("", overflow="fold")
    for name, milliseconds in parts.items():
        bar = "█" * round(_WIDTH * milliseconds / most)
        table.add_row(name.replace("_", " "), f"{milliseconds:,.1f}", bar, Text(_MEANINGS[name], style="dim"))
    console.print(table)
