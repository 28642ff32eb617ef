"""The routes of the app, which methods they have, what their handlers take and how they answer."""

import re
from collections.abc import Iterator
from types import NoneType, UnionType
from typing import Any, get_args, get_origin

from litestar.handlers import HTTPRouteHandler

from app.application import create_app
from app.settings import Settings

UNKNOWN = [("GET", "/nothing"), ("POST", "/v1/nothing"), ("DELETE", "/v1/models/x"), ("GET", "/schemas")]
_APP = create_app(Settings())


def _all() -> list[tuple[str, str]]:
    """Every method and path of the app, with something in the place of parameters, and some that are not there."""
    known = {
        (method, re.sub(r"\{[^}]*\}", "x", route.path))
        for route in _APP.routes
        for method in getattr(route, "methods", ["GET"])
        if method != "OPTIONS"
    }
    return sorted(known) + UNKNOWN


def _handlers() -> Iterator[tuple[str, HTTPRouteHandler]]:
    # Litestar has the paths of a handler as a set: sorted, tests have the same order and names in every process.
    for route in sorted(_APP.routes, key=lambda route: route.path):
        for handler in getattr(route, "route_handlers", ()):
            if isinstance(handler, HTTPRouteHandler) and "POST" in handler.http_methods:
                yield route.path, handler


def _body(annotation: Any) -> Any:
    """The type of a body, also of one that may be left out."""
    return get_args(annotation)[0] if NoneType in get_args(annotation) else annotation


def _streams(handler: HTTPRouteHandler) -> bool:
    answer, data = (
        handler.parsed_fn_signature.return_type.annotation,
        handler.parsed_fn_signature.parameters.get("data"),
    )
    fields = getattr(_body(data.annotation), "model_fields", {}) if data else {"stream": None}
    return "stream" in fields and any(get_origin(part) is UnionType for part in get_args(answer))


_BODIES: dict[str, Any] = {
    path.replace(":str}", "}"): _body(handler.parsed_fn_signature.parameters["data"].annotation)
    for path, handler in _handlers()
    if "data" in handler.parsed_fn_signature.parameters
}
LISTS = {path for path, body in _BODIES.items() if get_origin(body) is list}
BODIES = {path: body for path, body in _BODIES.items() if path not in LISTS}
STREAMS = {path for path, handler in _handlers() if _streams(handler)}
POSTS = tuple(path for path in BODIES if "{" not in path)
ROUTES = _all()
