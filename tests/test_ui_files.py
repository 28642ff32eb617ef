"""A built Web UI, served: which files, how they are kept, and that no route and no other file is reached by them."""

import gzip
import os
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.services.ui.folder import UiFolder, is_built
from tests.conftest import KEY, Server, running, wait_for

SCRIPT = b"console.log('a');\n" * 200
FILES = {
    "index.html": b"<!doctype html><title>UI</title>" + b" " * 2000,
    "sw.js": b"// worker\n" * 200,
    "workbox-1a2b.js": b"// workbox",
    "manifest.webmanifest": b"{}",
    "build.json": b'{"version": "b1"}',
    "favicon.ico": b"icon",
    "pwa-64x64.png": b"png" * 1000,
    "_app/version.json": b"{}",
    "_app/immutable/bundle.Ab12.js": SCRIPT,
    "_app/immutable/assets/bundle.Cd34.css": b"a{}" * 1000,
    # What must not be reached.
    "props": b"no route of ours",
    "v1/models": b"nor this",
    ".git/config": b"hidden",
}
SHOWN = sorted(name for name in FILES if name not in {"props", "v1/models", ".git/config"})


def build(folder: Path) -> Path:
    for name, content in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("ui")
    (base / "secret.txt").write_text("secret")
    (base / "dist-beside").mkdir()
    (base / "dist-beside" / "a.txt").write_text("secret")
    folder = build(base / "dist")
    (folder / "away.txt").symlink_to("../secret.txt")
    (folder / "beside").symlink_to("../dist-beside")
    (folder / "within.js").symlink_to("workbox-1a2b.js")
    (folder / "loop").symlink_to("loop")
    os.mkfifo(folder / "pipe.txt")
    return folder


@pytest.fixture(scope="module")
def ui(folder: Path, home: Path) -> Iterator[Server]:
    """A server with a UI and a key; without a model, which no file of the UI needs."""
    with running(home, "--webui", str(folder), "--api-key", KEY) as server:
        yield server
        assert server.errors() == []


def raw(server: Server, path: str, **headers: str) -> httpx.Response:
    """Ask for a path that the client must not tidy up."""
    target = {"target": path.encode()}
    return server.client.request("GET", "/", headers=headers, extensions=target)


@pytest.mark.parametrize("name", SHOWN)
def test_every_file_is_served_without_a_key(ui: Server, name: str) -> None:
    answer = ui.client.get(f"/{name}")
    assert answer.status_code == 200
    assert answer.content == FILES[name]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["x-request-id"]


def test_the_front_page_is_the_ui_with_any_query(ui: Server) -> None:
    for path in ("/", "/?q=hello", "/index.html"):
        answer = ui.client.get(path)
        assert answer.content == FILES["index.html"]
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
        assert answer.headers["content-security-policy"] == "frame-ancestors 'self'"


@pytest.mark.parametrize(
    ("names", "rule"),
    [
        (["index.html", "sw.js", "manifest.webmanifest", "build.json", "_app/version.json"], "no-cache"),
        (["_app/immutable/bundle.Ab12.js", "workbox-1a2b.js"], "public, max-age=31536000, immutable"),
        (["favicon.ico", "pwa-64x64.png"], "public, max-age=86400"),
    ],
)
def test_how_long_files_may_be_kept(ui: Server, names: list[str], rule: str) -> None:
    assert {ui.client.get(f"/{name}").headers["cache-control"] for name in names} == {rule}


@pytest.mark.parametrize(
    ("name", "media_type"),
    [
        ("_app/immutable/bundle.Ab12.js", "text/javascript; charset=utf-8"),
        ("_app/immutable/assets/bundle.Cd34.css", "text/css; charset=utf-8"),
        ("manifest.webmanifest", "application/manifest+json"),
        ("build.json", "application/json"),
        ("favicon.ico", "image/x-icon"),
        ("pwa-64x64.png", "image/png"),
    ],
)
def test_media_types(ui: Server, name: str, media_type: str) -> None:
    assert ui.client.get(f"/{name}").headers["content-type"] == media_type


def test_texts_are_zipped_for_those_who_take_it(ui: Server) -> None:
    path = "/_app/immutable/bundle.Ab12.js"
    for accepted in ("gzip", "br, gzip;q=0.5", "*", "GZIP"):
        answer = ui.client.send(
            ui.client.build_request("GET", path, headers={"accept-encoding": accepted}), stream=True
        )
        assert answer.headers["content-encoding"] == "gzip"
        sent = b"".join(answer.iter_raw())
        assert int(answer.headers["content-length"]) == len(sent) < len(SCRIPT)
        assert gzip.decompress(sent) == SCRIPT
    for accepted in ("identity", "gzip;q=0", "gzip; q=0.0, *", "br", "xgzip"):
        answer = ui.client.get(path, headers={"accept-encoding": accepted})
        assert "content-encoding" not in answer.headers
        assert answer.content == SCRIPT
        assert "Accept-Encoding" in answer.headers["vary"]
    assert "content-encoding" not in ui.client.get("/pwa-64x64.png").headers


def test_what_the_browser_has_is_not_sent_again(ui: Server) -> None:
    zipped = ui.client.get("/index.html")
    plain = ui.client.get("/index.html", headers={"accept-encoding": "identity"})
    assert zipped.headers["etag"] != plain.headers["etag"]
    for known in (zipped.headers["etag"], f'"x", W/{zipped.headers["etag"]}', "*"):
        again = ui.client.get("/index.html", headers={"if-none-match": known})
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["etag"] == zipped.headers["etag"]
        assert again.headers["cache-control"] == "no-cache"
    for known in ('"x"', plain.headers["etag"]):
        assert ui.client.get("/index.html", headers={"if-none-match": known}).status_code == 200


def test_a_changed_file_is_sent_anew(ui: Server, folder: Path) -> None:
    before = ui.client.get("/index.html")
    changed = folder / "index.html"
    changed.write_bytes(FILES["index.html"].replace(b"UI", b"IU"))
    try:
        after = ui.client.get("/index.html", headers={"if-none-match": before.headers["etag"]})
        assert after.status_code == 200
        assert b"IU" in after.content
    finally:
        changed.write_bytes(FILES["index.html"])


def test_head_is_answered_without_a_body(ui: Server) -> None:
    head, whole = ui.client.head("/sw.js"), ui.client.get("/sw.js")
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["etag"] == whole.headers["etag"]


@pytest.mark.parametrize("path", ["/props", "/v1/models"])
def test_a_file_never_stands_for_a_route_nor_opens_it(ui: Server, path: str) -> None:
    assert ui.client.get(path).status_code == 401
    answer = ui.client.get(path, headers={"authorization": f"Bearer {KEY}"})
    assert answer.json()
    assert answer.content not in FILES.values()


@pytest.mark.parametrize("path", ["/nothing", "/_app/immutable/none.js", "/chat/1", "/v1/nothing"])
def test_unknown_paths_are_json_and_need_the_key(ui: Server, path: str) -> None:
    assert ui.client.get(path).json()["error"]["code"] == "invalid_api_key"
    answer = ui.client.get(path, headers={"authorization": f"Bearer {KEY}"})
    assert answer.status_code == 404
    assert answer.json()["error"]["type"] == "not_found_error"


@pytest.mark.parametrize("method", ["POST", "DELETE", "PUT"])
def test_files_take_no_other_method(ui: Server, method: str) -> None:
    answer = ui.client.request(method, "/sw.js", headers={"authorization": f"Bearer {KEY}"})
    assert answer.status_code in {404, 405}
    assert answer.json()["error"]["type"] in {"not_found_error", "invalid_request_error"}


@pytest.mark.parametrize(
    "path",
    [
        *("/../secret.txt", "/%2e%2e/secret.txt", "/..%2fsecret.txt", "/_app/../../secret.txt"),
        *("/_app/..%2f..%2fsecret.txt", "/..%5csecret.txt", "/..%c0%afsecret.txt", "/..;/secret.txt"),
        *("/../dist-beside/a.txt", "/away.txt", "/beside/a.txt", "/loop", "/pipe.txt", "/.git/config"),
        *("/_app", "/_app/", "/index.html/", "/sw.js/", "/%2e/sw.js", "/%2fetc/passwd", "/~", "/%ff", "/%00"),
        *("/sw.js%00", "/" + "a" * 5000),
    ],
)  # fmt: skip
def test_nothing_else_is_reached(ui: Server, path: str) -> None:
    answer = raw(ui, path, authorization=f"Bearer {KEY}")
    assert answer.status_code == 404, answer.text
    assert answer.json()["error"]["type"] == "not_found_error"


def test_a_link_within_the_folder_is_followed(ui: Server) -> None:
    assert ui.client.get("/within.js").content == FILES["workbox-1a2b.js"]


def test_doubled_slashes_open_nothing(ui: Server) -> None:
    for path in ("//props", "//sw.js/../props", "/sw.js/../props", "//v1//models"):
        assert raw(ui, path).status_code in {401, 404}
        assert "n_ctx" not in raw(ui, path).text


def test_foreign_hosts_and_origins_get_no_file(ui: Server) -> None:
    assert ui.client.get("/sw.js", headers={"host": "evil.example"}).status_code == 403
    assert ui.client.get("/sw.js", headers={"origin": "https://evil.example"}).status_code == 403


def test_a_link_on_another_site_may_lead_to_the_ui_and_to_nothing_else(ui: Server) -> None:
    cross = {"sec-fetch-site": "cross-site"}
    assert ui.client.get("/", headers=cross).status_code == 200
    assert ui.client.get("/index.html", headers=cross).status_code == 200
    assert ui.client.post("/index.html", headers=cross).status_code == 403
    assert ui.client.get("/props", headers=cross).status_code == 403


def test_files_of_the_ui_are_not_in_the_log_unless_they_are_refused(ui: Server) -> None:
    for path in ("/", *(f"/{name}" for name in SHOWN), "/sw.js"):
        ui.client.get(path, headers={"X-Request-Id": "file"})
    ui.client.get("/build.json", headers={"X-Request-Id": "file-refused", "Host": "evil.example"})
    ui.client.get("/nothing.js", headers={"X-Request-Id": "file-missing"})
    wait_for(lambda: "file-missing" in ui.log, what="the last line")
    identities = [line["request_id"] for line in ui.logged("request")]
    assert [identity for identity in identities if identity.startswith("file")] == ["file-refused", "file-missing"]


def test_without_a_ui_there_is_a_page_of_our_own_and_old_workers_retire(server: Server) -> None:
    assert "Tiles Server" in server.client.get("/").text
    worker = server.client.get("/sw.js")
    assert "unregister" in worker.text
    assert worker.headers["cache-control"] == "no-cache"
    assert worker.headers["content-type"].startswith("text/javascript")
    assert server.client.get("/index.html").status_code == 404


def test_a_ui_in_the_data_folder_is_served_from_the_moment_it_is_there(server: Server) -> None:
    place = server.home / ".tiles" / "server" / "webui"
    place.mkdir(parents=True)
    (place / "index.html").write_text("<title>installed</title>")
    try:
        assert "installed" in server.client.get("/").text
    finally:
        (place / "index.html").unlink()
        place.rmdir()
    assert "Tiles Server" in server.client.get("/").text


@given(st.lists(st.sampled_from(["..", ".", "", "dist", "dist-beside", "a.txt", "secret.txt", "beside", "\\", "%2e"])))
def test_no_path_leads_out(parts: list[str]) -> None:
    here = UiFolder(Path(__file__).parent)
    found = here.find("/" + "/".join(parts))
    assert found is None


def test_what_a_built_ui_is(tmp_path: Path) -> None:
    assert not is_built(tmp_path / "none")
    assert not is_built(tmp_path)
    assert is_built(build(tmp_path))
