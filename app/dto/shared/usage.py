"""What an answer cost, in tokens and milliseconds, as OpenAI, llama.cpp and Tiles say it."""

from typing import Annotated

from msgspec import UNSET, Meta, UnsetType

import app.services.generation as gen
from app import __version__
from app.dto.shared.base import Reply

FINGERPRINT = f"b1-tiles-{__version__}"


class PromptTokensDetails(Reply, kw_only=True):
    """What the prompt cost."""

    cached_tokens: Annotated[int, Meta(description="tokens that were computed for an earlier request")]


class Usage(Reply, kw_only=True):
    """Tokens in and out."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails

    @classmethod
    def of(cls, timings: gen.Timings) -> "Usage":
        """Count."""
        prompt = timings.prompt_tokens + timings.cached_tokens
        return cls(
            prompt_tokens=prompt,
            completion_tokens=timings.completion_tokens,
            total_tokens=prompt + timings.completion_tokens,
            prompt_tokens_details=PromptTokensDetails(cached_tokens=timings.cached_tokens),
        )


class TimingsReply(Reply, kw_only=True):
    """llama.cpp's timings. The first token belongs to the prompt: speeds count the others."""

    cache_n: int
    prompt_n: int
    prompt_ms: float
    prompt_per_token_ms: float
    prompt_per_second: float
    predicted_n: int
    predicted_ms: float
    predicted_per_token_ms: float
    predicted_per_second: float
    draft_n: Annotated[int | UnsetType, Meta(description="tokens that were guessed, where any were")] = UNSET
    draft_n_accepted: int | UnsetType = UNSET

    @classmethod
    def of(cls, timings: gen.Timings) -> "TimingsReply":
        """Spell the timings."""
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
            draft_n=timings.guessed_tokens or UNSET,
            draft_n_accepted=timings.right_tokens if timings.guessed_tokens else UNSET,
        )

    @classmethod
    def of_progress(cls, event: gen.Progress) -> "TimingsReply":
        """Spell how long the prompt takes so far."""
        computed = event.done - event.cached
        return cls.of(gen.Timings(event.cached, computed, event.elapsed_ms, 0, 0.0, event.elapsed_ms, event.elapsed_ms))


class Metrics(Reply, kw_only=True):
    """What the Tiles CLI shows."""

    ttft_ms: float
    total_tokens: int
    tokens_per_second: float
    total_latency_s: float

    @classmethod
    def of(cls, timings: gen.Timings) -> "Metrics":
        """Spell the timings."""
        return cls(
            ttft_ms=round(timings.first_token_ms, 3),
            total_tokens=timings.completion_tokens,
            tokens_per_second=round(_ratio(timings.completion_tokens * 1000, timings.total_ms), 3),
            total_latency_s=round(timings.total_ms / 1000, 6),
        )


class PromptProgress(Reply, kw_only=True):
    """How much of the prompt is computed."""

    total: int
    cache: int
    processed: int
    time_ms: int

    @classmethod
    def of(cls, event: gen.Progress) -> "PromptProgress":
        """Spell how far it is."""
        return cls(total=event.total, cache=event.cached, processed=event.done, time_ms=int(event.elapsed_ms))


def _ratio(amount: float, by: float) -> float:
    return amount / by if by > 0 else 0.0
