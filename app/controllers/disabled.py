"""What llama-server can do and this server does not, said so that its Web UI leaves it alone."""

from litestar import Controller, get, post

from app.controllers.openapi import operation
from app.controllers.refusals import refusals
from app.dto.shared.errors import ErrorReply
from app.services.errors import FeatureForbidden

# The Web UI takes tools for absent when it reads a 403, older ones when they read these two words.
_TOOLS = FeatureForbidden("Tools of the server were not found: it runs none")
_PROXY = FeatureForbidden("This server fetches nothing for web pages")


class DisabledController(Controller):
    """What is off on purpose."""

    tags = ["Web UI"]

    @get("/tools", status_code=403, operation_class=operation(None), responses=refusals())
    async def list_tools(self) -> ErrorReply:
        """Say that the server has no tools of its own."""
        raise _TOOLS

    @post("/tools", status_code=403, operation_class=operation(None), responses=refusals())
    async def run_tool(self) -> ErrorReply:
        """Say that the server has no tools of its own."""
        raise _TOOLS

    @get("/cors-proxy", status_code=403, operation_class=operation(None), responses=refusals())
    async def fetch_through_proxy(self) -> ErrorReply:
        """Say that the server is nobody's proxy."""
        raise _PROXY

    @post("/cors-proxy", status_code=403, operation_class=operation(None), responses=refusals())
    async def send_through_proxy(self) -> ErrorReply:
        """Say that the server is nobody's proxy."""
        raise _PROXY
