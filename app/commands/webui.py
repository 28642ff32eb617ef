"""`tiles-server webui`: get the llama.cpp Web UI."""

import sys
from pathlib import Path

import click

from app import settings
from app.services.ui import NoUi, archive, install, release
from app.services.ui import source as ui_source
from app.services.ui.folder import is_built
from app.settings import SettingError


@click.group()
def webui() -> None:
    """Get the llama.cpp Web UI, which the server then serves at /."""


@webui.command("install")
@click.argument("source", metavar="[FOLDER|ARCHIVE|CHECKOUT]", required=False, type=click.Path(path_type=Path))
@click.option("--build", metavar="N", type=click.IntRange(1), help="Which published build; the latest when absent.")
def install_ui(source: Path | None, build: int | None) -> None:
    """Put a Web UI into the data folder, from where every server takes it.

    From a built folder or an archive of one; from a checkout of llama.cpp or an archive of that, which npm builds; or,
    without an argument, the one that llama.cpp publishes on Hugging Face.
    """
    if source is not None and build is not None:
        raise click.UsageError("--build is for the published one; it goes without a folder, archive or checkout")
    try:
        place = settings.read().data_dir / "webui"
        with install.workshop(place) as work:
            install.put(_built(source, build, work), place)
    except (NoUi, SettingError, OSError) as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"Installed in {place}. `tiles-server` serves it at /.")


def _built(given: Path | None, build: int | None, work: Path) -> Path:
    """Make a built UI of what was given."""
    if given is None:
        given = _downloaded(build, work)
    if given.is_file():
        click.echo(f"Unpacking {given}")
        given = archive.unpack(given, work / "unpacked")
    if not given.is_dir():
        raise NoUi(f"There is no {given}")
    if (place := ui_source.find(given)) is not None:
        click.echo(f"The source of the Web UI is in {place}")
        return ui_source.build(place, work / "source", click.echo)
    if is_built(given) or (given / "index.html.gz").is_file():
        return given
    raise NoUi(f"{given} is neither a built Web UI (index.html) nor a checkout of llama.cpp (tools/ui)")


def _downloaded(build: int | None, work: Path) -> Path:
    with click.progressbar(length=100, label="Downloading", file=sys.stderr) as bar:

        def show(done: int, whole: int | None) -> None:
            if whole:
                bar.update(done * 100 // whole - bar.pos)

        return release.download(build, work, show)
