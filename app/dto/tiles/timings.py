"""Where the time of the last requests went, in a shape of our own."""

from collections.abc import Iterable
from typing import Annotated, Literal

from msgspec import Meta

from app.dto.shared.base import Reply
from app.dto.shared.extras import TimingReply
from app.services.recent_timings import TimedRequest


class TimedRequestReply(Reply, kw_only=True):
    """A request whose answer is over."""

    id: Annotated[str, Meta(description="id of the request, as its X-Request-Id has it")]
    end: Annotated[float, Meta(description="when its answer was over, in Unix seconds")]
    route: Annotated[str, Meta(description="path that it was sent to")]
    model: Annotated[str, Meta(description="id of the model")]
    finish: Annotated[str, Meta(description="why the answer ended")]
    prompt_tokens: Annotated[int, Meta(description="tokens of the prompt, cached ones too")]
    cached_tokens: Annotated[int, Meta(description="tokens of the prompt that came from the prefix cache")]
    completion_tokens: Annotated[int, Meta(description="tokens of the answer")]
    timing: Annotated[TimingReply, Meta(description="where its time went; of several answers, of the last to be ready")]

    @classmethod
    def of(cls, request: TimedRequest) -> "TimedRequestReply":
        """Translate one."""
        return cls(
            id=request.id,
            end=round(request.end, 3),
            route=request.route,
            model=request.model,
            finish=request.finish,
            prompt_tokens=request.prompt_tokens,
            cached_tokens=request.cached_tokens,
            completion_tokens=request.completion_tokens,
            timing=TimingReply.of(request.timing),
        )


class TimingsListReply(Reply, kw_only=True):
    """The last requests."""

    object: Literal["list"] = "list"
    data: Annotated[list[TimedRequestReply], Meta(description="the requests, the latest first")]

    @classmethod
    def of(cls, requests: Iterable[TimedRequest]) -> "TimingsListReply":
        """Translate them."""
        return cls(data=[TimedRequestReply.of(request) for request in requests])
