"""The page at / for people who open the server's address, and its files. With a Web UI it is at /home."""

from typing import Annotated, Any

from litestar import Controller, Request, get
from litestar.params import PathParameter
from litestar.response.base import ASGIResponse

from app.file_response import respond
from app.services.errors import NotFound
from app.services.ui import own_pages

# Scripts and styles from files of this server alone, and no other site around it.
_RULES = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class HomeController(Controller):
    """The front door."""

    @get(["/", "/home"], include_in_schema=False)
    async def read_home(self, request: Request[Any, Any, Any]) -> ASGIResponse:
        """Show what is loaded and what the machine does, and let people chat."""
        return await _send("home.html", request)

    @get("/home/{name:str}", include_in_schema=False)
    async def read_home_file(
        self, name: Annotated[str, PathParameter()], request: Request[Any, Any, Any]
    ) -> ASGIResponse:
        """Give a script, a style sheet or a picture of the page."""
        return await _send(name, request)


async def _send(name: str, request: Request[Any, Any, Any]) -> ASGIResponse:
    if (file := own_pages.files().get(name)) is None:
        raise NotFound(f"There is no file {name[:200]} here")
    request.scope["state"]["quiet"] = name != "home.html"
    return await respond(file, dict(request.scope["headers"]), _RULES)
