"""Requests that may not load their model: those with ?autoload=false."""

from collections.abc import Awaitable, Callable
from typing import Any

from litestar import Request

from app.services.models import Models


def refuse_autoload(models: Models) -> Callable[[Request[Any, Any, Any]], Awaitable[None]]:
    """Make what looks at every request before its handler."""

    async def refuse(request: Any) -> None:
        """Raise InvalidRequest for a request whose model would have to be loaded although it says not to."""
        if request.method != "POST" or request.query_params.get("autoload") != "false":
            return
        body = await request.plain()
        name = body.get("model") if isinstance(body, dict) else None
        if name is None or isinstance(name, str):  # any other is for the handler to refuse
            models.refuse_autoload(name)

    return refuse
