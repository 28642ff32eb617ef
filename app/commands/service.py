"""`tiles-server service`: the server as a service of this machine, which is there after a restart."""

import os
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import click

from app.commands import service_job
from app.commands.server_client import base_url
from app.commands.setting_options import setting_options
from app.commands.usage_error import UsageError
from app.services.supervisors import CannotSupervise, Supervisor, job, supervisor
from app.settings import SettingError, Settings, read

T = TypeVar("T")


@click.group()
def service() -> None:
    """Run the server in the background from each login on: with systemd on Linux, with launchd on macOS."""


@service.command()
@click.option("--print", "only_print", is_flag=True, help="Show the file that would be written, and do nothing.")
@setting_options
def install(only_print: bool, **flags: Any) -> None:
    """Start the server now and from each login on, with these flags and the variables that are set now.

    Takes the same flags as serve. What config.toml says is read at each start. Run it again to change the flags, or
    after the program has moved.
    """
    try:
        planned = service_job.plan(flags, os.environ)
    except SettingError as error:
        raise UsageError(str(error)) from error
    here = _supervisor()
    if only_print:
        click.echo(_try(here, lambda: here.describe(planned.job)), nl=False)
        return
    _try(here, lambda: job.is_installed(here))
    _try(here, here.require)
    _try(here, planned.write_keys)
    _try(here, lambda: job.install(here, planned.job))
    click.echo(f"Tiles Server starts now, and whenever you log in: {here.path}")
    click.echo(f"API   {base_url(planned.settings)}\nLog   tiles-server service logs --follow")
    if here.login_advice:
        click.echo(here.login_advice)


@service.command()
def uninstall() -> None:
    """Stop the service, and remove what install has written. Models, answers and settings stay."""
    here = _supervisor()
    was_there = _try(here, lambda: job.uninstall(here))
    _try(here, lambda: service_job.remove_keys(_settings().data_dir))
    click.echo("The service is removed." if was_there else "There is no service.")


@service.command()
def status() -> None:
    """Say whether the service is installed and runs. Exit code 1 if it does not run."""
    here = _supervisor()
    if not _try(here, lambda: job.is_installed(here)):
        click.echo("There is no service: `tiles-server service install` installs one.")
        sys.exit(1)
    state = _try(here, here.state)
    process = f", process {state.process_id}" if state.process_id else ""
    click.echo(f"{state.text}{process}\n{here.path}")
    sys.exit(0 if state.is_running else 1)


@service.command()
@click.option("-n", "--lines", type=click.IntRange(0), default=100, help="Lines to show; 100 by default.")
@click.option("-f", "--follow", is_flag=True, help="Show what comes, too, until Ctrl-C.")
def logs(lines: int, follow: bool) -> None:
    """Show the log of the service."""
    here = _supervisor()
    words = here.log_command(lines, service_job.log_path(_settings().data_dir), follow=follow)
    sys.stdout.flush()
    _try(here, lambda: os.execvp(words[0], list(words)))


def _settings() -> Settings:
    try:
        return read()
    except SettingError as error:
        raise UsageError(str(error)) from error


def _supervisor() -> Supervisor:
    try:
        return supervisor()
    except CannotSupervise as error:
        raise click.ClickException(str(error)) from None


def _try(here: Supervisor, do: Callable[[], T]) -> T:
    try:
        return do()
    except CannotSupervise as error:
        raise click.ClickException(str(error)) from None
    except OSError as error:
        raise click.ClickException(f"{error.filename or here.path}: {error.strerror or error}") from None
