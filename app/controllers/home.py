"""The page at /, for people who open the server's address."""

from html import escape

from litestar import Controller, MediaType, get
from litestar.di import NamedDependency

from app import __version__
from app.services.model_service import ModelService

_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>Tiles Server</title>
<link rel="icon" href="{icon}">
<style>
body {{ font: 1rem/1.6 system-ui, sans-serif; max-width: 40rem; margin: 4rem auto; padding: 0 1rem }}
code {{ font-family: ui-monospace, monospace }}
</style>
<h1>Tiles Server</h1>
<p>MLX language models behind one HTTP API. Version {version}.</p>
<p>{state}</p>
<ul>
<li><a href="/schema">API documentation</a>, where every call can be tried</li>
<li><code>POST /v1/chat/completions</code> for OpenAI clients: the base URL is this address with <code>/v1</code></li>
<li><a href="/health">Health</a>, <a href="/v1/models">models</a>, <a href="/props">properties</a></li>
</ul>
</html>
"""


# Four tiles. In the page itself, so that a browser asks for no /favicon.ico.
_ICON = (
    "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16' fill='%23777'%3E"
    "%3Cpath d='M1 1h6v6H1zM9 1h6v6H9zM1 9h6v6H1zM9 9h6v6H9z'/%3E%3C/svg%3E"
)


class HomeController(Controller):
    """The front door."""

    @get("/", media_type=MediaType.HTML, include_in_schema=False)
    async def read_home(self, model_service: NamedDependency[ModelService]) -> str:
        """Say what this is and what is loaded."""
        return _PAGE.format(icon=_ICON, version=escape(__version__), state=escape(model_service.models.describe()))
