"""`tiles-server tiles`: this server in the place of Tiles' own, and back."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from app import __version__
from app.commands.tiles import tiles
from app.services.tiles_library import CannotSwap, server_folder, swap
from app.services.tiles_library.locate import candidates, locate
from tests import tiles_library
from tests.tiles_library import PARTS, PYTHON, put_own_server, tree


def run(command: str, library: Path, *more: str) -> Result:
    return CliRunner(catch_exceptions=False).invoke(tiles, [command, "--folder", str(library), *more])


def install(library: Path) -> None:
    """Without the trial start, which takes a second."""
    swap.install(library, lambda work: None)


def fine(command: str, library: Path, *more: str) -> str:
    result = run(command, library, *more)
    assert result.exit_code == 0, result.output
    return result.stdout


def refused(command: str, library: Path, *more: str) -> str:
    result = run(command, library, *more)
    assert result.exit_code == 1
    return result.stderr


@pytest.fixture
def library(tmp_path: Path) -> Path:
    return tiles_library.make(tmp_path / "tiles")


def test_uninstall_gives_back_what_was_there_to_the_last_byte(tmp_path: Path) -> None:
    library = tiles_library.make(tmp_path / "Tiles' größte\n瓦 #%")
    own = tree(library / "server")
    assert f"Tiles Server {__version__}" in fine("install", library)
    assert tree(library / "server.original") == own
    assert f"as version {__version__}." in fine("status", library)
    assert "as it was" in fine("uninstall", library)
    assert tree(library / "server") == own
    assert {path.name for path in library.iterdir()} == PARTS


def test_a_debug_builds_link_to_its_checkout_is_swapped_as_a_link(tmp_path: Path) -> None:
    library = tiles_library.make(tmp_path / ".tiles_dev/tiles")
    checkout = (library / "server").rename(tmp_path / "checkout")
    (library / "server").symlink_to(checkout)
    own = tree(checkout)
    install(library)
    assert (library / "server/.venv/bin/python3").exists()
    fine("uninstall", library)
    assert (library / "server").readlink() == checkout
    assert tree(checkout) == own


def test_installing_again_renews_the_server_and_keeps_tiles_own(library: Path) -> None:
    own = tree(library / "server")
    install(library)
    (library / "server/tiles-server.json").write_text('{"version": "0.0.7"}')
    (library / "server/main.py").write_text("of another version")
    assert "which version 0.0.7 has installed" in run("status", library).stdout
    install(library)
    assert server_folder.version_at_install(library / "server") == __version__
    assert tree(library / "server.original") == own


def test_without_an_installation_there_is_nothing_to_undo(library: Path) -> None:
    before = tree(library)
    assert "nothing to undo" in fine("uninstall", library)
    assert fine("status", library).endswith("Tiles starts its own server.\n")
    assert tree(library) == before


def test_an_update_of_tiles_is_noticed_and_the_newer_server_is_what_comes_back(library: Path) -> None:
    install(library)
    put_own_server(library, "2")
    newer = tree(library / "server")
    assert "`tiles update` has put it back" in fine("status", library)
    install(library)
    fine("uninstall", library)
    assert tree(library / "server") == newer
    install(library)
    put_own_server(library, "3")
    assert "an update of Tiles" in fine("uninstall", library)
    assert (library / "server/main.py").read_text() == "3"
    assert {path.name for path in library.iterdir()} == PARTS


def test_what_is_gone_cannot_be_put_back(library: Path) -> None:
    install(library)
    shutil.rmtree(library / "server.original")
    assert not swap.state(library).has_original
    assert "server.original to put back" in refused("uninstall", library)
    assert server_folder.is_ours(library / "server")


def test_a_server_whose_interpreter_is_gone_is_said_not_to_start(library: Path) -> None:
    install(library)
    python = library / "server" / PYTHON
    python.unlink()
    python.symlink_to("/nowhere/bin/python")
    assert "/nowhere/bin/python is gone" in refused("status", library)
    install(library)
    assert f"as version {__version__}." in fine("status", library)


def test_a_server_that_cannot_be_imported_is_not_installed(library: Path) -> None:
    own = tree(library)

    def broken(work: Path) -> str:
        (pth,) = (work / "server").rglob("*.pth")
        pth.write_text("")
        return server_folder.try_start(work)

    with pytest.raises(CannotSwap, match="No module named 'app'"):
        swap.install(library, broken)
    assert tree(library / "server") == {
        name.removeprefix("server/"): facts for name, facts in own.items() if name.startswith("server/")
    } | {".": own["server"]}
    assert {path.name for path in library.iterdir()} == PARTS


@pytest.mark.parametrize("missing", ["modelfiles", "pi", "server"])
def test_a_folder_that_is_not_tiles_is_refused(library: Path, missing: str) -> None:
    shutil.rmtree(library / missing)
    for command in ("install", "uninstall", "status"):
        assert f"it has no folder {missing}" in refused(command, library)
    assert "no folder" in refused("install", library / "nowhere")


def test_two_at_once_do_not_meet(library: Path) -> None:
    with pytest.raises(CannotSwap, match="Another tiles-server"):
        swap.install(library, lambda work: swap.uninstall(library))
    assert {path.name for path in library.iterdir()} == PARTS


def test_without_sudo_the_exact_command_is_said_and_with_it_run(library: Path, tmp_path: Path) -> None:
    own = tree(library)
    said = unprivileged("install", library)
    # The script where that user may see it: these tests may run in a folder that is another's.
    program = rf"{re.escape(sys.executable)} -m app|{re.escape(str(Path(sys.executable).with_name('tiles-server')))}"
    assert re.search(rf"Run: sudo (?:{program}) tiles install --folder {re.escape(str(library))}\n\Z", said)
    assert tree(library) == own
    sudo = tmp_path / "bin/sudo"
    sudo.parent.mkdir()
    sudo.write_text('#!/bin/sh\necho "sudo $*"\n')
    for path in (sudo, sudo.parent):
        path.chmod(0o755)
    assert unprivileged("install", library, "--sudo", path=str(sudo.parent)) == said.partition("Run: ")[2]
    assert "There is no sudo here" in unprivileged("uninstall", library, "--sudo", path="/nowhere")


def unprivileged(command: str, library: Path, *more: str, path: str = "") -> str:
    """What is said to a user to whom the library does not belong; only root can try that."""
    if os.geteuid() != 0:
        pytest.skip("only root can become a user without rights")
    for parent in (library, *list(library.parents)[:-2]):  # the test's own below /tmp
        parent.chmod(parent.stat().st_mode | 0o055)
    words = [command, "--folder", str(library), *more]
    code = f"import os; from app.commands.tiles import tiles; os.setuid(65534); tiles({words!r})"
    environ = os.environ | ({"PATH": path} if path else {})
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environ)
    return done.stdout + done.stderr.removeprefix("Error: ")


def test_a_folder_of_ones_own_needs_no_sudo_but_the_right_to_write(library: Path) -> None:
    for path in (library, *library.iterdir()):
        os.chown(path, 65534, 65534) if os.geteuid() == 0 else None
    library.chmod(0o555)
    said = unprivileged("install", library, "--sudo")
    library.chmod(0o755)
    assert "give yourself the right to write" in said


def test_root_installs_for_the_owner_of_the_folder(library: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give files away")
    os.chown(library, 65534, 65534)
    install(library)
    assert {path.lstat().st_uid for path in (library / "server").rglob("*")} == {65534}


def test_the_library_is_looked_for_in_tiles_own_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    portable = tiles_library.make(tmp_path / "portable")
    program = portable / "tiles"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/tiles").symlink_to(program)
    user = tiles_library.make(tmp_path / "share/tiles")
    debug = tiles_library.make(tmp_path / ".tiles_dev/tiles")
    environ = {"PATH": str(tmp_path / "bin"), "HOME": str(tmp_path), "XDG_DATA_HOME": str(tmp_path / "share")}
    system = Path("/usr/local/share/tiles")
    assert candidates(environ) == [tmp_path / "bin", portable, system, user, debug]
    assert candidates({"HOME": "/home/me"})[-2:] == [Path("/home/me/.local/share/tiles"), debug]
    assert locate(None, environ) == portable
    if system.exists():
        pytest.skip("there is a Tiles on this machine")
    program.unlink()
    assert locate(None, environ) == user
    shutil.rmtree(user / "pi")
    assert locate(None, environ) == debug
    shutil.rmtree(debug / "pi")
    with pytest.raises(CannotSwap, match="There is no Tiles here"):
        locate(None, environ)


@pytest.mark.slow
@pytest.mark.parametrize("way", ["at-once", "in-steps"])
def test_killed_at_any_step_it_leaves_the_old_server_or_the_new_one(tmp_path: Path, way: str) -> None:
    root = Path(__file__).parents[1]
    command = [sys.executable, "-m", "tests.killed_swap", str(tmp_path), way]
    tried = subprocess.run(command, capture_output=True, text=True, cwd=root)
    assert tried.returncode == 0, tried.stderr
    assert int(tried.stdout) > 200
