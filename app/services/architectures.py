"""Which architectures the installed mlx-lm knows, and what it and transformers take where a model says nothing."""

import ast
import re
from collections.abc import Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from app.services.errors import LoadFailed

# Models of which mlx-lm has the text model under another name, and no more: engine/model/text_models.py.
_TEXT_MODELS = {"idefics3": "mistral3", "lfm2_vl": "lfm2-vl", "smolvlm": "mistral3"}


def is_known(config: Mapping[str, Any]) -> bool:
    """Whether mlx-lm has a module for this config, as its own loader would choose it."""
    model_type, names = config["model_type"], config.get("architectures")
    names = names if isinstance(names, list) else [names]
    by_type, by_architecture = _remappings()
    if any(isinstance(name, str) and (model_type, name) in by_architecture for name in names):
        return True
    return by_type.get(model_type, model_type) in _architectures()


@cache
def mlx_lm_defaults(model_type: str) -> dict[str, int]:
    """Give the numbers that mlx-lm's arguments of an architecture have by default, by name."""
    path = _package("mlx_lm") / "models" / f"{_remappings()[0].get(model_type, model_type)}.py"
    if not re.fullmatch(r"[\w-]+", model_type) or not path.is_file():
        return {}
    classes = [node for node in ast.parse(path.read_bytes()).body if isinstance(node, ast.ClassDef)]
    return {name: number for node in classes for name, number in _numbers(node).items()}


@cache
def transformers_defaults(model_type: str) -> dict[str, int] | None:
    """Give the numbers that transformers' configuration of a model has by default.

    None where it does not know the model, or where the model is made of others, each with a configuration of its own.
    """
    line = f"model_type = {model_type!r}"  # as ast writes it; the files have double quotes
    for path in (_package("transformers") / "models").glob("*/configuration_*.py"):
        if line.replace("'", '"') not in (source := path.read_text(encoding="utf-8")):
            continue
        for node in ast.parse(source).body:
            if isinstance(node, ast.ClassDef) and any(ast.unparse(statement) == line for statement in node.body):
                return None if "sub_configs" in ast.unparse(node) else _numbers(node)
    return None


def _numbers(node: ast.ClassDef) -> dict[str, int]:
    return {
        line.target.id: number
        for line in node.body
        if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name) and line.value is not None
        if (number := _number(line.value)) is not None
    }


def _number(node: ast.expr) -> int | None:
    """Read a number, or a product as in `4096 * 32`."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
        left, right = _number(node.left), _number(node.right)
        return None if left is None or right is None else left * right
    return node.value if isinstance(node, ast.Constant) and type(node.value) is int else None


@cache
def _package(name: str) -> Path:
    # These packages take seconds to import, so their files are read instead.
    spec = find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise LoadFailed(f"{name.replace('_', '-')} is not installed.")
    return Path(spec.submodule_search_locations[0])


@cache
def _architectures() -> frozenset[str]:
    # Its helpers lie in the same folder and know no ModelArgs.
    modules = (_package("mlx_lm") / "models").glob("*.py")
    return frozenset(module.stem for module in modules if re.search(rb"\bModelArgs\b", module.read_bytes()))


@cache
def _remappings() -> tuple[dict[str, str], dict[tuple[str, str], str]]:
    tree = ast.parse((_package("mlx_lm") / "utils.py").read_bytes())
    tables = {
        node.targets[0].id: ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and isinstance(node.value, ast.Dict)
        if node.targets[0].id in {"MODEL_REMAPPING", "MODEL_ARCHITECTURE_REMAPPING"}
    }
    return tables.get("MODEL_REMAPPING", {}) | _TEXT_MODELS, tables.get("MODEL_ARCHITECTURE_REMAPPING", {})
