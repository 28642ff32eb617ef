"""`tiles-server stats`: what was used, from the file that the servers of this machine write."""

import json
import sqlite3
from datetime import date, timedelta
from pathlib import Path

import click
import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from app import settings
from app.dto.tiles.usage import UsageReply, UsageRow
from app.services.usage_file import DAYS, GROUPS, UsageFile
from app.settings import SettingError

_WIDTH = 40  # of the longest bar


@click.command()
@click.option("--days", type=click.IntRange(1, DAYS), default=30, help="Days to look back; 30 by default.")
@click.option(
    "--by",
    type=click.Choice(GROUPS),
    multiple=True,
    help="What to sum by: day (the default), model, client, key. May be given several times.",
)
@click.option("--chart", is_flag=True, help="Draw the tokens of each day as bars.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, as GET /v1/usage answers.")
@click.option("--data-dir", type=click.Path(path_type=Path), help="Data folder of the server; its default otherwise.")
def stats(days: int, by: tuple[str, ...], chart: bool, as_json: bool, data_dir: Path | None) -> None:
    """Show requests, tokens and seconds of the last days. Needs no server; one that runs writes every ten seconds."""
    groups = ["day"] if chart else [name for name in GROUPS if name in (by or ("day",))]
    end = date.today()
    start = end - timedelta(days=days - 1)
    try:
        sums = UsageFile(data_dir or settings.read().data_dir).read(start, end, groups)
    except (SettingError, OSError, sqlite3.Error) as error:
        raise click.ClickException(str(error)) from error
    reply = UsageReply.of(start, end, groups, sums)
    console = Console(highlight=False)
    if as_json:
        click.echo(json.dumps(msgspec.to_builtins(reply), indent=2, ensure_ascii=False))
    elif not reply.data:
        click.echo(f"Nothing was used in the last {days} days.")
    elif chart:
        console.print(_chart(reply.data, start, days))
    else:
        console.print(_table(reply))


def _table(reply: UsageReply) -> Table:
    table = Table(*reply.group_by, box=None, pad_edge=False, show_footer=True)
    for name in ("requests", "refused", "prompt", "cached", "answer", "seconds"):
        table.add_column(name, justify="right")
    lines = [_cells(row) for row in (*reply.data, reply.total)]
    for line, row in zip(lines[:-1], reply.data, strict=True):
        table.add_row(*(Text(getattr(row, name) or "-", overflow="fold") for name in reply.group_by), *line)
    for column, text in zip(table.columns[len(reply.group_by) :], lines[-1], strict=True):
        column.footer = text
    if reply.group_by:
        table.columns[0].footer = "total"
    return table


def _cells(row: object) -> list[str]:
    numbers = ("requests", "refusals", "prompt_tokens", "cached_tokens", "completion_tokens", "seconds")
    return [f"{getattr(row, name):,.0f}" for name in numbers]


def _chart(rows: list[UsageRow], start: date, days: int) -> Table:
    """Draw a bar for each day: what was computed of prompts, then answers."""
    by_day = {row.day: row for row in rows}
    most = max(_tokens(row) for row in rows) or 1
    table = Table("day", "tokens of prompts ░, cached ones left out, and of answers █", "", box=None, pad_edge=False)
    for number in range(days):
        day = (start + timedelta(days=number)).isoformat()
        row = by_day.get(day)
        if row is None:
            table.add_row(day, "", "")
            continue
        answers = round(_WIDTH * row.completion_tokens / most)
        prompts = round(_WIDTH * _tokens(row) / most) - answers
        table.add_row(day, "░" * prompts + "█" * answers, Text(f"{_tokens(row):,}", justify="right"))
    return table


def _tokens(row: UsageRow) -> int:
    return row.prompt_tokens - row.cached_tokens + row.completion_tokens
