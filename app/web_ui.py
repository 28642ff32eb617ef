"""The layer that answers for the built Web UI; everything else goes on to the routes."""

import asyncio
import re

from litestar.enums import ScopeType
from litestar.response.base import ASGIResponse
from litestar.types import ASGIApp, HTTPScope, Receive, Scope, Send

from app.services.ui.folder import UiFile, UiFolder

WORKER = "/sw.js"

# Browsers that have had a UI with a service worker from this address ask for it again. Without this one they would show
# that UI for ever.
_RETIREMENT = b"""self.addEventListener("install", () => self.skipWaiting());
self.addEventListener("activate", (event) => event.waitUntil(retire()));
async function retire() {
  for (const name of await caches.keys()) await caches.delete(name);
  await self.registration.unregister();
  // The UI's pages differ behind the #, and going to where one is already would load nothing.
  for (const page of await self.clients.matchAll({ type: "window" })) page.navigate(page.url.split("#")[0]);
}
"""

_PAGE_RULES = "frame-ancestors 'self'"  # no other site may frame the UI and have its buttons pressed


class WebUi:
    """An ASGI layer over the routes. It answers GET alone."""

    def __init__(self, app: ASGIApp, folder: UiFolder) -> None:
        self._app = app
        self._folder = folder

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer what is a file of the UI."""
        answer = None
        if scope["type"] == ScopeType.HTTP and scope["method"] == "GET":
            answer = await self._answer(scope)
            scope["state"]["quiet"] = answer is not None  # a page has a hundred files
        await (answer or self._app)(scope, receive, send)

    async def _answer(self, scope: HTTPScope) -> ASGIResponse | None:
        file = self._folder.find(scope["path"])
        if file is not None:
            try:
                return await _sent(file, dict(scope["headers"]))
            except OSError:  # replaced by another UI in this very moment
                return None
        if scope["path"] == WORKER:
            return ASGIResponse(body=_RETIREMENT, media_type="text/javascript", headers={"Cache-Control": "no-cache"})
        return None


async def _sent(file: UiFile, request_headers: dict[bytes, bytes]) -> ASGIResponse:
    zipped = file.zips and _takes_gzip(request_headers.get(b"accept-encoding", b"").decode("latin-1"))
    tag = f'"{file.version}{"-gz" if zipped else ""}"'
    headers = {"Cache-Control": file.cache_control, "ETag": tag, "X-Content-Type-Options": "nosniff"}
    if file.zips:
        headers["Vary"] = "Accept-Encoding"
    if file.media_type.startswith("text/html"):
        headers["Content-Security-Policy"] = _PAGE_RULES
    if _matches(request_headers.get(b"if-none-match", b"").decode("latin-1"), tag):
        return ASGIResponse(status_code=304, headers=headers)
    if zipped:
        headers["Content-Encoding"] = "gzip"
    body = await asyncio.to_thread(file.read, zipped=zipped)
    return ASGIResponse(body=body, media_type=file.media_type, headers=headers)


def _takes_gzip(accepted: str) -> bool:
    """Read Accept-Encoding: gzip, or *, unless its weight is zero."""
    weights = {}
    for item in accepted.lower().split(","):
        name, _, weight = item.partition(";")
        weights[name.strip()] = not re.fullmatch(r"\s*q\s*=\s*0(\.0*)?\s*", weight)
    return weights.get("gzip", weights.get("*", False))


def _matches(header: str, tag: str) -> bool:
    tags = [item.strip().removeprefix("W/") for item in header.split(",")]
    return tag in tags or "*" in tags
