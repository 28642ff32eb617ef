"""`tiles-server config`: what is in force, and where each value comes from."""

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from app.commands.setting_options import setting_options
from app.commands.usage_error import UsageError
from app.config_file import NAME
from app.services.presets import Preset
from app.settings import SettingError, Settings, default_text, described, flag, read_with_sources, variable

_DEFAULT = "default"


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object instead of a table.")
@setting_options
def config(as_json: bool, **flags: Any) -> None:
    """Show what the server would run with, and where each value comes from: flag, variable, file, Tiles or default.

    Takes the same flags as serve.
    """
    try:
        settings, sources = read_with_sources(flags)
        settings.check()
    except SettingError as error:
        raise UsageError(str(error)) from error
    if as_json:
        click.echo(json.dumps(_facts(settings, sources), indent=2, ensure_ascii=False))
    else:
        _print(settings, sources)


def _facts(settings: Settings, sources: dict[str, str]) -> dict[str, Any]:
    rows = {
        _name(item): {"value": _value(settings, item.name), "source": sources.get(item.name, _DEFAULT)}
        for item in described()
    }
    presets = {name: _table(preset) for name, preset in settings.presets.tables.items()}
    file = {"path": str(settings.config_file), "exists": settings.config_file.is_file()}
    return {"file": file, "settings": rows, "model": presets}


def _print(settings: Settings, sources: dict[str, str]) -> None:
    table = Table("setting", "value", "from", box=None, pad_edge=False)
    for item in described():
        source = sources.get(item.name, _DEFAULT)
        value = default_text(item) if source == _DEFAULT else _text(_value(settings, item.name))
        short = NAME if source == str(settings.config_file) else source
        table.add_row(*(Text(cell, overflow="fold") for cell in (_name(item), value, short)))
    for name, preset in settings.presets.tables.items():
        for key, value in _table(preset).items():
            cells = (f'model."{name}" {key}', _text(value), NAME)
            table.add_row(*(Text(cell, overflow="fold") for cell in cells))
    console = Console(highlight=False)
    console.print(table)
    if settings.config_file.is_file():
        console.print(Text(f"\n{NAME} is {settings.config_file}"), soft_wrap=True)
    else:
        text = f"\nThere is no {settings.config_file}: the settings above may stand there, one a line."
        console.print(Text(text), soft_wrap=True)


def _name(item: Any) -> str:
    """Name a setting as the file does, or by its variable where it has no flag."""
    name = flag(item)
    return name[2:].replace("-", "_") if name else variable(item)


def _table(preset: Preset) -> dict[str, Any]:
    values = {item.name: getattr(preset, item.name) for item in fields(preset)}
    return {name: value for name, value in values.items() if value not in (None, {}, False)}


def _value(settings: Settings, name: str) -> Any:
    value = getattr(settings, name)
    if name == "api_key":
        return ["***"] * len(value)
    return str(value) if isinstance(value, Path) else list(value) if isinstance(value, tuple) else value


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, list):
        return ", ".join(value)
    return "" if value is None else json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else str(value)
