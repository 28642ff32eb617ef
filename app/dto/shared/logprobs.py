"""How likely tokens were, as OpenAI and llama.cpp spell it."""

import codecs
import math
from collections.abc import Iterable
from typing import Annotated, Any

from msgspec import UNSET, Meta, UnsetType

import app.services.generation as gen
from app.dto.shared.base import Reply


class TopLogprob(Reply, kw_only=True):
    """A token and how likely it was."""

    id: Annotated[int, Meta(description="token id")]
    token: Annotated[str, Meta(description="text of the token")]
    bytes: Annotated[list[int], Meta(description="bytes of the token, which may be part of a character")]
    logprob: Annotated[float, Meta(description="natural logarithm, before penalties and temperature")]


class ContentLogprob(TopLogprob, kw_only=True):
    """A token of the answer, and what was likely in its place."""

    top_logprobs: Annotated[
        list[TopLogprob], Meta(description="the most likely tokens at this position, the most likely first")
    ]

    @classmethod
    def of(cls, score: gen.TokenLogprob) -> "ContentLogprob":
        """Build it from a token's log-probability."""
        return cls(**_score(score), top_logprobs=[TopLogprob(**_score(top)) for top in score.top])


class NativeTop(Reply, kw_only=True):
    """A token and how likely it was: `prob` with post_sampling_probs, after all samplers, else `logprob`."""

    id: Annotated[int, Meta(description="token id")]
    token: Annotated[str, Meta(description="text of the token")]
    bytes: Annotated[list[int], Meta(description="bytes of the token, which may be part of a character")]
    logprob: Annotated[
        float | UnsetType, Meta(description="natural logarithm of its probability, before penalties and temperature")
    ] = UNSET
    prob: Annotated[
        float | UnsetType, Meta(description="its probability after all samplers, 0 to 1; with post_sampling_probs")
    ] = UNSET

    @classmethod
    def of_top(cls, score: gen.TokenLogprob, *, post_sampling: bool) -> "NativeTop":
        """Build it from the log-probability of an alternative."""
        return cls(**_native(score, post_sampling))


class NativeProbability(NativeTop, kw_only=True):
    """A token of the answer, and what was likely in its place."""

    top_logprobs: Annotated[
        list[NativeTop] | UnsetType, Meta(description="the most likely tokens at this position, the most likely first")
    ] = UNSET
    top_probs: Annotated[
        list[NativeTop] | UnsetType,
        Meta(description="the most likely tokens at this position, the most likely first; with post_sampling_probs"),
    ] = UNSET

    @classmethod
    def of(cls, score: gen.TokenLogprob, *, post_sampling: bool) -> "NativeProbability":
        """Build it from a token's log-probability."""
        tops = [NativeTop.of_top(top, post_sampling=post_sampling) for top in score.top]
        return cls(**_native(score, post_sampling) | {"top_probs" if post_sampling else "top_logprobs": tops})


class ChoiceLogprobs(Reply, kw_only=True):
    """How likely the tokens of the answer were."""

    content: Annotated[list[ContentLogprob], Meta(description="the tokens of the answer, in order")]

    @classmethod
    def of(cls, scores: Iterable[gen.TokenLogprob]) -> "ChoiceLogprobs":
        """Build it from the log-probabilities of a piece of an answer."""
        return cls(content=[ContentLogprob.of(score) for score in scores])


def _score(score: gen.TokenLogprob) -> dict[str, Any]:
    token, _ = codecs.utf_8_decode(
        score.data, "replace"
    )  # without a character that is not whole, as llama-server has it
    return {"id": score.token, "token": token, "bytes": list(score.data), "logprob": score.logprob}


def _native(score: gen.TokenLogprob, post_sampling: bool) -> dict[str, Any]:
    fields = _score(score)
    if post_sampling:
        fields["prob"] = round(math.exp(fields.pop("logprob")), 6)
    return fields
