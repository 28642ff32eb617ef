"""Requests that may not load their model: those with ?autoload=false."""

from collections.abc import Awaitable, Callable
from typing import Any

from litestar import Request

from app.services.model_service import ModelService


def heeding(models: ModelService) -> Callable[[Request[Any, Any, Any]], Awaitable[None]]:
    """Make what looks at every request before its handler."""

    async def heed(request: Any) -> None:
        """Raise InvalidRequest for a request whose model would have to be loaded although it says not to."""
        if models.router is None or request.method != "POST" or request.query_params.get("autoload") != "false":
            return
        body = await request.plain()
        named = body.get("model") if isinstance(body, dict) else None
        if named is None or isinstance(named, str):  # any other is for the handler to refuse
            models.find(named)

    return heed
