"""The folder of a profile: written for its owner alone, whole or not at all, and taken away again."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from app.services import atomic
from app.services.coding_agents.agent import JsonFile, Profile


def write(profile: Profile, folder: Path) -> None:
    """Write the files of a profile; what an agent has added to them stays.

    Raises OSError, and ValueError for a file that is there and no JSON object.
    """
    atomic.private_folder(folder)
    folder.chmod(0o700)
    for name, file in profile.files.items():
        atomic.write(folder / name, text(file, _read(folder / name)))


def text(file: JsonFile, content: Mapping[str, Any]) -> str:
    """Give the text of a file that has this content so far."""
    merged = _merged(_merged(file.defaults, content), file.settings)
    return json.dumps(merged, indent=2, ensure_ascii=False) + "\n"


def remove(folder: Path) -> bool:
    """Take a profile away, with all that its agent keeps there. Says whether there was one. Raises OSError."""
    if not folder.is_dir():
        return False
    shutil.rmtree(folder)
    return True


def _read(path: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise ValueError(f"{path} is no JSON object; mend it, or take the profile away with --remove")
    return content


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Give both, object by object; where both have a value, that from above."""
    both = {**below, **above}
    for name, value in above.items():
        if isinstance(value, Mapping) and isinstance(below.get(name), Mapping):
            both[name] = _merged(below[name], value)
    return both
