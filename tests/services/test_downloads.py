"""Downloads into a hub folder with huggingface_hub's real code, from a hub on this machine; and what removes them."""

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.services import catalog, hub
from app.services.downloads import client, plan, transfer
from app.services.downloads.plan import Plan, RemoteFile
from app.services.downloads.removal import Removal
from app.services.errors import (
    AppError,
    DiskFull,
    DownloadFailed,
    DownloadForbidden,
    InvalidRequest,
    ModelNotFound,
)
from tests import gguf_files, tiny_model
from tests.hub_stand_in import Hub, running_hub

WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model.build(tmp_path_factory.mktemp("made") / "tiny")


@pytest.fixture
def own_hub(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with running_hub() as one:
        one.add("org/tiny", tiny)
        monkeypatch.setenv("HF_ENDPOINT", one.url)
        monkeypatch.setattr(transfer, "_CHUNK", 4096)
        yield one


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "hub"


def fetch(name: str, cache: Path) -> Path:
    return transfer.fetch(client.look_up(name), cache)


def partials(cache: Path) -> list[Path]:
    return list(cache.rglob("*.incomplete"))


def test_a_downloaded_model_lies_as_huggingface_hub_itself_would_have_put_it(own_hub: Hub, cache: Path) -> None:
    from huggingface_hub import scan_cache_dir, snapshot_download

    own_hub.repos["org/tiny"].files |= {"modeling_evil.py": b"raise SystemExit", "LICENSE": b"for tests"}
    folder = fetch("org/tiny", cache)
    assert catalog.inspect(cache / "models--org--tiny").path == folder
    assert {"LICENSE", "config.json", WEIGHTS} <= {path.name for path in folder.iterdir()}
    assert not (folder / "modeling_evil.py").exists()
    assert snapshot_download("org/tiny", cache_dir=cache, local_files_only=True) == str(folder)
    scan = scan_cache_dir(cache)
    assert not scan.warnings
    assert [repo.repo_id for repo in scan.repos] == ["org/tiny"]
    assert not partials(cache)


def test_the_token_goes_to_the_hub_and_not_to_where_it_keeps_its_files(
    own_hub: Hub, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own_hub.repos["org/tiny"].needs_token = "hf_secret"
    with pytest.raises(ModelNotFound, match="or it is private"):
        fetch("org/tiny", cache)
    monkeypatch.setattr("huggingface_hub.utils._headers.get_token", lambda: "hf_secret")
    assert fetch("org/tiny", cache).is_dir()
    assert set(own_hub.tokens) == {"Bearer hf_secret"}


def test_a_cut_connection_goes_on_where_it_ended(own_hub: Hub, cache: Path) -> None:
    own_hub.cut_after[WEIGHTS] = [10_000]
    folder = fetch("org/tiny", cache)
    assert (folder / WEIGHTS).read_bytes() == own_hub.repos["org/tiny"].files[WEIGHTS]
    assert "bytes=8192-" in own_hub.ranges(WEIGHTS)


def test_too_many_requests_are_asked_again(own_hub: Hub, cache: Path) -> None:
    own_hub.statuses["/storage/"] = [429]
    assert fetch("org/tiny", cache).is_dir()


def test_a_wrong_checksum_is_refused_and_fetched_anew(own_hub: Hub, cache: Path) -> None:
    repo = own_hub.repos["org/tiny"]
    repo.checksums = {WEIGHTS: "0" * 64}
    with pytest.raises(DownloadFailed, match="wrong checksum"):
        fetch("org/tiny", cache)
    assert not list(cache.rglob("0" * 64 + "*"))
    repo.checksums = {"config.json": "0" * 40}
    with pytest.raises(DownloadFailed, match=r"config\.json of org/tiny came with a wrong checksum"):
        fetch("org/tiny", cache)
    repo.checksums = {}
    assert catalog.inspect(fetch("org/tiny", cache)).id == "org/tiny"


def test_a_file_that_was_begun_and_has_other_bytes_is_not_taken(own_hub: Hub, cache: Path) -> None:
    made = client.look_up("org/tiny")
    (file,) = [file for file in made.files if file.path == WEIGHTS]
    begun = plan.partial(made.entry(cache) / "blobs" / file.blob)
    begun.parent.mkdir(parents=True)
    begun.write_bytes(b"x" * 5000)
    with pytest.raises(DownloadFailed, match="wrong checksum"):
        fetch("org/tiny", cache)
    assert fetch("org/tiny", cache).is_dir()
    begun.parent.with_name("snapshots").rename(cache / "elsewhere")
    (begun.parent / file.blob).unlink()
    begun.write_bytes(b"x" * (file.size + 1))  # more than there is
    assert fetch("org/tiny", cache).is_dir()


def test_what_is_there_is_not_fetched_again(own_hub: Hub, cache: Path) -> None:
    fetch("org/tiny", cache)
    before = len(own_hub.requests)
    fetch("org/tiny", cache)
    assert [path for _, path, _ in own_hub.requests[before:]] == ["/api/models/org/tiny"]


def test_a_new_commit_shares_what_has_not_changed(own_hub: Hub, cache: Path) -> None:
    first = fetch("org/tiny", cache)
    repo = own_hub.repos["org/tiny"]
    repo.commit = "b" * 40
    repo.files["README.md"] = b"new"
    before = len(own_hub.requests)
    second = fetch("org/tiny", cache)
    assert [path for _, path, _ in own_hub.requests[before:]][1:] == [f"/org/tiny/resolve/{repo.commit}/README.md"]
    assert (first / WEIGHTS).samefile(second / WEIGHTS)
    assert catalog.inspect(cache / "models--org--tiny").path == second


@pytest.mark.parametrize(
    ("name", "kind", "words"),
    [
        ("org/none", ModelNotFound, "has no model org/none"),
        ("org/gated", DownloadForbidden, "is gated"),
        ("org/broken", DownloadFailed, "answered 500"),
        ("org/empty", InvalidRequest, "has no MLX model"),
        ("org/tiny:Q8_0", InvalidRequest, "has no GGUF file"),
    ],
)
def test_what_the_hub_does_not_give_is_said_in_one_line(
    own_hub: Hub, cache: Path, name: str, kind: type[AppError], words: str
) -> None:
    own_hub.repos["org/gated"] = own_hub.repos["org/tiny"].__class__(own_hub.repos["org/tiny"].files, gated=True)
    own_hub.repos["org/empty"] = own_hub.repos["org/tiny"].__class__({"README.md": b"nothing"})
    own_hub.statuses["org/broken"] = [500]
    with pytest.raises(kind, match=words) as failure:
        fetch(name, cache)
    assert "\n" not in failure.value.message


@pytest.mark.parametrize("name", ["", "../..", "org/..", "a/b/c", "org/näme", "org--x/y", "/etc/passwd", "o/x y"])
def test_what_is_no_name_of_a_repo_leads_nowhere(own_hub: Hub, cache: Path, name: str) -> None:
    with pytest.raises((InvalidRequest, ModelNotFound)):
        fetch(name, cache)
    with pytest.raises((InvalidRequest, ModelNotFound)):
        Removal(name, cache)
    assert not cache.exists()


@pytest.mark.parametrize("path", ["../../evil.json", "/tmp/evil.json", "a/../../../evil.json", "a\\..\\evil.json"])
def test_a_file_name_that_leads_out_is_refused_before_anything_is_written(own_hub: Hub, cache: Path, path: str) -> None:
    own_hub.repos["org/tiny"].files[path] = b"{}"
    with pytest.raises(DownloadFailed, match="leads out"):
        fetch("org/tiny", cache)
    assert not cache.exists()


@given(st.text(max_size=30))
def test_no_name_of_a_blob_or_commit_but_a_hash_is_taken(text: str) -> None:
    files = [RemoteFile("config.json", 2, "a" * 40), RemoteFile(WEIGHTS, 2, text)]
    with pytest.raises(DownloadFailed):
        plan.make("org/tiny", None, "a" * 40, files)
    with pytest.raises(DownloadFailed):
        plan.make("org/tiny", None, text, [files[0], RemoteFile(WEIGHTS, 2, "b" * 64)])


def test_what_does_not_fit_is_refused_before_anything_is_fetched(
    own_hub: Hub, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "free_bytes", lambda _: 1000)
    with pytest.raises(DiskFull, match=r"needs .* more"):
        fetch("org/tiny", cache)
    assert not cache.exists()
    assert not own_hub.ranges(WEIGHTS)


def test_two_processes_that_fetch_the_same_model_fetch_it_once(own_hub: Hub, cache: Path) -> None:
    held = own_hub.pause(WEIGHTS)
    code = f"""
from pathlib import Path
from app.services.downloads import client, transfer
transfer.fetch(client.look_up("org/tiny"), Path({str(cache)!r}))
"""
    processes = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(2)]
    own_hub.begun[WEIGHTS].wait(60)
    held.set()
    assert [process.wait(60) for process in processes] == [0, 0]
    assert own_hub.ranges(WEIGHTS).count("") == 2  # the hub's redirect and its storage
    assert catalog.inspect(cache / "models--org--tiny").id == "org/tiny"
    assert not partials(cache)


def test_those_who_link_a_file_at_the_same_time_do_not_hinder_each_other(tmp_path: Path) -> None:
    blob, link = tmp_path / "blobs" / "content", tmp_path / "snapshots" / "file"
    blob.parent.mkdir()
    blob.write_text("content")
    threads = 8
    at_once = threading.Barrier(threads)

    def work(_: int) -> None:
        for _ in range(50):
            at_once.wait(60)
            link.unlink(missing_ok=True)
            at_once.wait(60)
            transfer._link(link, blob)
            assert link.read_text() == "content"

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, range(threads)))
    assert list(link.parent.iterdir()) == [link]


def test_the_disk_that_fills_up_on_the_way_is_said_and_what_came_stays(
    own_hub: Hub, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, os.strerror(28))

    made = client.look_up("org/tiny")
    with monkeypatch.context() as patch:
        patch.setattr(transfer, "_check", full)
        with pytest.raises(DownloadFailed, match="No space left on device"):
            transfer.fetch(made, cache)
    assert partials(cache)
    transfer.fetch(made, cache)
    assert not partials(cache)


# Removing.


@pytest.fixture
def ggufs(own_hub: Hub, tiny: Path, cache: Path, tmp_path: Path) -> Path:
    """Two quantizations of one repo, downloaded one after the other."""
    folder = tmp_path / "ggufs"
    folder.mkdir()
    gguf_files.write(tiny, folder / "tiny-Q8_0.gguf", "Q8_0")
    gguf_files.write(tiny, folder / "tiny-b-Q4_0.gguf", "Q4_0", shards=2)
    own_hub.add("org/ggufs", folder, tags=("gguf",))
    for quant in ("Q8_0", "q4_0"):
        fetch(f"org/ggufs:{quant}", cache)
    return cache / "models--org--ggufs"


def test_a_quantization_goes_and_the_other_stays(ggufs: Path, cache: Path) -> None:
    size = hub.disk_bytes(ggufs)
    freed = Removal("org/ggufs:Q4_0", cache).run()
    assert list(hub.gguf_files(ggufs)) == ["org/ggufs:Q8_0"]
    assert catalog.inspect(ggufs).precision == "Q8_0"
    assert freed == size - hub.disk_bytes(ggufs) > 0
    with pytest.raises(ModelNotFound):
        Removal("org/ggufs:Q4_0", cache)
    Removal("org/ggufs:Q8_0", cache).run()
    assert not list(cache.glob("*models--org--ggufs*"))


def test_a_gguf_file_comes_with_its_vision_part_which_goes_with_the_last(
    own_hub: Hub, ggufs: Path, cache: Path
) -> None:
    files = own_hub.repos["org/ggufs"].files
    files |= {"mmproj-F32.gguf": b"GGUF 32", "mmproj-F16.gguf": b"GGUF 16"}
    for quant in ("Q8_0", "Q4_0"):
        folder = fetch(f"org/ggufs:{quant}", cache)
        assert (folder / "mmproj-F16.gguf").read_bytes() == b"GGUF 16"
        assert not (folder / "mmproj-F32.gguf").exists()
    Removal("org/ggufs:Q4_0", cache).run()
    assert (folder / "mmproj-F16.gguf").exists()
    Removal("org/ggufs:Q8_0", cache).run()
    assert not list(cache.glob("*models--org--ggufs*"))


def test_a_file_that_two_names_share_stays_until_both_are_gone(ggufs: Path, cache: Path) -> None:
    snapshot = next((ggufs / "snapshots").iterdir())
    blob = (snapshot / "tiny-Q8_0.gguf").resolve()
    (snapshot / "tiny-copy-F16.gguf").symlink_to(os.path.relpath(blob, snapshot))
    Removal("org/ggufs:Q8_0", cache).run()
    assert (snapshot / "tiny-copy-F16.gguf").read_bytes()[:4] == b"GGUF"
    Removal("org/ggufs:F16", cache).run()
    assert not blob.exists()


def test_removing_follows_no_link_out_of_the_cache(own_hub: Hub, cache: Path, tmp_path: Path) -> None:
    fetch("org/tiny", cache)
    precious = tmp_path / "precious.safetensors"
    precious.write_bytes(b"mine")
    snapshot = cache / "models--org--tiny/snapshots" / ("a" * 40)
    (snapshot / "more.safetensors").symlink_to(precious)
    (cache / "models--org--mine").symlink_to(shutil.copytree(snapshot, tmp_path / "mine"))
    Removal("org/tiny", cache).run()
    assert precious.read_bytes() == b"mine"
    with pytest.raises(ModelNotFound):
        Removal("org/mine", cache)
    assert (tmp_path / "mine" / WEIGHTS).exists()


def test_what_is_there_of_a_broken_off_download_can_be_removed(own_hub: Hub, cache: Path) -> None:
    own_hub.statuses["/storage/"] = [500]
    with pytest.raises(DownloadFailed):
        fetch("org/tiny", cache)
    Removal("org/tiny", cache).run()
    assert not list(cache.glob("models--*"))


def test_a_search_gives_what_can_be_served_the_most_used_first(own_hub: Hub) -> None:
    repo = own_hub.repos["org/tiny"]
    own_hub.repos["org/other-tiny"] = repo.__class__({}, tags=("gguf",), gated=True)
    own_hub.repos["org/tiny-torch"] = repo.__class__({}, tags=("pytorch",))
    matches = client.search("TINY", 10)
    assert [(match.id, match.gated) for match in matches] == [("org/tiny", False), ("org/other-tiny", True)]
    assert len(client.search("tiny", 1)) == 1
    own_hub.statuses["/api/models"] = [400]
    with pytest.raises(DownloadFailed, match="answered 400"):
        client.search("tiny", 1)


def test_without_a_network_the_hub_is_said_to_be_out_of_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    with pytest.raises(DownloadFailed, match="cannot be reached"):
        client.look_up("org/tiny")


def test_a_plan_counts_what_is_there_already(own_hub: Hub, cache: Path) -> None:
    made: Plan = client.look_up("org/tiny")
    assert sum(made.present(cache).values()) == 0
    transfer.fetch(made, cache)
    assert sum(made.present(cache).values()) == made.total == sum(file.size for file in made.files)


def test_a_file_that_comes_by_xet_only_is_refused_with_what_to_do() -> None:
    files = [RemoteFile("config.json", 2, "a" * 40), RemoteFile(WEIGHTS, 50 * 10**9 + 1, "b" * 64)]
    with pytest.raises(DownloadFailed, match="`hf download org/large` fetches it"):
        plan.make("org/large", None, "a" * 40, files)
