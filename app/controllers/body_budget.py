"""How much memory the bodies of all requests under way may take together."""

import asyncio

from litestar.types import ASGIApp, Receive, Scope, Send

from app.services import heap
from app.services.errors import Busy
from app.settings import Settings

_VALUE = 256  # bytes that a value takes as an object, about
_MUCH = 4 * 2**20  # bytes after which memory is given back
_SHARE = "body_share"


class BodyBudget:
    """Memory for one body of the largest size. What does not fit beside others is refused, so that none waits."""

    def __init__(self, settings: Settings) -> None:
        self._free = cost(settings.max_body, settings.max_values)
        self._trimming: asyncio.Task[None] | None = None

    def take(self, scope: Scope, size: int) -> None:
        """Have a request hold so many bytes, until it is over. Raises Busy where so many are not free."""
        more = size - scope["state"].get(_SHARE, 0)
        if more > self._free:
            raise Busy("Too many large requests are under way; try again soon")
        self._free -= more
        scope["state"][_SHARE] = size

    def around(self, app: ASGIApp) -> ASGIApp:
        """Make an ASGI layer that ends what requests hold when they are over."""

        async def serve(scope: Scope, receive: Receive, send: Send) -> None:
            try:
                await app(scope, receive, send)
            finally:
                self._release(scope["state"].pop(_SHARE, 0) if "state" in scope else 0)

        return serve

    def _release(self, size: int) -> None:
        self._free += size
        if size > _MUCH and (self._trimming is None or self._trimming.done()):
            self._trimming = asyncio.create_task(_trim())


async def _trim() -> None:
    await asyncio.sleep(0.2)  # by then the request's objects are gone
    await asyncio.to_thread(heap.trim)


def cost(length: int, values: int) -> int:
    """Estimate what a body takes in bytes: as it came, as the texts in it, and as objects."""
    return 2 * length + _VALUE * values
