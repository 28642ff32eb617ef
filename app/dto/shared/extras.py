"""What this server adds to the answers of all APIs."""

import time
from dataclasses import asdict
from typing import Annotated, Literal

from msgspec import UNSET, Meta, UnsetType

import app.services.generation as gen
from app.dto.shared.base import Reply
from app.services.stages import RequestTiming


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


class TimingReply(Reply, kw_only=True):
    """Where a request's time went, in milliseconds. The parts add up to total_ms."""

    request_ms: Annotated[float, Meta(description="reading and checking the request, finding or loading the model")]
    template_ms: Annotated[
        float,
        Meta(description="chat template, tokenizer, images, compiling a grammar; waiting for these too"),
    ]
    queue_ms: Annotated[float, Meta(description="waiting for a slot and for memory")]
    cache_ms: Annotated[float, Meta(description="looking up the prompt in the prefix cache")]
    prompt_ms: Annotated[float, Meta(description="computing the rest of the prompt, in turns with other requests")]
    first_token_ms: Annotated[float, Meta(description="the first token, after the prompt")]
    tokens_ms: Annotated[float, Meta(description="the other tokens")]
    grammar_ms: Annotated[
        float, Meta(description="computing which tokens a grammar allows; left out of both times of tokens")
    ]
    client_ms: Annotated[float, Meta(description="after the last token, until what was ready was sent and taken")]
    total_ms: Annotated[float, Meta(description="from the arrival of the request until now, or its end")]

    @classmethod
    def of(cls, timing: RequestTiming) -> "TimingReply":
        """Translate it."""
        return cls(**asdict(timing))


class TilesExtras(Reply, kw_only=True):
    """What this server adds to an API's own fields."""

    finish: Annotated[gen.FinishCause, Meta(description="why the answer ended, more exactly than the API says it")]
    cache: Annotated[CacheReply, Meta(description="how much of the prompt was cached")]
    timing: Annotated[
        TimingReply | UnsetType, Meta(description="where the time went until now, with return_timing")
    ] = UNSET

    @classmethod
    def of(cls, finished: gen.Finished, *, timing: bool) -> "TilesExtras":
        """Take them from the end of an answer, with `timing` if that was asked for."""
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
        extras = cls(finish=finished.cause, cache=cache)
        if timing and finished.stages:
            extras.timing = TimingReply.of(finished.stages.timing(time.perf_counter()))
        return extras
