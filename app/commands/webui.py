"""`tiles-server webui`: install the llama.cpp Web UI."""

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
    """Install the llama.cpp Web UI, which the server then serves at /."""


@webui.command("install")
@click.argument("source", metavar="[FOLDER|ARCHIVE|CHECKOUT]", required=False, type=click.Path(path_type=Path))
@click.option("--build", metavar="N", type=click.IntRange(1), help="Build number to download; the latest by default.")
def install_ui(source: Path | None, build: int | None) -> None:
    """Install the Web UI into the data folder.

    Without an argument, the build that llama.cpp publishes on Hugging Face. FOLDER or ARCHIVE: a built Web UI.
    CHECKOUT: a checkout of llama.cpp, or an archive of one; npm then builds it.
    """
    if source is not None and build is not None:
        raise click.UsageError("--build cannot be combined with a folder, an archive or a checkout")
    try:
        folder = settings.read().data_dir / "webui"
        with install.workshop(folder) as work:
            install.put(_built(source, build, work), folder)
    except (NoUi, SettingError, OSError) as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"Installed in {folder}. `tiles-server` serves it at /.")


def _built(source: Path | None, build: int | None, work: Path) -> Path:
    """Give the folder of a built Web UI: download, unpack or build it first, as the source needs it."""
    if source is None:
        source = _downloaded(build, work)
    if source.is_file():
        click.echo(f"Unpacking {source}")
        source = archive.unpack(source, work / "unpacked")
    if not source.is_dir():
        raise NoUi(f"There is no {source}")
    if (package := ui_source.find(source)) is not None:
        click.echo(f"The source of the Web UI is in {package}")
        return ui_source.build(package, work / "source", click.echo)
    if is_built(source) or (source / "index.html.gz").is_file():
        return source
    raise NoUi(f"{source} is neither a built Web UI (index.html) nor a checkout of llama.cpp (tools/ui)")


def _downloaded(build: int | None, work: Path) -> Path:
    with click.progressbar(length=100, label="Downloading", file=sys.stderr) as bar:

        def show(received: int, total: int | None) -> None:
            if total:
                bar.update(received * 100 // total - bar.pos)

        return release.download(build, work, show)
