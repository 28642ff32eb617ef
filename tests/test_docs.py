"""What the documentation says of the code is what the code says."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from app.services.gguf.architectures import ARCHITECTURES
from app.services.json_schema.formats import FREE, PATTERNS, RANGES
from app.services.json_schema.types import KEYWORDS

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")]
WIDTH = 120  # of a line of prose
FENCED = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)


def test_the_tables_are_those_that_the_code_makes() -> None:
    command = [sys.executable, str(ROOT / "scripts" / "tables.py"), "--check"]
    checked = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_leads_somewhere(document: Path) -> None:
    dead = []
    for target in links(document.read_text()):
        path, _, anchor = target.partition("#")
        file = (document.parent / path).resolve() if path else document
        if not file.exists() or (anchor and anchor not in anchors(file.read_text())):
            dead.append(target)
    assert not dead


def test_readme_is_short_and_the_index_is_complete() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 120
    listed = {(ROOT / "docs" / target).resolve() for target in links((ROOT / "docs" / "README.md").read_text())}
    assert set((ROOT / "docs").rglob("*.md")) - listed == {ROOT / "docs" / "README.md"}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_line_of_prose_is_too_wide(document: Path) -> None:
    prose = FENCED.sub("", document.read_text())
    assert not [line for line in prose.splitlines() if len(line) > WIDTH and not line.startswith("|")]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_path_that_is_named_exists(document: Path) -> None:
    if document.name == "renamed.md":
        pytest.skip("half of its paths are those of old")
    named = re.findall(
        r"\b(?:app|benchmarks|demo_model|docs|scripts|tests)/[\w./-]*\w", FENCED.sub("", document.read_text())
    )
    assert not [path for path in named if not (ROOT / path).exists()]


def links(text: str) -> list[str]:
    """Give the relative links and pictures of a Markdown file."""
    text = re.sub(r"`[^`\n]*`", "", FENCED.sub("", text))
    targets = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'(?:src|srcset)="([^"]+)"', text)
    return [target for target in targets if ":" not in target]


def anchors(text: str) -> set[str]:
    """Give the anchors that GitHub makes of the headings of a Markdown file."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_package_stands_in_the_architecture() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    packages = [path.parent.relative_to(ROOT) for path in (ROOT / "app").rglob("__init__.py")]
    assert not [str(package) for package in packages if f"`{package}/`" not in text]


def test_every_dependency_has_its_reason() -> None:
    reasons = (ROOT / "docs" / "dependencies.md").read_text()
    listed = re.findall(r'^    "([a-z0-9-]+)', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert {name for name in listed if name not in reasons} == set()


def test_only_the_engine_imports_mlx_and_services_know_no_http() -> None:
    banned = {
        "services": {"litestar", "app.controllers", "app.dto", "app.gate", "app.request_context"},
        "dto": {"litestar", "mlx", "app.controllers"},
        "controllers": {"app.gate", "app.application"},
    }
    for layer, modules in banned.items():
        for path in (ROOT / "app" / layer).rglob("*.py"):
            assert not {name for name in imported(path) if any(name.startswith(module) for module in modules)}, path
    for path in (ROOT / "app").rglob("*.py"):
        if "engine" not in path.parts:
            assert not {name for name in imported(path) if name.split(".")[0] in {"mlx", "mlx_lm", "transformers"}}, (
                path
            )


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return names


def test_every_keyword_and_format_of_schemas_stands_in_the_table() -> None:
    text = (ROOT / "docs" / "compatibility.md").read_text()
    section = text[text.index("## JSON schemas") : text.index("## Where it differs")]
    numbered = re.compile(r"(uuid|uuidv|guidv|int|uint)[0-9]+")
    names = {*KEYWORDS, *PATTERNS, *RANGES, *FREE - {""}}
    assert {name for name in names if not numbered.fullmatch(name) and f"`{name}`" not in section} == set()


def test_every_architecture_of_gguf_files_is_documented() -> None:
    text = (ROOT / "docs" / "gguf.md").read_text()
    assert not [name for name in ARCHITECTURES if f"`{name}`" not in text]
