"""What of Tiles' own configuration concerns this server: Tiles starts it with neither flags nor variables."""

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.services.tiles.daemon import Daemon
from app.services.tiles.installation import config_folder


@dataclass(frozen=True, slots=True)
class TilesConfig:
    """The `[llama]` of Tiles, as far as this server has the like."""

    context_length: int | None = None  # tokens; Tiles tells the same number to its agent
    warning: str | None = None  # why it could not be read


def read(daemon: Daemon | None, environ: Mapping[str, str] = os.environ) -> TilesConfig:
    """Read it as Tiles does: from the daemon, else from the first file that is there."""
    if daemon is not None and (config := daemon.config()) is not None:
        return _parse(config, "Tiles' daemon")
    path = next((path for path in _files(environ) if path.is_file()), None)
    if path is None:
        return TilesConfig()
    try:
        return _parse(tomllib.loads(path.read_text()), str(path))
    except OSError as error:
        return TilesConfig(warning=f"{path} cannot be read: {error.strerror}")
    except (ValueError, RecursionError) as error:
        return TilesConfig(warning=f"{path} is no TOML: {error}")


def _files(environ: Mapping[str, str]) -> list[Path]:
    name = environ.get("TILES_CONFIG")
    named = [Path(name).expanduser()] if name else []
    return [*named, Path(".tiles_dev/tiles/config.toml").absolute(), config_folder(environ) / "config.toml"]


def _parse(config: Mapping[str, Any], source: str) -> TilesConfig:
    llama = config.get("llama") or {}
    length = llama.get("context_length") if isinstance(llama, dict) else llama
    if length is None:
        return TilesConfig()
    if isinstance(length, bool) or not isinstance(length, int) or not 16 <= length <= 2**24:
        return TilesConfig(warning=f"{source}: [llama] context_length is no number of tokens from 16 to {2**24}")
    return TilesConfig(length)
