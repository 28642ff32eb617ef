"""Where the time of the last requests went."""

from typing import Annotated

from litestar import Controller, get
from litestar.di import NamedDependency
from litestar.params import PathParameter, QueryParameter

from app.controllers.openapi import operation
from app.controllers.refusals import query_refusals, refusals
from app.dto.tiles.timings import TimedRequestReply, TimingsListReply
from app.services.errors import NotFound
from app.services.recent_timings import MOST, RecentTimings

_EXAMPLE = {
    "id": "req_0c5f1d2e3b4a5968",
    "end": 1796000000.125,
    "route": "/v1/chat/completions",
    "model": "tiles-nano",
    "finish": "stop",
    "prompt_tokens": 420,
    "cached_tokens": 300,
    "completion_tokens": 64,
    "timing": {
        "request_ms": 1.25,
        "template_ms": 2.5,
        "queue_ms": 0.5,
        "cache_ms": 0.25,
        "prompt_ms": 40.0,
        "first_token_ms": 5.5,
        "tokens_ms": 250.0,
        "grammar_ms": 0.0,
        "client_ms": 0.5,
        "total_ms": 300.5,
    },
}
_UNKNOWN = NotFound(f"Of the last {MOST} answers none has the request id 'req_0'")


class TimingsController(Controller):
    """Where the time went."""

    tags = ["Operations"]
    opt = {"dialect": "Health"}

    @get(
        "/v1/timings",
        summary="Read where the time of the last requests went",
        operation_class=operation({"object": "list", "data": [_EXAMPLE]}),
        responses=query_refusals(),
    )
    async def list_timings(
        self,
        recent_timings: NamedDependency[RecentTimings],
        limit: Annotated[int, QueryParameter(ge=1, le=MOST, description="most requests to list")] = 20,
    ) -> TimingsListReply:
        """Give where the time of the last answers went, part by part; the parts add up to the whole.

        It is kept in memory for the last 256 answers, with nothing of prompts or answers. `return_timing` has it in
        the answer itself.
        """
        return TimingsListReply.of(recent_timings.latest(limit))

    @get(
        "/v1/timings/{request_id:str}",
        summary="Read where a request's time went",
        operation_class=operation(_EXAMPLE),
        responses=refusals(_UNKNOWN),
    )
    async def read_timing(
        self,
        recent_timings: NamedDependency[RecentTimings],
        request_id: Annotated[str, PathParameter(description="id of the request, from its X-Request-Id")],
    ) -> TimedRequestReply:
        """Give where a request's time went, part by part."""
        return TimedRequestReply.of(recent_timings.find(request_id))
