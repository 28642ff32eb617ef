"""What this server adds to the answers of all APIs."""

from typing import Annotated, Literal

from msgspec import Meta

import app.services.generation as gen
from app.dto.shared.base import Reply


class ChangeReply(Reply, kw_only=True):
    """Where a prompt departs from the nearest one that the same client sent before."""

    token: Annotated[int, Meta(description="index of the first token that differs")]
    role_before: Annotated[str, Meta(description="whose words stood there: a role, or tools", examples=["user"])]
    before: Annotated[str, Meta(description="how those began that stood there")]
    role: Annotated[str, Meta(description="whose words stand there now: a role, or tools", examples=["user"])]
    now: Annotated[str, Meta(description="how those begin that stand there now")]


class CacheReply(Reply, kw_only=True):
    """How much of the prompt came from the prefix cache, and why not more."""

    cached_tokens: Annotated[int, Meta(description="tokens of the prompt that came from the prefix cache")]
    reason: Annotated[
        Literal["whole", "first_diff", "evicted", "not_stored", "other_model"],
        Meta(description="why not more were cached; whole where all that can be was"),
    ]
    first_diff: Annotated[
        int | None,
        Meta(
            description="index of the first token that differs from the nearest cached prompt, null where there is none"
        ),
    ]
    changed: Annotated[
        ChangeReply | None,
        Meta(
            description="where the prompt departs from the nearest one that the same client sent before, with its "
            "answer, and what stood there; null where it goes on with one, or is the first"
        ),
    ]


class TilesExtras(Reply, kw_only=True):
    """What this server adds to an API's own fields."""

    finish: Annotated[gen.FinishCause, Meta(description="why the answer ended, more exactly than the API says it")]
    cache: Annotated[CacheReply, Meta(description="how much of the prompt was cached")]

    @classmethod
    def of(cls, finished: gen.Finished) -> "TilesExtras":
        """Take them from the end of an answer."""
        use, change = finished.cache, finished.cache.change
        changed = None
        if change is not None:
            changed = ChangeReply(
                token=change.token,
                role_before=change.role_before,
                before=change.before,
                role=change.role,
                now=change.now,
            )
        cache = CacheReply(
            cached_tokens=use.cached_tokens, reason=use.reason, first_diff=use.first_diff, changed=changed
        )
        return cls(finish=finished.cause, cache=cache)
