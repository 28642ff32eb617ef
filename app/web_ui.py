"""The layer that answers for the built Web UI; everything else goes on to the routes."""

from litestar.enums import ScopeType
from litestar.response.base import ASGIResponse
from litestar.types import ASGIApp, HTTPScope, Receive, Scope, Send

from app.file_response import respond
from app.services.ui.folder import UiFolder

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
                return await respond(file, dict(scope["headers"]), _PAGE_RULES)
            except OSError:  # replaced by another UI in this very moment
                return None
        if scope["path"] == WORKER:
            return ASGIResponse(body=_RETIREMENT, media_type="text/javascript", headers={"Cache-Control": "no-cache"})
        return None
