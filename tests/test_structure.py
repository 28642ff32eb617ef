"""The plan of the code: which packages there are, and in which order they may import each other."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ENGINE = ROOT / "app" / "services" / "engine"
# Each may import those after it. The modules of the top level may import all of them.
ENGINE_ORDER = ("encoders", "scheduler", "speculative", "sampling", "vision", "group", "model", "cache", "output")
DTO_ORDER = ("tiles", "ollama", "llama", "openai", "anthropic", "shared")
LONGEST_CLASS, MOST_METHODS = 250, 20  # lines; public ones
VOCABULARIES = {"Settings"}


def test_the_engine_shows_its_concepts_at_once() -> None:
    modules = [path for path in ENGINE.iterdir() if path.suffix == ".py"]
    packages = {path.parent.name for path in ENGINE.glob("*/__init__.py")}
    assert len(modules) <= 10
    assert packages == set(ENGINE_ORDER)


@pytest.mark.parametrize("place, order", [("app/services/engine", ENGINE_ORDER), ("app/dto", DTO_ORDER)])
def test_packages_import_only_what_stands_below_them(place: str, order: tuple[str, ...]) -> None:
    against = [
        f"{path.relative_to(ROOT)}: {module}"
        for number, package in enumerate(order)
        for path in (ROOT / place / package).rglob("*.py")
        for module in imports(path)
        if (below := inside(module, place)) is not None and below not in order[number:]
    ]
    assert not against


def test_no_two_modules_import_each_other() -> None:
    modules = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in (ROOT / "app").rglob("*.py")}
    arrows = {name: {one for one in imports(path) if one in modules} for name, path in modules.items()}
    while leaves := {name for name, targets in arrows.items() if not targets & arrows.keys()}:
        for name in leaves:
            del arrows[name]
    assert not arrows, "what is left imports itself in a circle"


def test_no_class_outgrows_the_rest() -> None:
    large = []
    for path in (ROOT / "app").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef) and node.name not in VOCABULARIES:
                lines = (node.end_lineno or 0) - node.lineno + 1
                methods = [one for one in node.body if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef)]
                public = [one.name for one in methods if not one.name.startswith("_")]
                if lines > LONGEST_CLASS or len(public) > MOST_METHODS:
                    large.append((node.name, lines, len(public)))
    assert not large


def test_a_model_is_called_in_one_module() -> None:
    """Elsewhere one is only called to learn the shapes of what it gives, and nothing of that is computed."""
    calls = {
        str(path.relative_to(ENGINE))
        for path in ENGINE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and is_of_model(node)
    }
    assert calls == {"model/language_model.py", "cache/footprint.py", "speculative/draft_model.py"}


def is_of_model(call: ast.Call) -> bool:
    """Whether a model of mlx-lm's is called: it takes a cache."""
    name = str(getattr(call.func, "id", None) or getattr(call.func, "attr", None))
    takes_cache = any(keyword.arg == "cache" for keyword in call.keywords)
    return name == "network" or (takes_cache and name == name.lower())


def imports(path: Path) -> Iterator[str]:
    """Give the modules of the project that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def inside(module: str, place: str) -> str | None:
    """Give the part of a place that a module belongs to; None if it does not lie in that place."""
    prefix = place.replace("/", ".") + "."
    return module.removeprefix(prefix).split(".")[0] if module.startswith(prefix) else None


def test_names_say_what_things_are() -> None:
    participles = {"asked", "found", "said", "given", "told", "wanted", "kept", "known", "taken", "place"}
    names = [
        f"{path.relative_to(ROOT)}:{number}: {name}"
        for path in (ROOT / "app").rglob("*.py")
        for number, name in assigned_names(ast.parse(path.read_text()))
        if name.strip("_") in participles
    ]
    assert not names


def assigned_names(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Give the variables, arguments and attributes that a module assigns, with their lines."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.id
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.attr
