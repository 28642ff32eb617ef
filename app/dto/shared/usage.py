"""Usage and timings, as OpenAI, llama.cpp and the Tiles CLI spell them."""

from typing import Annotated

from msgspec import UNSET, Meta, UnsetType

import app.services.generation as gen
from app import __version__
from app.dto.shared.base import Reply

FINGERPRINT = f"b1-tiles-{__version__}"


class PromptTokensDetails(Reply, kw_only=True):
    """What the prompt cost."""

    cached_tokens: Annotated[int, Meta(description="tokens of the prompt that came from the prefix cache")]


class Usage(Reply, kw_only=True):
    """Tokens in and out."""

    prompt_tokens: Annotated[int, Meta(description="tokens of the prompt, cached ones too")]
    completion_tokens: Annotated[int, Meta(description="tokens of the answer, reasoning too")]
    total_tokens: Annotated[int, Meta(description="prompt_tokens and completion_tokens together")]
    prompt_tokens_details: Annotated[
        PromptTokensDetails, Meta(description="how many of the prompt's tokens were cached")
    ]

    @classmethod
    def of(cls, timings: gen.Timings) -> "Usage":
        """Build it from the engine's timings."""
        prompt = timings.prompt_tokens + timings.cached_tokens
        return cls(
            prompt_tokens=prompt,
            completion_tokens=timings.completion_tokens,
            total_tokens=prompt + timings.completion_tokens,
            prompt_tokens_details=PromptTokensDetails(cached_tokens=timings.cached_tokens),
        )


class TimingsReply(Reply, kw_only=True):
    """llama.cpp's timings. The first token belongs to the prompt: speeds count the others."""

    cache_n: Annotated[int, Meta(description="tokens of the prompt that came from the prefix cache")]
    prompt_n: Annotated[int, Meta(description="tokens of the prompt that were computed")]
    prompt_ms: Annotated[float, Meta(description="time to compute the prompt and the first token, in milliseconds")]
    prompt_per_token_ms: Annotated[float, Meta(description="milliseconds for each computed token of the prompt")]
    prompt_per_second: Annotated[float, Meta(description="computed tokens of the prompt per second")]
    predicted_n: Annotated[int, Meta(description="tokens of the answer")]
    predicted_ms: Annotated[float, Meta(description="time from the first token to the last, in milliseconds")]
    predicted_per_token_ms: Annotated[float, Meta(description="milliseconds for each token after the first")]
    predicted_per_second: Annotated[float, Meta(description="tokens per second, after the first")]
    draft_n: Annotated[
        int | UnsetType, Meta(description="tokens that speculative decoding proposed; absent where it proposed none")
    ] = UNSET
    draft_n_accepted: Annotated[
        int | UnsetType, Meta(description="proposed tokens that were accepted; absent where none were proposed")
    ] = UNSET

    @classmethod
    def of(cls, timings: gen.Timings) -> "TimingsReply":
        """Build it from the engine's timings."""
        following = max(0, timings.completion_tokens - 1)
        prompt_ms, predicted_ms = round(timings.prompt_ms, 3), round(timings.completion_ms, 3)
        return cls(
            cache_n=timings.cached_tokens,
            prompt_n=timings.prompt_tokens,
            prompt_ms=prompt_ms,
            prompt_per_token_ms=_ratio(prompt_ms, timings.prompt_tokens),
            prompt_per_second=_ratio(timings.prompt_tokens * 1000, prompt_ms),
            predicted_n=timings.completion_tokens,
            predicted_ms=predicted_ms,
            predicted_per_token_ms=_ratio(predicted_ms, following),
            predicted_per_second=_ratio(following * 1000, predicted_ms),
            draft_n=timings.draft_tokens or UNSET,
            draft_n_accepted=timings.accepted_tokens if timings.draft_tokens else UNSET,
        )

    @classmethod
    def of_progress(cls, event: gen.Progress) -> "TimingsReply":
        """Build it from the progress of a prompt."""
        computed = event.done - event.cached
        return cls.of(gen.Timings(event.cached, computed, event.elapsed_ms, 0, 0.0, event.elapsed_ms, event.elapsed_ms))


class TilesMetrics(Reply, kw_only=True):
    """What the Tiles CLI shows."""

    ttft_ms: Annotated[
        float, Meta(description="time to the first token since the request was accepted, in milliseconds")
    ]
    total_tokens: Annotated[int, Meta(description="tokens of the answer")]
    tokens_per_second: Annotated[float, Meta(description="tokens of the answer per second of the whole time")]
    total_latency_s: Annotated[
        float, Meta(description="time from the acceptance of the request to its last token, in seconds")
    ]

    @classmethod
    def of(cls, timings: gen.Timings) -> "TilesMetrics":
        """Build it from the engine's timings."""
        return cls(
            ttft_ms=round(timings.first_token_ms, 3),
            total_tokens=timings.completion_tokens,
            tokens_per_second=round(_ratio(timings.completion_tokens * 1000, timings.total_ms), 3),
            total_latency_s=round(timings.total_ms / 1000, 6),
        )


class PromptProgress(Reply, kw_only=True):
    """How much of the prompt is computed."""

    total: Annotated[int, Meta(description="tokens of the prompt")]
    cache: Annotated[int, Meta(description="tokens of it that came from the prefix cache")]
    processed: Annotated[int, Meta(description="tokens of it that are done, cached ones too")]
    time_ms: Annotated[int, Meta(description="time since the prompt was begun, in milliseconds")]

    @classmethod
    def of(cls, event: gen.Progress) -> "PromptProgress":
        """Build it from the progress of a prompt."""
        return cls(total=event.total, cache=event.cached, processed=event.done, time_ms=int(event.elapsed_ms))


def _ratio(amount: float, by: float) -> float:
    return amount / by if by > 0 else 0.0
