"""The settings as options of a command."""

from collections.abc import Callable
from typing import Any

import click

from app.settings import default_text, described, flag, is_list, variable


def setting_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add an option for each setting that has a flag."""
    for setting in reversed(described()):
        name = flag(setting)
        if name is None:
            continue
        kind: dict[str, Any] = {"multiple": is_list(setting), "metavar": setting.metadata["metavar"]}
        if setting.default is False:
            kind = {"is_flag": True}
        default = f"; default {text}" if (text := default_text(setting)) else ""
        meaning = f"{setting.metadata['meaning']} [{variable(setting)}{default}]"
        names = [name] if setting.metadata["alias"] is None else [name, setting.metadata["alias"]]
        command = click.option(*names, setting.name, default=None, help=meaning, **kind)(command)
    return command
