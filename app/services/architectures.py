"""Which architectures the installed mlx-lm knows."""

import ast
import re
from collections.abc import Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from app.services.errors import LoadFailed


def is_known(config: Mapping[str, Any]) -> bool:
    """Whether mlx-lm has a module for this config, as its own loader would choose it."""
    model_type, names = config["model_type"], config.get("architectures")
    names = names if isinstance(names, list) else [names]
    by_type, by_architecture = _remappings()
    if any(isinstance(name, str) and (model_type, name) in by_architecture for name in names):
        return True
    return by_type.get(model_type, model_type) in _architectures()


@cache
def _mlx_lm() -> Path:
    # mlx-lm takes seconds to import, so its files are read instead.
    spec = find_spec("mlx_lm")
    if spec is None or not spec.submodule_search_locations:
        raise LoadFailed("mlx-lm is not installed.")
    return Path(spec.submodule_search_locations[0])


@cache
def _architectures() -> frozenset[str]:
    # Its helpers lie in the same folder and know no ModelArgs.
    modules = (_mlx_lm() / "models").glob("*.py")
    return frozenset(module.stem for module in modules if re.search(rb"\bModelArgs\b", module.read_bytes()))


@cache
def _remappings() -> tuple[dict[str, str], dict[tuple[str, str], str]]:
    tree = ast.parse((_mlx_lm() / "utils.py").read_bytes())
    tables = {
        node.targets[0].id: ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and isinstance(node.value, ast.Dict)
        if node.targets[0].id in {"MODEL_REMAPPING", "MODEL_ARCHITECTURE_REMAPPING"}
    }
    return tables.get("MODEL_REMAPPING", {}), tables.get("MODEL_ARCHITECTURE_REMAPPING", {})
