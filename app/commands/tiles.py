"""`tiles-server tiles`: put this server into the place of Tiles' own, and back."""

import errno
import os
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn, TypeVar

import click

from app import __version__
from app.commands.program import program
from app.services.tiles_library import CannotSwap, server_folder, swap
from app.services.tiles_library.locate import locate
from app.services.tiles_library.names import ORIGINAL, SERVER

T = TypeVar("T")

_RESTART = "If Tiles is running, restart its server: `tiles system server stop`, then `tiles system server start`."


def _with_folder(command: Callable[..., None]) -> Callable[..., None]:
    meaning = "Tiles' library folder: the one with modelfiles, pi and server. Looked for as Tiles does by default."
    return click.option("--folder", type=click.Path(path_type=Path), metavar="DIR", help=meaning)(command)


def _with_sudo(command: Callable[..., None]) -> Callable[..., None]:
    meaning = "Ask for the rights by sudo, if the folder needs them."
    return click.option("--sudo", is_flag=True, help=meaning)(command)


@click.group()
def tiles() -> None:
    """Let Tiles start this server instead of its own, and undo it."""


@tiles.command()
@_with_folder
@_with_sudo
def install(folder: Path | None, sudo: bool) -> None:
    """Put this server into the place of Tiles' own.

    That is kept aside. Tiles' commands, app and menu bar then start and stop this server. `tiles update` puts Tiles'
    own back: run this again after it.
    """
    library = _library(folder)
    _change(library, "install", sudo, lambda: swap.install(library))
    click.echo(f"Tiles now starts Tiles Server {__version__}.\nIts own server is in {library / ORIGINAL}.")
    click.echo(f"{_RESTART}\n`tiles update` puts Tiles' own server back: run this again after it.")


@tiles.command()
@_with_folder
@_with_sudo
def uninstall(folder: Path | None, sudo: bool) -> None:
    """Put Tiles' own server back, exactly as it was."""
    library = _library(folder)
    undone = _change(library, "uninstall", sudo, lambda: swap.uninstall(library))
    click.echo(undone.value)
    if undone is swap.Undone.RESTORED:
        click.echo(_RESTART)


@tiles.command()
@_with_folder
def status(folder: Path | None) -> None:
    """Say which server Tiles starts, and whether it would start. Exit code 1 if it would not."""
    library = _library(folder)
    state, server = swap.state(library), library / SERVER
    click.echo(f"Tiles' library folder: {library}")
    if state.is_missing:
        _fail("There is no server in it: an installation was interrupted. Run `tiles-server tiles install` again.")
    if not state.is_ours:
        click.echo("Tiles starts its own server.")
        if state.has_original:
            click.echo("`tiles update` has put it back. `tiles-server tiles install` installs Tiles Server again.")
        return
    aside = library / ORIGINAL if state.has_original else "gone: `tiles update` brings it"
    click.echo(f"Tiles starts Tiles Server, which version {server_folder.version_at_install(server)} has installed.")
    click.echo(f"Tiles' own server: {aside}")
    try:
        version = server_folder.try_start(library)
    except CannotSwap as error:
        _fail(f"It would not start: {error}. Run `tiles-server tiles install` again.")
    click.echo(f"It would start, as version {version}.")


def _library(folder: Path | None) -> Path:
    try:
        return locate(folder)
    except (CannotSwap, OSError) as error:
        _fail(str(error))


def _change(library: Path, command: str, sudo: bool, change: Callable[[], T]) -> T:
    try:
        if not os.access(library, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(library))
        return change()
    except CannotSwap as error:
        _fail(f"Nothing is changed: {error}")
    except PermissionError as error:
        _get_rights(library, command, sudo, error)
    except OSError as error:
        _fail(f"{error.filename or library}: {error.strerror or error}. Nothing is lost: run it again.")


def _get_rights(library: Path, command: str, sudo: bool, error: PermissionError) -> NoReturn:
    """Run the command again by sudo if that is wished, else say how."""
    again = ["sudo", *program(), "tiles", command, "--folder", str(library)]
    if library.stat().st_uid == os.geteuid():
        # What root makes in a folder of yours, an update of Tiles could not remove.
        _fail(f"{error.filename} cannot be changed. Its folder is yours: give yourself the right to write, then again.")
    if sudo:
        try:
            os.execvp(again[0], again)
        except OSError:
            _fail(f"There is no sudo here. Let an administrator run: {shlex.join(again[1:])}")
    _fail(f"Only an administrator may change {library}. Run: {shlex.join(again)}")


def _fail(message: str) -> NoReturn:
    raise click.ClickException(message)
