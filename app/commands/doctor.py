"""`tiles-server doctor`: checks the machine and the model, with advice for each problem."""

import json
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import asdict

import click
from rich.console import Console
from rich.text import Text

from app.commands import checks, group_checks, model_checks
from app.commands.checks import Check, CheckContext
from app.commands.usage_error import UsageError
from app.services import bootstrap
from app.services.errors import LoadFailed
from app.settings import SettingError, Settings, read

SIGNS = {"ok": ("✓", "green"), "warning": ("!", "yellow"), "failed": ("✗", "red")}
CHECKS: tuple[Callable[[CheckContext], Check | None], ...] = (
    checks.python,
    checks.packages,
    checks.system,
    checks.mlx,
    checks.blas,
    checks.compiler,
    checks.memory,
    checks.disk,
    checks.port,
    checks.data_folder,
    checks.session_file,
    model_checks.model_folder,
    model_checks.draft_model,
    model_checks.embedding_model,
    model_checks.chat_template,
    model_checks.tokenizer,
    model_checks.batching,
    group_checks.machines,
)


@click.command()
@click.option("--model", metavar="ID_OR_PATH", help="Model to check; the one of the session by default.")
@click.option("--port", metavar="PORT", help="Port to check; 6969 by default.")
@click.option("--hostfile", metavar="FILE", help="Machines to check, as serve takes them.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list instead of text.")
def doctor(model: str | None, port: str | None, hostfile: str | None, as_json: bool) -> None:
    """Check the machine and the model for problems, and print what to do about each."""
    try:
        settings = read({"model": model, "port": port, "hostfile": hostfile})
    except SettingError as error:
        raise UsageError(str(error)) from error
    context = _context(settings)
    results = [result for check in CHECKS if (result := check(context))]
    if as_json:
        click.echo(json.dumps([asdict(result) for result in results], indent=2, ensure_ascii=False))
    else:
        _print(results)
    if any(result.state == "failed" for result in results):
        raise SystemExit(1)


def _print(results: list[Check]) -> None:
    console = Console(highlight=False, soft_wrap=True)
    for check in results:
        sign, colour = SIGNS[check.state]
        console.print(Text.assemble((sign, colour), " ", (check.name, "bold"), f"  {check.detail}"))
        if check.advice:
            console.print(Text(f"    {check.advice}"))


def _context(settings: Settings) -> CheckContext:
    """Find the model that a start with these settings would try first."""
    with redirect_stdout(sys.stderr):
        candidates = bootstrap.candidates(settings)
    if not candidates:
        return CheckContext(settings)
    try:
        return CheckContext(settings, model=bootstrap.locate(candidates[0]))
    except LoadFailed as error:
        return CheckContext(settings, problem=error.message)
