"""What a page asked of the server, and what came back."""

import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from playwright.sync_api import Page, Request

from tests.conftest import events, said

CHAT = "/v1/chat/completions"


@dataclass(frozen=True)
class Call:
    """One request of the page."""

    request: Request

    @property
    def method(self) -> str:
        return self.request.method

    @property
    def path(self) -> str:
        return urlsplit(self.request.url).path

    @property
    def query(self) -> str:
        return urlsplit(self.request.url).query

    @property
    def body(self) -> dict[str, Any]:
        return json.loads(self.request.post_data or "{}")

    @property
    def headers(self) -> dict[str, str]:
        return self.request.headers

    @property
    def status(self) -> int:
        answer = self.request.response()
        assert answer is not None
        return answer.status

    @property
    def answer(self) -> str:
        """The whole answer; not for one that was broken off."""
        response = self.request.response()
        assert response is not None
        return response.text()

    @property
    def events(self) -> list[dict[str, Any]]:
        """The events of a stream that ended as it should."""
        return events(self.answer)

    def said(self, field: str = "content") -> str:
        return said(self.events, field)


class Wire:
    """All requests of a page in their order."""

    def __init__(self, page: Page) -> None:
        self._requests: list[Request] = []
        page.on("request", lambda request: self._requests.append(request))

    def calls(self, path: str, method: str | None = None) -> list[Call]:
        found = [Call(request) for request in self._requests]
        return [call for call in found if call.path == path and method in {None, call.method}]

    def last(self, path: str, method: str | None = None) -> Call:
        return self.calls(path, method)[-1]

    @property
    def chats(self) -> list[Call]:
        return self.calls(CHAT, "POST")

    @property
    def chat(self) -> Call:
        return self.chats[-1]

    def paths(self) -> set[str]:
        return {urlsplit(request.url).path for request in self._requests}

    def hosts(self) -> set[str]:
        urls = [urlsplit(request.url) for request in self._requests]
        return {url.netloc for url in urls if url.scheme in {"http", "https"}}
