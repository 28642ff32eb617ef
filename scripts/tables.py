"""Write the tables of the documentation from the code they describe; --check only says whether they are up to date."""

import json
import sys
from collections.abc import Callable, Iterable
from dataclasses import Field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from parity_differences import DIFFERENCES

from app import settings
from app.dto.shared import fields, parameters
from app.dto.shared.fields import Field as InnerField
from app.dto.shared.parameters import Parameter
from app.services.errors import every_error
from app.services.gguf.blocks import LOSSY, is_lossy, pack
from app.services.gguf.file import Tensor
from app.services.gguf.types import TYPES

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


def _families() -> dict[str, dict[str, str]]:
    """What `nox -s families -- --write` saw: for each architecture or template, what came of each check."""
    seen: dict[str, dict[str, str]] = json.loads((ROOT / "tests" / "families" / "results.json").read_text())["families"]
    return {name: outcome for name, outcome in seen.items() if not name.endswith(_VARIANT)}


_VARIANT = "_x"  # ends the names of models that are built a second time with other weights
_WRONG = "WRONG"


def architecture_table() -> str:
    """Every architecture: how its answers are computed together, how its prompts are reused, what is not right."""
    heads = ("architecture", "batch", "windows", "prefix reuse", "from the disk", "not right")
    rows = []
    for name, outcome in _families().items():
        if name.endswith(".jinja"):
            continue
        batch = outcome.get("batch", "").partition(": ")[0]
        wrong = ", ".join(check for check, text in outcome.items() if text.startswith(_WRONG))
        note = f"{wrong}: {outcome['exception']}" if "exception" in outcome else wrong
        reuse = _reuse(outcome)
        rows.append((f"`{name}`", batch, _yes(outcome.get("windows")), reuse, _cached(outcome.get("disk")), note))
    return table(heads, rows)


def batch_table() -> str:
    """Every architecture whose rows are not computed together, or not their prompts, and what the check at load saw."""
    rows = []
    for name, outcome in _families().items():
        batch, _, reason = outcome.get("batch", "").partition(": ")
        if reason:
            rows.append((f"`{name}`", batch, reason))
    return table(("architecture", "batch", "why"), rows)


def _yes(text: str | None) -> str:
    return "yes" if text == "ok" else ""


def _cached(text: str | None) -> str:
    """Whether `cached/prompt` tokens are more than none."""
    return "yes" if text and text[0].isdigit() and not text.startswith("0/") else ""


def _reuse(outcome: dict[str, str]) -> str:
    """Say to what length the cache of a prompt can be cut for another one."""
    if not any(_cached(outcome.get(check)) for check in ("second_turn", "chat")):
        return ""
    return "any length" if _cached(outcome.get("branch")) else "whole messages"


def template_table() -> str:
    """Every chat template: how its model writes reasoning and calls, and what it takes of a conversation."""
    heads = (
        "template",
        "reasoning",
        "calls begin with",
        "grammar of calls",
        "tools",
        "reasoning beside calls",
        "not right",
    )
    rows = []
    for name, outcome in _families().items():
        if name.endswith(".jinja"):
            code = [
                f"`{marker}`" if (marker := outcome.get(key, "").strip().replace("\n", "\\n")) else ""
                for key in ("reasoning", "calls")
            ]
            facts = [outcome.get(key, "") for key in ("grammar of calls", "tools", "reasoning beside calls")]
            wrong = ", ".join(check for check, text in outcome.items() if text.startswith(_WRONG))
            note = f"{wrong}: {outcome['exception']}" if "exception" in outcome else wrong
            facts = ["" if fact.startswith(_WRONG) else fact for fact in facts]
            rows.append((name.removesuffix(".jinja"), *code, *facts, note))
    return table(heads, rows)


def _agents() -> list[dict[str, Any]]:
    """What `nox -s agents -- --write` saw of each program."""
    return list(json.loads((ROOT / "tests" / "agents" / "results.json").read_text()).values())


def agents_table() -> str:
    """Every program of the matrix: what it sent, what was refused, and how much came from the cache."""
    heads = ("program", "version", "API", "requests", "longest prompt", "refused", "from the cache", "seconds")
    rows = []
    for seen in _agents():
        shares = [share for turn in seen["shares"].values() for share in turn]
        share = f"{min(shares):.1%} or more" if shares else ""
        refused = ", ".join(seen["refusals"]) or "none"
        figures = (str(seen["requests"]), f"{seen['longest_prompt']:,} tokens", refused, share, str(seen["seconds"]))
        rows.append((seen["program"], seen["version"], seen["dialect"], *figures))
    return table(heads, rows)


def turns_table() -> str:
    """For each turn of each program the lowest share that came from the cache."""
    turns = list(dict.fromkeys(turn for seen in _agents() for turn in seen["shares"]))[1:]
    rows = []
    for seen in _agents():
        shares = (seen["shares"].get(turn) for turn in turns)
        rows.append((seen["program"], *(f"{min(share):.1%}" if share else "" for share in shares)))
    return table(("program", *turns), rows)


def gguf_table() -> str:
    """Every quantized type of GGUF: how MLX holds it, and what that changes."""
    rows = []
    for kind in TYPES.values():
        if not kind.is_quantized:
            continue
        tensor = Tensor("", (1, 4 * kind.block), kind, np.zeros((1, 4 * kind.block_bytes), np.uint8))
        packed = pack(tensor)
        mode = "" if packed.mode == "affine" else f" ({packed.mode})"
        loss = f"{LOSSY[kind.name]:.2%}" if is_lossy(tensor) else "exact"
        width = f"{kind.block_bytes * 8 / kind.block:.4g}"
        rows.append((kind.name, width, f"{packed.bits} bit, {packed.group_size}{mode}", loss))
    return table(("type", "bits per weight", "in MLX: bits, group", "loss"), rows)


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
    "agents": ("docs/agents.md", agents_table),
    "turns of agents": ("docs/agents.md", turns_table),
    "GGUF types": ("docs/gguf.md", gguf_table),
    "errors": ("docs/errors.md", error_table),
    "architectures": ("docs/models.md", architecture_table),
    "batches": ("docs/models.md", batch_table),
    "chat templates": ("docs/models.md", template_table),
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
