"""Images that are named by URLs, from a real server on this machine, which here may be asked."""

import asyncio
from collections.abc import Iterator

import pytest

from app.services import images
from app.services.errors import FetchedImagesFull, InvalidImage
from app.services.generation import EncodedImage, Image
from app.services.image_urls import FetchBudget, ImageFetcher
from app.services.public_network import PublicTransport
from tests.image_site import MIB, PNG, Site, anywhere, running_site


@pytest.fixture
def site() -> Iterator[Site]:
    with running_site() as site:
        yield site


def fetch(*sources: str, seconds: float = 20) -> list[Image]:
    fetcher = ImageFetcher(PublicTransport(anywhere), seconds)
    return asyncio.run(fetcher.fetch([Image(source, f"messages.{n}") for n, source in enumerate(sources)]))


def test_urls_become_files_and_all_else_stays_as_it_is(site: Site) -> None:
    site.redirects = {"/moved": "/again", "/again": "a.png"}
    images = fetch("AAAA", f"{site.url}/a.png", f"{site.url.replace('http', 'HTTP')}/moved", "file:///etc/passwd")
    assert [image.source for image in images] == ["AAAA", PNG, PNG, "file:///etc/passwd"]
    assert [image.param for image in images] == [f"messages.{n}" for n in range(4)]


def test_nothing_of_the_user_is_sent(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """No cookie of the first answer, nothing of a proxy, no password of a URL."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    site.redirects = {"/moved": "/a.png"}
    fetch(f"{site.url}/moved")
    assert [path for path, _ in site.requests] == ["/moved", "/a.png"]
    for _, headers in site.requests:
        assert headers.keys() <= {"host", "accept", "accept-encoding", "connection"}
        assert headers["host"] == site.url.removeprefix("http://")


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/nothing", "answers with 404"),
        ("/round", "redirects more than 5 times"),
        ("/file", "only http and https"),
        ("/password", "without a password"),
        ("/nowhere", "no host of that name"),
        ("/broken", "could not be fetched"),
        ("/closed", "could not be fetched"),
        ("/endless", "more than 20 MiB"),
    ],
)
def test_what_cannot_be_fetched_is_said_with_its_place(site: Site, path: str, reason: str) -> None:
    site.redirects = {
        "/round": "/round",
        "/file": "file:///etc/passwd",
        "/password": "http://user:secret@127.0.0.1/a.png",
        "/nowhere": "http://nowhere.invalid/a.png",
        "/broken": "http://[::1/",
        "/closed": "http://127.0.0.1:9/",
    }
    with pytest.raises(InvalidImage, match=reason) as refusal:
        fetch("AAAA", f"{site.url}{path}")
    assert refusal.value.param == "messages.1"
    assert "secret" not in refusal.value.message


def test_a_server_that_says_nothing_is_left_after_a_while(site: Site) -> None:
    with pytest.raises(InvalidImage, match="longer than"):
        fetch(f"{site.url}/silent", seconds=0.05)


def test_the_images_of_a_request_are_limited_together(site: Site) -> None:
    site.files = {"/large": bytes(17 * MIB)}
    with pytest.raises(InvalidImage, match="64 MiB together"):
        fetch(*[f"{site.url}/large"] * 4)


def test_the_images_of_all_requests_are_limited_together_until_they_are_answered(site: Site) -> None:
    site.files = {"/large": PNG + bytes(5 * MIB), "/small": PNG}
    budget = FetchBudget(8 * MIB)
    fetcher = ImageFetcher(PublicTransport(anywhere), budget=budget)

    def read(name: str) -> list[EncodedImage]:
        fetched = asyncio.run(fetcher.fetch([Image(f"{site.url}/{name}"), Image("AAAA")]))
        return [images.resized(images.read(fetched[0]), 10, 10)]

    first = read("large")
    assert budget.used == len(PNG) + 5 * MIB
    with pytest.raises(FetchedImagesFull):
        read("large")
    assert budget.used == len(PNG) + 5 * MIB  # what was fetched of the second counts no more
    others = read("small") + read("small")
    first.clear()
    assert budget.used == len(others) * len(PNG)
    assert read("large")
    with pytest.raises(FetchedImagesFull):
        asyncio.run(fetcher.fetch([Image(f"{site.url}/large")] * 2))
    others.clear()
    assert budget.used == 0


def test_each_redirect_is_checked_anew(site: Site) -> None:
    """The first host is allowed, as one of the internet would be; where it leads is not."""
    site.redirects = {"/inside": f"{site.url}/a.png"}
    answers = iter([True, False])
    fetcher = ImageFetcher(PublicTransport(lambda _: next(answers)))
    with pytest.raises(InvalidImage, match="on this machine or its network"):
        asyncio.run(fetcher.fetch([Image(f"{site.url}/inside")]))
    assert [path for path, _ in site.requests] == ["/inside"]


def test_this_machine_is_not_asked(site: Site) -> None:
    with pytest.raises(InvalidImage, match="on this machine or its network"):
        asyncio.run(ImageFetcher().fetch([Image(f"{site.url}/a.png")]))
    assert site.requests == []
