"""Images that requests name by URLs: in every dialect that has them, and only where the server may fetch them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import image_site, vision_models
from tests.conftest import Server, running
from tests.image_site import BUDGET, PNG, Site, running_site

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return vision_models.build(tmp_path_factory.mktemp("models") / "seeing")


@pytest.fixture(scope="module")
def fetching(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    program = (str(image_site.__file__),)
    flags = ("--model", str(folder), "--allow-image-urls")
    with running(tmp_path_factory.mktemp("fetching"), *flags, program=program) as server:
        yield server
        assert server.errors() == []


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with running_site() as site:
        yield site


def bodies(url: str) -> dict[str, dict[str, Any]]:
    """Give a question about an image as each dialect asks it, by its route."""

    def about(*content: Any, kind: str = "text") -> list[dict[str, Any]]:
        return [{"role": "user", "content": [{"type": kind, "text": "Look"}, *content]}]

    source = {"type": "url", "url": url}
    return {
        "/v1/chat/completions": {"messages": about({"type": "image_url", "image_url": {"url": url}}), "max_tokens": 4},
        "/v1/messages": {"messages": about({"type": "image", "source": source}), "max_tokens": 4},
        "/v1/responses": {
            "input": about({"type": "input_image", "image_url": url}, kind="input_text"),
            "max_output_tokens": 4,
        },
    }


def tokens(server: Server, path: str, url: str) -> int:
    answer = server.client.post(path, json=bodies(url)[path])
    assert answer.status_code == 200, answer.text
    usage = answer.json()["usage"]
    counts = ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
    return int(usage["prompt_tokens"]) if "prompt_tokens" in usage else sum(usage.get(name, 0) for name in counts)


@pytest.mark.parametrize("path", bodies(""))
def test_an_image_behind_a_url_is_as_one_in_the_request(fetching: Server, site: Site, path: str) -> None:
    site.redirects = {"/moved": f"{site.url}/a.png"}
    sent = bodies(f"data:image/png;base64,{vision_models.png(1)}")["/v1/chat/completions"]
    expected = fetching.client.post("/v1/chat/completions", json=sent).json()["usage"]["prompt_tokens"]
    assert tokens(fetching, path, f"{site.url}/moved") == expected


@pytest.mark.parametrize("path", bodies(""))
@pytest.mark.parametrize(("name", "reason"), [("/nothing", "404"), ("/text", "none of PNG")])
def test_what_is_no_image_there_is_refused_with_its_place(
    fetching: Server, site: Site, path: str, name: str, reason: str
) -> None:
    site.files = {"/a.png": PNG, "/text": b"<html></html>"}
    answer = fetching.client.post(path, json=bodies(f"{site.url}{name}")[path])
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert reason in error["message"]
    assert "content.1" in str(error)


@pytest.mark.parametrize("path", bodies(""))
def test_images_that_take_too_much_memory_together_are_to_be_sent_again(
    fetching: Server, site: Site, path: str
) -> None:
    site.files = {"/a.png": PNG, "/large.png": PNG + bytes(BUDGET)}
    answer = fetching.client.post(path, json=bodies(f"{site.url}/large.png")[path])
    assert answer.status_code == 503, answer.text
    assert int(answer.headers["Retry-After"]) >= 1
    assert "too much memory together" in answer.json()["error"]["message"]
    assert tokens(fetching, path, f"{site.url}/a.png") > 4


def test_only_the_internet_is_asked_and_only_with_the_flag(folder: Path, site: Site, tmp_path: Path) -> None:
    requests = len(site.requests)
    for flags, reason in [(("--allow-image-urls",), "this machine or its network"), ((), "--allow-image-urls")]:
        with running(tmp_path, "--model", str(folder), *flags) as server:
            for path, body in bodies(f"{site.url}/a.png").items():
                answer = server.client.post(path, json=body)
                assert answer.status_code == 400, answer.text
                assert reason in answer.json()["error"]["message"]
    assert len(site.requests) == requests
