"""The page at / that comes with the server, its files, and what it is told by /v1/activity."""

import gzip
import re
from pathlib import Path

import jsonschema
import pytest

from app.services.activity import INTERVALS
from app.services.ui import own_pages
from tests.conftest import KEY, Server, running, wait_for
from tests.document import DOCUMENT, resolved

FILES = sorted(own_pages.files())
MOST_BYTES = 60_000  # of the page at / with all that it loads


def test_the_page_is_small_and_names_no_other_address() -> None:
    texts = {name: file.path.read_text() for name, file in own_pages.files().items()}
    assert sum(len(text) for name, text in texts.items() if not name.startswith("schema")) < MOST_BYTES
    for name, text in texts.items():
        assert not re.findall(r"(?:https?:)?//(?!www\.w3\.org/)[a-z0-9-]+\.[a-z]", text), name


def test_the_page_runs_nothing_but_files_of_the_server(server: Server) -> None:
    page = server.client.get("/")
    rules = dict(rule.split(" ", 1) for rule in page.headers["content-security-policy"].split("; "))
    assert rules["default-src"] == "'none'" == rules["frame-ancestors"]
    assert {rules[name] for name in ("script-src", "style-src", "connect-src")} == {"'self'"}
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script>", page.text)
    references = re.findall(r'(?:src|href)="(/home/[^"]+)"', page.text)
    assert len(references) >= 3
    for reference in references:
        assert server.client.get(reference).status_code == 200


@pytest.mark.parametrize("path", ["/", *(f"/home/{name}" for name in FILES)])
def test_a_file_is_sent_once(server: Server, path: str) -> None:
    first = server.client.get(path)
    assert first.headers["cache-control"] == "no-cache"
    again = server.client.get(path, headers={"if-none-match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    plain = server.client.get(path, headers={"accept-encoding": "identity"})
    assert plain.content == first.content
    assert plain.headers["etag"] != first.headers["etag"] or first.headers.get("content-encoding") != "gzip"
    raw = server.client.stream("GET", path, headers={"accept-encoding": "gzip"})
    with raw as answer:
        assert gzip.decompress(b"".join(answer.iter_raw())) == plain.content


@pytest.mark.parametrize("path", ["/home/nothing.js", "/home/..%2fsettings.py", "/home/%2e%2e", "/home/a/b", "/home/x"])
def test_there_are_no_other_files(server: Server, path: str) -> None:
    answer = server.client.get(path)
    assert answer.status_code == 404
    assert answer.json()["error"]["type"] == "not_found_error"


def test_the_page_stays_at_home_beside_a_web_ui(tmp_path: Path) -> None:
    (tmp_path / "ui" / "home").mkdir(parents=True)
    (tmp_path / "ui" / "index.html").write_text("<title>UI</title>")
    (tmp_path / "ui" / "home" / "home.js").write_text("of the UI")
    with running(tmp_path, "--webui", str(tmp_path / "ui")) as server:
        assert server.client.get("/").text == "<title>UI</title>"
        assert "Tiles Server" in server.client.get("/home").text
        assert server.client.get("/home/home.js").content == (own_pages.files()["home.js"].path.read_bytes())
        activity = server.client.get("/v1/activity").json()
        assert (activity["web_ui"], activity["models"], activity["status"]) == (True, [], "ok")


def test_the_server_says_what_it_does(server: Server) -> None:
    server.chat(max_tokens=12, ignore_eos=True)
    reply = server.client.get("/v1/activity").json()
    jsonschema.validate(reply, resolved(DOCUMENT["components"]["schemas"]["ActivityReply"]))
    (model,) = reply["models"]
    assert (model["id"], model["status"]) == ("tiny", "loaded")
    assert model["context"] > 0
    assert reply["memory"]["total_bytes"] > reply["memory"]["available_bytes"] > 0
    assert reply["cache"]["prompt_tokens"] > 0
    assert len(reply["speed"]["completion_tokens_per_second"]) == INTERVALS


def test_tokens_a_second_add_up_to_what_was_answered(demo: Server) -> None:
    def tokens() -> float:
        speed = demo.client.get("/v1/activity").json()["speed"]
        return float(sum(speed["completion_tokens_per_second"])) * speed["interval_seconds"]

    before = tokens()
    count = demo.chat(max_tokens=10, ignore_eos=True).json()["usage"]["completion_tokens"]
    assert count == 10
    wait_for(lambda: tokens() >= before + count, what="the end of the interval")
    assert tokens() == pytest.approx(before + count, abs=0.01)


def test_what_cannot_be_loaded_is_told(tmp_path: Path) -> None:
    with running(tmp_path, "--model", str(tmp_path / "nothing")) as server:
        reply = wait_for(lambda: (read := server.client.get("/v1/activity").json())["error"] and read, what="an error")
        assert (reply["status"], reply["models"]) == ("ok", [])
        assert "nothing" in reply["error"]


def test_a_look_is_no_line_of_the_log_and_needs_the_key(guarded: Server) -> None:
    assert guarded.client.get("/v1/activity").status_code == 401
    headers = {"authorization": f"Bearer {KEY}"}
    assert guarded.client.get("/v1/activity", headers=headers).status_code == 200
    guarded.client.get("/home/home.js")
    guarded.client.get("/nothing")
    wait_for(lambda: any(line["route"] == "/nothing" for line in guarded.logged("request")), what="the log")
    routes = {line["route"] for line in guarded.logged("request")}
    assert not routes & {"/v1/activity", "/home/home.js"}
