"""`tiles-server memory`: list, show, export and undo what the memory agent wrote."""

import os
import sys
import time
import unicodedata
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
from rich.filesize import decimal

from app import settings
from app.services import session
from app.services.memory import paths, tree
from app.services.memory.backups import Backups
from app.services.memory.notes import MOST_IN_FILE
from app.services.memory.paths import Parts


@click.group()
@click.option("--path", type=click.Path(path_type=Path), help="Memory folder; the one of the last session by default.")
@click.pass_context
def memory(ctx: click.Context, path: Path | None) -> None:
    """List, show, export and undo what the memory agent wrote."""
    ctx.obj = path


@memory.command()
@click.pass_obj
def ls(path: Path | None) -> None:
    """List the notes: size, time of the agent's last change, name."""
    with _opened(path) as root:
        changed = {parts: when for when, parts in Backups(root).list_backups()}
        notes = dict(tree.read(root).notes())
    for parts, size in notes.items():
        click.echo(f"{decimal(size):>10}  {_when(changed.get(parts)):16}  {_printable('/'.join(parts))}")
    for parts in changed.keys() - notes.keys():
        click.echo(f"{'deleted':>10}  {_when(changed[parts]):16}  {_printable('/'.join(parts))}")
    if not notes and not changed:
        click.echo("There are no notes.")


@memory.command()
@click.argument("note")
@click.pass_obj
def show(path: Path | None, note: str) -> None:
    """Print a note."""
    parts = _parts(note)
    with _opened(path) as root:
        content = _read(root, parts, note)
    text = content.decode(errors="replace")
    click.echo(_printable(text) if sys.stdout.isatty() else text, nl=False)


@memory.command()
@click.argument("archive", type=click.Path(dir_okay=False, path_type=Path))
@click.pass_obj
def export(path: Path | None, archive: Path) -> None:
    """Write all notes to a new zip file."""
    with _opened(path) as root:
        notes = list(tree.read(root).notes())
        try:
            with archive.open("xb") as file, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as zipped:
                for parts, size in notes:
                    with paths.opened(root, parts[:-1]) as folder:
                        zipped.writestr("/".join(parts), paths.read(folder, parts[-1], max(size, MOST_IN_FILE)))
        except FileExistsError:
            raise click.ClickException(f"{archive} exists already") from None
    click.echo(f"{len(notes)} notes are in {archive}")


@memory.command()
@click.argument("note")
@click.pass_obj
def undo(path: Path | None, note: str) -> None:
    """Undo the agent's last change to a note. Run it again to redo it."""
    parts = _parts(note)
    with _opened(path) as root:
        try:
            has_undone = Backups(root).undo(parts)
        except (OSError, ValueError) as error:
            raise _error(note, error) from None
        with paths.opened(root, parts[:-1]) as folder:
            exists = paths.lstat(folder, parts[-1]) is not None
    if not has_undone:
        raise click.ClickException(f"there is no note {note}, and no backup of it")
    click.echo(f"{note} is restored" if exists else f"{note} was new and is removed; undo again to restore it")


@contextmanager
def _opened(path: Path | None) -> Iterator[int]:
    folder = path or _of_session()
    try:
        root = paths.open_root(folder)
    except OSError as error:
        raise click.ClickException(f"{folder}: {error.strerror}") from None
    try:
        yield root
    finally:
        os.close(root)


def _of_session() -> Path:
    saved = session.read(settings.read().session_file)
    if saved is None or not saved.memory_path:
        raise click.ClickException("the last session has no memory folder; give one with --path")
    return Path(saved.memory_path).expanduser()


def _parts(note: str) -> Parts:
    try:
        parts = paths.split(note)
    except paths.Refused as error:
        raise click.ClickException(f"{note}: {error}") from None
    if not parts:
        raise click.ClickException("name a note")
    return parts


def _read(root: int, parts: Parts, note: str) -> bytes:
    try:
        with paths.opened(root, parts[:-1]) as folder:
            return paths.read(folder, parts[-1], 2**30)
    except (OSError, ValueError) as error:
        raise _error(note, error) from None


def _error(note: str, error: OSError | ValueError) -> click.ClickException:
    reason = error.strerror if isinstance(error, OSError) else None
    return click.ClickException(f"{note}: {reason or error}")


def _when(seconds: float | None) -> str:
    return "" if seconds is None else time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


def _printable(text: str) -> str:
    """Escape control characters, which the terminal would obey."""
    return "".join(
        c if c in "\n\t" or unicodedata.category(c) not in {"Cc", "Cs"} else f"\\x{ord(c):02x}" for c in text
    )
