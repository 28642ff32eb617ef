"""`tiles-server show`: what a model of this machine is, and the memory that it takes. Nothing of it is loaded."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.filesize import decimal
from rich.table import Table
from rich.text import Text

from app.services import catalog
from app.services.errors import LoadFailed
from app.services.model_folder import ModelFolder

_TASKS = {"completion": "text", "embedding": "embeddings", "rerank": "ranking documents"}
_LICENSES = ("LICENSE*", "LICENCE*", "license*", "COPYING*")  # of files beside a model


@click.command()
@click.argument("name", metavar="MODEL")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object instead of text.")
def show(name: str, as_json: bool) -> None:
    """Show what MODEL is and the memory that it takes: an id that `models` lists, a folder, or a GGUF file."""
    try:
        facts = _facts(catalog.resolve(name))
    except LoadFailed as error:
        raise click.ClickException(error.message) from error
    if as_json:
        click.echo(json.dumps(facts, indent=2, ensure_ascii=False))
    else:
        _print(facts)


def _facts(model: ModelFolder) -> dict[str, Any]:
    return {
        "id": model.id,
        "path": str(model.path),
        "format": "GGUF" if model.is_gguf else "MLX",
        "model_type": model.model_type,
        "precision": model.precision,
        "parameters": model.parameters,
        "weight_bytes": model.weight_bytes,
        "context_length": model.context.tokens,
        "context_source": model.context.source,
        "has_chat_template": model.has_chat_template,
        "task": model.task,
        "sees": model.sees,
        "mmproj": str(model.mmproj) if model.mmproj else None,
        "vision_problem": model.vision_problem,
        **(_gguf_facts(model.path) if model.is_gguf else {"license": _license_file(model.path)}),
        "memory": _memory(model.path),
    }


def _gguf_facts(path: Path) -> dict[str, Any]:
    from app.services.gguf import blocks, file  # take numpy, which other models need not wait for

    source = file.read(path)
    license_ = source.metadata.get("general.license.name") or source.metadata.get("general.license")
    return {
        "tensors": dict(Counter(tensor.type.name for tensor in source.tensors.values()).most_common()),
        "packing": str(blocks.fidelity(source.tensors.values())),
        "license": str(license_) if license_ else _license_file(path.parent),
    }


def _license_file(folder: Path) -> str | None:
    return next((str(file) for pattern in _LICENSES for file in sorted(folder.glob(pattern))), None)


def _memory(path: Path) -> dict[str, Any] | None:
    """Estimate it as the server does, for this machine; None where MLX cannot be used or knows no such model."""
    from app.services.estimates import estimator, model_size

    size = model_size.of_path(path)
    tokens = min(estimator.CONTEXT, size.context)
    try:
        from app.services.engine.model import loading
        from app.services.engine.model.text_models import footprint_of

        cache_bytes = footprint_of(size.config, loading.dtype()).bytes(tokens)
    except Exception:  # whatever a model's code, or the import of MLX, makes of this machine
        return None
    estimate = estimator.estimate(size, cache_bytes, loading.back_end())
    return {"bytes": estimate.total, "weights": estimate.weights, "cache": estimate.cache, "cache_tokens": tokens}


def _print(facts: dict[str, Any]) -> None:
    table = Table.grid(padding=(0, 2))
    for title, text in _lines(facts):
        table.add_row(Text(title, style="bold"), Text(text, overflow="fold"))
    Console(highlight=False).print(table)


def _lines(facts: dict[str, Any]) -> list[tuple[str, str]]:
    memory = facts["memory"]
    lines = [
        ("Model", facts["id"]),
        ("Path", facts["path"]),
        ("Type", f"{facts['model_type']}, {facts['precision']}, {facts['format']}"),
        ("Parameters", f"{facts['parameters']:,}"),
        ("Weights", f"{decimal(facts['weight_bytes'])} on the disk"),
        ("Context", f"{facts['context_length']:,} tokens ({facts['context_source']})"),
        ("For", _TASKS[facts["task"]]),
    ]
    if facts["task"] == "completion":
        lines.append(("Chat template", "yes" if facts["has_chat_template"] else "none: it may not be made for chat"))
    if facts["sees"] or facts["vision_problem"]:
        seen = f"yes{', by ' + facts['mmproj'] if facts['mmproj'] else ''}"
        lines.append(("Images", seen if facts["sees"] else f"no: {facts['vision_problem']}"))
    if "tensors" in facts:
        lines.append(("Tensors", ", ".join(f"{count} {name}" for name, count in facts["tensors"].items())))
        lines.append(("Packed", facts["packing"]))
    if memory:
        parts = f"{decimal(memory['weights'])} of weights, {decimal(memory['cache'])} of cache"
        total = f"about {decimal(memory['bytes'])} on this machine"
        lines.append(("Memory", f"{total}: {parts} with {memory['cache_tokens']:,} tokens"))
    if facts["license"]:
        lines.append(("License", facts["license"]))
    return lines
