"""config.toml of the data folder: settings by the names of their flags, and `[model."name"]` tables."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from app.services.presets import Preset

NAME = "config.toml"


class ConfigError(ValueError):
    """A file that cannot be used; the message is one line and names it."""


@dataclass(frozen=True, slots=True)
class ConfigFile:
    """What a file says; its settings as flags have them, which are yet to be checked."""

    path: Path
    settings: Mapping[str, str | tuple[str, ...]] = field(default_factory=dict)
    presets: Mapping[str, Preset] = field(default_factory=dict)


def read(path: Path) -> ConfigFile:
    """Read a file; one that is not there says nothing. Raises ConfigError."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return ConfigFile(path)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {(error.strerror or 'unknown reason').lower()}") from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is no TOML: {' '.join(str(error).split())}") from None
    tables = content.pop("model", None)
    if isinstance(tables, str):
        content["model"], tables = tables, None
    settings = {key: _text(path, key, value) for key, value in content.items()}
    return ConfigFile(path, settings, dict(_presets(path, tables)))


def _presets(path: Path, tables: Any) -> list[tuple[str, Preset]]:
    if tables is None:
        return []
    presets = []
    for name, table in tables.items() if isinstance(tables, dict) else [("", None)]:
        try:
            if not isinstance(table, dict) or not name.strip():
                raise ValueError('give a table, as [model."name"]')
            presets.append((name, Preset.of(table)))
        except ValueError as error:
            raise ConfigError(f'{path}: [model."{name[:100]}"] {error}') from None
    return presets


def _text(path: Path, key: str, value: Any) -> str | tuple[str, ...]:
    """Spell a value as a flag has it."""
    match value:
        case bool():
            return "on" if value else "off"
        case str() | int() | float():
            return str(value)
        case list() if all(isinstance(item, str) for item in value):
            return tuple(value)
    raise ConfigError(f"{path}: {key[:100]}: give a text, a number, true or false, or a list of texts")
