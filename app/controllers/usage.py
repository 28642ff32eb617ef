"""What was used in the last days."""

from collections.abc import Iterator
from datetime import date, timedelta
from typing import Annotated

from litestar import Controller, get
from litestar.di import NamedDependency
from litestar.params import QueryParameter

from app.controllers.openapi import operation
from app.controllers.refusals import query_refusals
from app.dto.tiles.usage import UsageReply
from app.services.errors import FeatureDisabled, InvalidRequest
from app.services.usage_file import GROUPS
from app.services.usage_ledger import UsageLedger

_NUMBERS = {
    "requests": 42,
    "refusals": 1,
    "prompt_tokens": 73210,
    "cached_tokens": 61002,
    "completion_tokens": 8123,
    "seconds": 181.204,
}
_EXAMPLE = {
    "object": "usage",
    "start": "2026-11-01",
    "end": "2026-11-29",
    "group_by": ["day", "client"],
    "data": [{"day": "2026-11-29", "client": "claude-cli", **_NUMBERS}],
    "total": _NUMBERS,
}
_NO_GROUP = InvalidRequest("group_by: 'week' is none of day, model, client, key", param="group_by")
_OFF = FeatureDisabled("This server counts nothing: it was started with --usage off")


class UsageController(Controller):
    """Numbers that stay."""

    tags = ["Operations"]
    opt = {"dialect": "Health"}

    @get(
        "/v1/usage",
        summary="Read what was used",
        operation_class=operation(_EXAMPLE),
        responses=query_refusals(_NO_GROUP, _OFF),
    )
    async def read_usage(
        self,
        usage_ledger: NamedDependency[UsageLedger],
        start: Annotated[
            date | None, QueryParameter(description="first day; by default 29 days before the last")
        ] = None,
        end: Annotated[date | None, QueryParameter(description="last day; today by default")] = None,
        group_by: Annotated[
            str, QueryParameter(description="what to sum by: day, model, client, key, with commas; empty for one sum")
        ] = "day",
    ) -> UsageReply:
        """Give requests, tokens and seconds of the last 90 days, summed by day, model, client or name of the key.

        Nothing is kept of what was asked or answered. Days are those of this machine.
        """
        last = end or date.today()
        first = start or last - timedelta(days=min(29, last.toordinal() - 1))
        groups = [name for name in GROUPS if name in set(_groups(group_by))]
        return UsageReply.of(first, last, groups, await usage_ledger.read(first, last, groups))


def _groups(text: str) -> Iterator[str]:
    for name in filter(None, map(str.strip, text.split(","))):
        if name not in GROUPS:
            raise InvalidRequest(f"group_by: '{name[:40]}' is none of {', '.join(GROUPS)}", param="group_by")
        yield name
