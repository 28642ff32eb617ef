"""From the name of a model to its folder, without a download: Tiles' daemon is asked, then the caches are searched."""

import os
import re
from collections.abc import Mapping

from app.services import catalog, hub
from app.services.errors import ModelNotFound
from app.services.model_folder import ModelFolder
from app.services.tiles.daemon import Daemon

_NAME = re.compile(rf"({hub.REPO_ID.pattern})(:[A-Za-z0-9_.-]{{1,96}})?")  # of a GGUF repo: and which file
_MAX_CHARACTERS = 512


def find(name: str, daemon: Daemon, environ: Mapping[str, str] = os.environ) -> ModelFolder:
    """Find and check the folder of a model. Blocks.

    Raises ModelNotFound, and LoadFailed for a model that is there and cannot be loaded. A path is no name: who may
    send requests may not thereby have any folder of this machine looked at.
    """
    if len(name) <= _MAX_CHARACTERS and (path := daemon.model_path(name)) is not None and path.exists():
        return catalog.resolve(name, str(path))
    if _NAME.fullmatch(name) is None or not hub.has(name, environ):
        raise _unknown(name)
    return catalog.resolve(name, environ=environ)


def _unknown(name: str) -> ModelNotFound:
    advice = f"; `tiles-server pull {name}` downloads it" if _NAME.fullmatch(name) else ""
    return ModelNotFound(f"model '{name[:200]}' not found: neither Tiles nor a cache of this machine has it{advice}")
