"""Every route of the app with every method."""

import re

from app.application import create_app
from app.settings import Settings

UNKNOWN = [("GET", "/nothing"), ("POST", "/v1/nothing"), ("DELETE", "/v1/models/x"), ("GET", "/schemas")]


def routes() -> list[tuple[str, str]]:
    """Every method and path of the app, with something in the place of parameters."""
    found = {
        (method, re.sub(r"\{[^}]*\}", "x", route.path))
        for route in create_app(Settings()).routes
        for method in getattr(route, "methods", ["GET"])
        if method != "OPTIONS"
    }
    return sorted(found) + UNKNOWN


ROUTES = routes()
