"""What llama-server can do and this server does not, said so that its Web UI leaves it alone."""

from litestar import Controller, get, post

from app.controllers.openapi import operation
from app.controllers.refusals import refusals
from app.dto.shared.errors import ErrorReply
from app.services.errors import FeatureForbidden

_PROXY = FeatureForbidden("This server fetches nothing for web pages")


class DisabledController(Controller):
    """What is off on purpose."""

    tags = ["Disabled"]
    opt = {"dialect": "Web UI"}

    @get(
        "/cors-proxy",
        status_code=403,
        summary="Fetch through the proxy",
        operation_class=operation(None),
        responses=refusals(_PROXY),
    )
    async def fetch_through_proxy(self) -> ErrorReply:
        """Refuse: this server fetches nothing for web pages."""
        raise _PROXY

    @post(
        "/cors-proxy",
        status_code=403,
        summary="Send through the proxy",
        operation_class=operation(None),
        responses=refusals(_PROXY),
    )
    async def send_through_proxy(self) -> ErrorReply:
        """Refuse: this server fetches nothing for web pages."""
        raise _PROXY
