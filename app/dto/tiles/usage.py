"""What was used, in a shape of our own."""

from collections.abc import Iterable, Sequence
from datetime import date
from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, UnsetType

from app.dto.shared.base import Reply
from app.services.usage_file import Usage


class UsageNumbers(Reply, kw_only=True):
    """Sums over requests."""

    requests: Annotated[int, Meta(description="requests for answers or vectors, refused ones too")]
    refusals: Annotated[int, Meta(description="requests among these that were refused or failed")]
    prompt_tokens: Annotated[int, Meta(description="tokens of prompts, cached ones too")]
    cached_tokens: Annotated[int, Meta(description="tokens of prompts that came from the prefix cache")]
    completion_tokens: Annotated[int, Meta(description="tokens of answers, also of those that were broken off")]
    seconds: Annotated[float, Meta(description="seconds from each request to the end of its answer, summed")]

    @classmethod
    def of(cls, usage: Usage) -> "UsageNumbers":
        """Translate sums."""
        return cls(**_numbers(usage))


class UsageRow(UsageNumbers, kw_only=True):
    """Sums for a value of each group."""

    day: Annotated[str | UnsetType, Meta(description="day of this machine, as 2026-11-29; grouped by day")] = UNSET
    model: Annotated[str | UnsetType, Meta(description="id of the model, empty where none was reached")] = UNSET
    client: Annotated[
        str | UnsetType, Meta(description="product of the User-Agent; browser for all browsers, others beyond 64 a day")
    ] = UNSET
    key: Annotated[str | UnsetType, Meta(description="name of the API key, empty for one without a name")] = UNSET


class UsageReply(Reply, kw_only=True):
    """What was used."""

    object: Literal["usage"] = "usage"
    start: Annotated[str, Meta(description="first day")]
    end: Annotated[str, Meta(description="last day")]
    group_by: Annotated[list[str], Meta(description="what the rows are grouped by, in the order of their sorting")]
    data: Annotated[list[UsageRow], Meta(description="a row for each combination of values that there is")]
    total: Annotated[UsageNumbers, Meta(description="sums of all rows")]

    @classmethod
    def of(
        cls, start: date, end: date, groups: Sequence[str], sums: Iterable[tuple[tuple[str, ...], Usage]]
    ) -> "UsageReply":
        """Translate sums, which are grouped by `groups`."""
        total, rows = Usage(), []
        for values, usage in sums:
            total.add(usage)
            names: dict[str, Any] = dict(zip(groups, values, strict=True))
            rows.append(UsageRow(**names, **_numbers(usage)))
        return cls(
            start=start.isoformat(),
            end=end.isoformat(),
            group_by=list(groups),
            data=rows,
            total=UsageNumbers.of(total),
        )


def _numbers(usage: Usage) -> dict[str, Any]:
    return {
        "requests": usage.requests,
        "refusals": usage.refusals,
        "prompt_tokens": usage.prompt_tokens,
        "cached_tokens": usage.cached_tokens,
        "completion_tokens": usage.completion_tokens,
        "seconds": round(usage.seconds, 3),
    }
