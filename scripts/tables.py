"""Write the tables of the documentation from the code they describe; --check only says whether they are up to date."""

import sys
from collections.abc import Callable, Iterable
from dataclasses import Field
from functools import partial
from pathlib import Path

from parity_differences import DIFFERENCES

from app import settings
from app.dto.shared import fields, parameters
from app.dto.shared.fields import Field as InnerField
from app.dto.shared.parameters import Parameter
from app.services.errors import every_error

ROOT = Path(__file__).parents[1]


def table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Spell a Markdown table."""
    lines = [tuple(heads), *(tuple(row) for row in rows)]
    spelled = ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines]
    spelled.insert(1, "|" + " --- |" * len(lines[0]))
    return "\n".join(spelled)


def settings_table() -> str:
    """Every setting: flag, variable, default, meaning."""
    rows = []
    for setting in settings.described():
        flag = settings.flag(setting)
        rows.append(
            (
                f"`{flag}`" if flag else "",
                f"`{settings.variable(setting)}`",
                f"`{default}`" if (default := settings.default_text(setting)) else "",
                _meaning(setting),
            )
        )
    return table(("flag", "variable", "default", "what it does"), rows)


def _meaning(setting: Field[object]) -> str:
    return str(setting.metadata["meaning"])


def parameter_table(registry: Iterable[Parameter]) -> str:
    """Every parameter of a dialect and what becomes of it; those with the same fate and note share a row."""
    fates: dict[tuple[str, str], list[str]] = {}
    for parameter in registry:
        fates.setdefault((parameter.treatment, parameter.note), []).append(f"`{parameter.name}`")
    rows = ((", ".join(names), treatment, note) for (treatment, note), names in fates.items())
    return table(("parameter", "", "what that means"), rows)


def difference_table() -> str:
    """What is answered differently than llama-server, and the recorded requests that show it."""
    return table(("what", "recorded as"), ((reason, ", ".join(cases)) for reason, cases in DIFFERENCES.items()))


def field_table(registry: Iterable[InnerField]) -> str:
    """What becomes of the fields inside of parameters; those with the same fate and note share a row."""
    fates: dict[tuple[str, str], list[str]] = {}
    for field in registry:
        fates.setdefault((field.treatment, field.note), []).append(f"`{field.name}`")
    rows = ((", ".join(names), treatment, note) for (treatment, note), names in fates.items())
    return table(("field", "", "what that means"), rows)


def error_table() -> str:
    """Every error: status, type, code, meaning, and what to do about it."""
    rows = (
        (str(e.status), f"`{e.kind}`", f"`{e.code}`" if e.code else "", e.__doc__ or "", e.advice)
        for e in every_error()
    )
    return table(("status", "type", "code", "meaning", "what to do"), sorted(rows))


TABLES: dict[str, tuple[str, Callable[[], str]]] = {
    "settings": ("docs/settings.md", settings_table),
    **{
        route: ("docs/compatibility.md", partial(parameter_table, registry))
        for route, registry in parameters.REGISTRIES.items()
    },
    "parity": ("docs/compatibility.md", difference_table),
    **{
        f"fields of {route}": ("docs/compatibility.md", partial(field_table, registry))
        for route, registry in fields.REGISTRIES.items()
    },
    "errors": ("docs/errors.md", error_table),
}


def written(name: str) -> tuple[Path, str]:
    """Give a file and what it should say."""
    place, make = TABLES[name]
    path = ROOT / place
    before, start, rest = path.read_text().partition(f"<!-- table: {name} -->\n")
    _, end, after = rest.partition("<!-- end of table -->")
    if not start or not end:
        raise SystemExit(f"{place} has no place for the table {name}")
    return path, f"{before}{start}\n{make()}\n\n{end}{after}"


def main() -> int:
    """Write or check every table."""
    stale = []
    for name in TABLES:
        path, content = written(name)
        if path.read_text() == content:
            continue
        stale.append(name)
        if "--check" not in sys.argv:
            path.write_text(content)
    if "--check" in sys.argv and stale:
        print(f"out of date: {', '.join(stale)}; run nox -s docs")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
