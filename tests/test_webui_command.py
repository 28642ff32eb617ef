"""tiles-server webui install: what it takes, what it refuses, and that the old UI stays until the new one is whole."""

import gzip
import hashlib
import io
import os
import random
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import ClassVar

import pytest
from click.testing import CliRunner, Result

from app.commands.webui import webui
from app.services.ui import install
from tests.http_server import serving

PAGE = b"<!doctype html><title>new</title>"
BUILT = {"index.html": PAGE, "_app/immutable/bundle.js": b"js", "sw.js": b"worker"}
needs_npm = pytest.mark.skipif(shutil.which("npm") is None, reason="there is no npm here")


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where it is installed: in a fresh account."""
    for name in [name for name in os.environ if name.startswith(("TILES_", "HF_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path / "home/.tiles/server/webui"


def run(*arguments: object) -> Result:
    return CliRunner(catch_exceptions=False).invoke(webui, ["install", *map(str, arguments)])


def fails(*arguments: object) -> str:
    result = run(*arguments)
    assert result.exit_code == 1
    assert "Traceback" not in result.stderr
    return result.stderr


def folder(at: Path, files: dict[str, bytes] = BUILT) -> Path:
    for name, content in files.items():
        (at / name).parent.mkdir(parents=True, exist_ok=True)
        (at / name).write_bytes(content)
    return at


def tar(at: Path, files: dict[str, bytes], *more: tarfile.TarInfo) -> Path:
    with tarfile.open(at, "w:gz") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        for info in more:
            archive.addfile(info)
    return at


def zipped(at: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(at, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return at


def left_behind(place: Path) -> set[str]:
    """What is in the data folder besides the UI that is served."""
    kept = {place.name, ".webui.lock", place.resolve().name}
    return {path.name for path in place.parent.iterdir()} - kept


def contents(place: Path) -> dict[str, bytes]:
    return {str(path.relative_to(place)): path.read_bytes() for path in sorted(place.rglob("*")) if path.is_file()}


def test_a_built_folder(tmp_path: Path, place: Path) -> None:
    result = run(folder(tmp_path / "dist"))
    assert result.exit_code == 0
    assert str(place) in result.stdout
    assert contents(place) == BUILT
    assert left_behind(place) == set()


@pytest.mark.parametrize("prefix", ["", "./", "dist/", "a/b/dist/"])
@pytest.mark.parametrize("pack", [tar, zipped])
def test_an_archive_of_a_built_one(
    tmp_path: Path, place: Path, pack: Callable[[Path, dict[str, bytes]], Path], prefix: str
) -> None:
    files = {f"{prefix}{name}": content for name, content in BUILT.items()}
    assert run(pack(tmp_path / "ui.archive", files)).exit_code == 0
    assert contents(place) == BUILT
    ours = place.parents[1]
    assert [path for path in (ours, *ours.rglob("*")) if not path.is_symlink() and path.stat().st_mode & 0o077] == []
    assert left_behind(place) == set()


def test_one_zipped_page_as_older_builds_leave_it(tmp_path: Path, place: Path) -> None:
    assert run(folder(tmp_path / "public", {"index.html.gz": gzip.compress(PAGE)})).exit_code == 0
    assert contents(place) == {"index.html": PAGE}


def test_another_one_takes_the_place_of_the_first(tmp_path: Path, place: Path) -> None:
    run(folder(tmp_path / "first"))
    second = {"index.html": b"second"}
    assert run(folder(tmp_path / "second", second)).exit_code == 0
    assert contents(place) == second
    assert left_behind(place) == set()


def test_one_that_was_put_there_by_hand_is_replaced_and_other_things_are_not(tmp_path: Path, place: Path) -> None:
    folder(place, {"index.html": b"by hand"})
    assert run(folder(tmp_path / "dist")).exit_code == 0
    assert contents(place) == BUILT
    place.unlink()
    folder(place, {"diary.txt": b"dear diary"})
    assert "is no Web UI" in fails(tmp_path / "dist")
    assert contents(place) == {"diary.txt": b"dear diary"}
    assert left_behind(place) == set()


def test_a_folder_that_the_place_links_to_stays(tmp_path: Path, place: Path) -> None:
    own = folder(tmp_path / "own", {"index.html": b"own"})
    place.parent.mkdir(parents=True)
    place.symlink_to(own)
    assert run(folder(tmp_path / "dist")).exit_code == 0
    assert contents(place) == BUILT
    assert contents(own) == {"index.html": b"own"}


EVIL = ["../evil.html", "a/../../evil.html", "/tmp/evil.html", "..\\evil.html", "C:/evil.html", "ok/../../../evil"]


@pytest.mark.parametrize("name", EVIL)
@pytest.mark.parametrize("pack", [tar, zipped])
def test_an_archive_that_leads_out_is_refused_whole(
    tmp_path: Path, place: Path, pack: Callable[[Path, dict[str, bytes]], Path], name: str
) -> None:
    run(folder(tmp_path / "first", {"index.html": b"first"}))
    assert "outside of its folder" in fails(pack(tmp_path / "evil", BUILT | {name: b"evil"}))
    assert contents(place) == {"index.html": b"first"}
    assert left_behind(place) == set()
    assert not [path for path in tmp_path.rglob("*evil*") if path.name != "evil"]


@pytest.mark.parametrize("pack", [tar, zipped])
def test_an_archive_that_was_damaged_on_its_way_is_refused(
    tmp_path: Path, place: Path, pack: Callable[[Path, dict[str, bytes]], Path]
) -> None:
    noise = random.Random(1).randbytes(20_000)
    archive = pack(tmp_path / "ui.archive", BUILT | {"noise.bin": noise})
    content = bytearray(archive.read_bytes())
    content[len(content) // 2] ^= 0xFF
    archive.write_bytes(content)
    assert "cannot be unpacked" in fails(archive)
    assert not place.exists()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_an_archive_with_links_or_devices_is_refused(tmp_path: Path, place: Path, kind: bytes) -> None:
    odd = tarfile.TarInfo("odd")
    odd.type, odd.linkname = kind, "/etc/passwd"
    assert "a link or a device" in fails(tar(tmp_path / "ui.tgz", BUILT, odd))
    assert not place.exists()


def test_a_link_in_a_zip_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "ui.zip", "w") as archive:
        archive.writestr("index.html", PAGE)
        info = zipfile.ZipInfo("passwd")
        info.external_attr = 0o120777 << 16
        archive.writestr(info, "/etc/passwd")
    assert "a link or a device" in fails(tmp_path / "ui.zip")


def test_what_is_no_ui_is_refused_and_the_old_one_stays(tmp_path: Path, place: Path) -> None:
    run(folder(tmp_path / "first"))
    torn = tar(tmp_path / "torn.tgz", BUILT | {"big": os.urandom(100_000)})
    torn.write_bytes(torn.read_bytes()[:50_000])
    words = folder(tmp_path / "words", {"words.txt": b"not an archive"}) / "words.txt"
    refused = {
        tmp_path / "nothing": "There is no",
        folder(tmp_path / "empty", {"a.txt": b""}): "neither a built Web UI",
        words: "is no archive: a zip or a tar file is needed\n",
        tar(tmp_path / "other.tgz", {"a/b.txt": b"x"}): "no Web UI in it",
        torn: "cannot be unpacked",
    }
    for given, why in refused.items():
        assert why in fails(given)
        assert contents(place) == BUILT
        assert left_behind(place) == set()


def test_a_second_installation_at_the_same_time_is_refused(tmp_path: Path, place: Path) -> None:
    with install.workshop(place):
        assert "under way" in fails(folder(tmp_path / "dist"))
    assert run(tmp_path / "dist").exit_code == 0


def test_what_a_killed_one_left_behind_goes(tmp_path: Path, place: Path) -> None:
    folder(place.parent / ".webui-killed", {"index.html": b"half"})
    run(folder(tmp_path / "dist"))
    assert left_behind(place) == set()


def test_a_copy_that_fails_leaves_the_old_one(tmp_path: Path, place: Path) -> None:
    run(folder(tmp_path / "first", {"index.html": b"first"}))
    with install.workshop(place), pytest.raises(OSError, match="gone"):
        install.put(tmp_path / "gone", place)
    assert contents(place) == {"index.html": b"first"}
    assert left_behind(place) == set()


# A checkout. npm runs what package.json says; ours needs no package.

PACKAGE = b"""{"name": "ui", "version": "1.0.0", "scripts": {"build": "node build.js"}}"""
LOCK = b"""{"name": "ui", "version": "1.0.0", "lockfileVersion": 3, "packages": {"": {"version": "1.0.0"}}}"""
SCRIPT = b"""const fs = require("fs");
const out = "%s";
fs.mkdirSync(out, { recursive: true });
fs.writeFileSync(out + "/index.html", fs.readFileSync("page.html"));
"""


def checkout(at: Path, place: str = "tools/ui", out: str = "dist", **more: bytes) -> Path:
    files = {"package.json": PACKAGE, "package-lock.json": LOCK, "page.html": PAGE, "build.js": SCRIPT % out.encode()}
    return folder(at, {f"{place}/{name}": content for name, content in (files | more).items()})


@pytest.mark.slow
@needs_npm
@pytest.mark.parametrize(
    ("where", "out"),
    [
        ("tools/ui", "dist"),
        ("tools/server/webui", "../public"),
        ("examples/server/webui_llamacpp", "../public_llamacpp"),
    ],
)
def test_a_checkout_is_built_and_left_as_it_was(tmp_path: Path, place: Path, where: str, out: str) -> None:
    source = checkout(tmp_path / "llama.cpp", where, out)
    before = contents(source)
    result = run(source)
    assert result.exit_code == 0, result.output
    assert contents(place) == {"index.html": PAGE}
    assert contents(source) == before
    assert left_behind(place) == set()
    assert "npm ci" in result.stdout
    assert "npm run build" in result.stdout


BUILD_NUMBER = b"""require("fs").mkdirSync("dist");
require("fs").writeFileSync("dist/index.html", process.env.LLAMA_BUILD_NUMBER ?? "none");
"""


@pytest.mark.slow
@needs_npm
@pytest.mark.parametrize(
    ("name", "number"), [("llama.cpp-b7310", b"7310"), ("b11434", b"11434"), ("llama.cpp", b"none")]
)
def test_the_page_is_told_which_build_of_llama_cpp_it_belongs_to(
    tmp_path: Path, place: Path, name: str, number: bytes
) -> None:
    assert run(checkout(tmp_path / name, **{"build.js": BUILD_NUMBER})).exit_code == 0
    assert contents(place) == {"index.html": number}


@pytest.mark.slow
@needs_npm
def test_the_build_of_a_checkout_is_that_of_its_last_tag(tmp_path: Path, place: Path) -> None:
    source = checkout(tmp_path / "llama.cpp", **{"build.js": BUILD_NUMBER})
    author = ("-c", "user.name=Ada", "-c", "user.email=ada@example.org")
    for command in (["init", "-q"], ["add", "."], [*author, "commit", "-qm", "One"], ["tag", "b8765"]):
        subprocess.run(["git", "-C", source, *command], check=True)
    assert run(source).exit_code == 0
    assert contents(place) == {"index.html": b"8765"}


@pytest.mark.slow
@needs_npm
def test_an_archive_of_a_checkout_is_built(tmp_path: Path, place: Path) -> None:
    source = checkout(tmp_path / "src")
    files = {f"release-1/vendor/llama.cpp/{name}": content for name, content in contents(source).items()}
    assert run(tar(tmp_path / "sdist.tar.gz", files | {"release-1/docs/index.html": b"docs"})).exit_code == 0
    assert contents(place) == {"index.html": PAGE}


@pytest.mark.slow
@needs_npm
def test_a_build_that_fails_says_why(tmp_path: Path, place: Path) -> None:
    run(folder(tmp_path / "first"))
    source = checkout(tmp_path / "llama.cpp", **{"build.js": b"console.error('out of paint'); process.exit(3);"})
    said = fails(source)
    assert "npm run build failed" in said
    assert "out of paint" in said
    assert contents(place) == BUILT
    assert left_behind(place) == set()


def test_without_npm_a_checkout_says_what_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "npm is needed" in fails(checkout(tmp_path / "llama.cpp"))


# Online, against as much of the hub as a download asks for.


class Bucket(BaseHTTPRequestHandler):
    files: ClassVar[dict[str, bytes]] = {}

    def do_GET(self) -> None:
        content = self.files.get(self.path)
        if content is None:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, bytes]]:
    """A hub that publishes build 7 as the latest one."""
    packed = tar(tmp_path / "dist.tar.gz", {f"./{name}": content for name, content in BUILT.items()}).read_bytes()
    digest = f"{hashlib.sha256(packed).hexdigest()}  dist.tar.gz\n".encode()
    Bucket.files = {
        f"/buckets/ggml-org/llama-ui/resolve/{version}/dist.tar.gz{end}": content
        for version in ("latest", "b7")
        for end, content in {"": packed, ".sha256": digest}.items()
    }
    with serving(Bucket) as url:
        monkeypatch.setenv("HF_ENDPOINT", url)
        yield Bucket.files


@pytest.mark.parametrize("arguments", [[], ["--build", "7"]])
def test_the_published_one(bucket: dict[str, bytes], place: Path, arguments: list[str]) -> None:
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    assert contents(place) == BUILT
    assert left_behind(place) == set()


def test_a_build_that_was_never_published(bucket: dict[str, bytes], place: Path) -> None:
    assert "no Web UI for b8" in fails("--build", 8)
    assert not place.exists()


def test_a_download_that_is_not_what_it_should_be(bucket: dict[str, bytes], place: Path) -> None:
    path = "/buckets/ggml-org/llama-ui/resolve/latest/dist.tar.gz"
    bucket[path] += b"more"
    assert "not what its digest says" in fails()
    bucket[f"{path}.sha256"] = b"<html>"
    assert "is no digest" in fails()
    assert not place.exists()


def test_nobody_answers(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert "cannot be reached" in fails()
    assert left_behind(place) == set()


def test_a_build_number_and_a_folder_exclude_each_other(tmp_path: Path) -> None:
    assert run(folder(tmp_path / "dist"), "--build", 7).exit_code == 2


def test_the_command_is_there() -> None:
    shown = subprocess.run([sys.executable, "-m", "app", "webui", "--help"], capture_output=True, text=True)
    assert "install" in shown.stdout
