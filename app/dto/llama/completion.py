"""llama.cpp's own completions, and its filling in of code."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType
from pydantic import Field

import app.services.generation as gen
from app.dto.llama.models import generation_params, lora_params
from app.dto.openai.prompt import Prompt, prompts
from app.dto.shared import parameters
from app.dto.shared.base import Dialect, Reply, RequestLimits
from app.dto.shared.logprobs import NativeProbability
from app.dto.shared.sampling_fields import SamplingFields
from app.dto.shared.usage import PromptProgress, TimingsReply


class NativeGenerating(SamplingFields):
    """What both of llama.cpp's ways to ask for text have."""

    response_fields: list[str] = Field(default_factory=list, max_length=256, examples=[["content"]])
    n_probs: int = Field(default=0, ge=0, le=100)
    return_tokens: bool = False
    post_sampling_probs: bool = False

    def continuing(self, prompt: tuple[str | int | gen.Image, ...]) -> gen.GenerationRequest:
        """Ask for the continuation of a prompt."""
        logprobs = self.n_probs if self.n_probs or self.return_tokens else None
        post_sampling = self.post_sampling_probs and self.n_probs > 0
        return replace(super().continuing(prompt), logprobs=logprobs, post_sampling=post_sampling)


class NativeRequest(NativeGenerating):
    """Prompts to continue."""

    registry = parameters.NATIVE

    prompt: Prompt = Field(examples=["Once upon a time"])

    def to_generations(self, limits: RequestLimits) -> list[gen.GenerationRequest]:
        """Translate to the engine's vocabulary, one request per prompt. Raises AppError for what is refused."""
        self.check(limits)
        return [self.continuing(parts) for parts in prompts(self.prompt, limits)]


class InfillRequest(NativeGenerating):
    """Code with a gap to fill."""

    registry = parameters.INFILL

    input_prefix: str = Field(examples=["def add(a, b):\n    return "])
    input_suffix: str = Field(examples=["\n"])
    prompt: str = ""

    def to_generations(self, limits: RequestLimits) -> list[gen.GenerationRequest]:
        """Translate to the engine's vocabulary. Raises AppError for what is refused."""
        self.check(limits)
        return [replace(self.continuing((self.input_prefix + self.prompt,)), suffix=self.input_suffix)]


class NativeCompletion(Reply, kw_only=True):
    """A prompt's continuation, as llama.cpp says it; in a stream the last event of a prompt."""

    index: Annotated[int, Meta(description="index of the answer, in the order of the prompts")]
    content: Annotated[str, Meta(description="text of the answer; empty in a stream, whose events had it")]
    tokens: Annotated[list[int], Meta(description="token ids of the answer, with return_tokens")] = msgspec.field(
        default_factory=list
    )
    id_slot: Annotated[int, Meta(description="always -1; llama-server's field")] = -1
    stop: Annotated[Literal[True], Meta(description="true: the answer has ended")] = True
    model: Annotated[str, Meta(description="id of the model")]
    tokens_predicted: Annotated[int, Meta(description="tokens of the answer")]
    tokens_evaluated: Annotated[int, Meta(description="tokens of the prompt, cached ones too")]
    generation_settings: Annotated[dict[str, Any], Meta(description="sampling that was used, in llama.cpp's names")]
    prompt: Annotated[str, Meta(description="the prompt as text")]
    has_new_line: Annotated[bool, Meta(description="whether there is a line break in the answer")]
    truncated: Annotated[bool, Meta(description="whether the context was full")]
    stop_type: Annotated[
        Literal["eos", "word", "limit"], Meta(description="why it ended: end token, stop string, or a limit")
    ]
    stopping_word: Annotated[str, Meta(description="the stop string that ended it, else empty")]
    tokens_cached: Annotated[int, Meta(description="tokens of prompt and answer that are in the cache now")]
    timings: Annotated[TimingsReply, Meta(description="how long it took")]
    completion_probabilities: Annotated[
        list[NativeProbability] | UnsetType, Meta(description="how likely the tokens were, with n_probs")
    ] = UNSET


class NativeChunk(Reply, kw_only=True):
    """A piece of a streamed answer. The last event of a prompt is the whole object, with `stop: true` and no text."""

    index: Annotated[int, Meta(description="index of the answer, in the order of the prompts")]
    content: Annotated[str, Meta(description="new text")]
    tokens: Annotated[list[int], Meta(description="token ids of the new text")] = msgspec.field(default_factory=list)
    stop: Annotated[bool, Meta(description="false: the answer goes on")] = False
    id_slot: Annotated[int, Meta(description="always -1; llama-server's field")] = -1
    tokens_predicted: Annotated[int, Meta(description="tokens of the answer so far")]
    tokens_evaluated: Annotated[int, Meta(description="tokens of the prompt, cached ones too")]
    timings: Annotated[
        TimingsReply | UnsetType, Meta(description="how long it took so far, with timings_per_token")
    ] = UNSET
    completion_probabilities: Annotated[
        list[NativeProbability] | UnsetType, Meta(description="how likely the new tokens were, with n_probs")
    ] = UNSET
    prompt_progress: Annotated[
        PromptProgress | UnsetType, Meta(description="how much of the prompt is computed, with return_progress")
    ] = UNSET


def native_answer(completions: Sequence[gen.Completion], request: NativeGenerating) -> Any:
    """Build the reply: an object for one answer, a list for several, each with the fields of `response_fields`."""
    replies = [_spell(index, completion, request, whole=True) for index, completion in enumerate(completions)]
    return replies if len(replies) > 1 else replies[0]


class NativeStream(Dialect):
    """Translates events to llama.cpp's; nothing follows the last answer."""

    end: ClassVar[bytes] = b""
    beside_error: ClassVar[dict[str, Any]] = {}

    def __init__(self, request: NativeGenerating, choices: int) -> None:
        self._request = request
        self._completions = [gen.Completion() for _ in range(choices)]

    def feed(self, event: gen.Event) -> Iterator[NativeChunk | NativeCompletion | dict[str, Any]]:
        """Give the replies for an event of the engine, in order."""
        completion = self._completions[event.choice]
        completion.add(event)
        match event:
            case gen.Progress():
                if self._request.return_progress:
                    chunk = self._chunk(event, "", 0)
                    chunk.prompt_progress = PromptProgress.of(event)
                    if self._request.timings_per_token:
                        chunk.timings = TimingsReply.of_progress(event)
                    yield chunk
            case gen.Text():
                yield self._piece(event, event.text)
            case gen.Finished():
                if event.logprobs:  # of tokens without text
                    yield self._piece(event, "")
                yield _spell(event.choice, completion, self._request, whole=False)

    def _piece(self, event: gen.Text | gen.Finished, text: str) -> NativeChunk:
        chunk = self._chunk(event, text, event.timings.completion_tokens)
        if self._request.timings_per_token:
            chunk.timings = TimingsReply.of(event.timings)
        chunk.tokens = _tokens(event.logprobs, self._request)
        if isinstance(event, gen.Text) and not self._request.return_tokens:
            chunk.tokens = list(event.tokens)
        chunk.completion_probabilities = _probabilities(event.logprobs, self._request)
        return chunk

    def _chunk(self, event: gen.Event, text: str, predicted: int) -> NativeChunk:
        started = self._completions[event.choice].started
        assert started is not None
        return NativeChunk(
            index=event.choice, content=text, tokens_predicted=predicted, tokens_evaluated=started.prompt_tokens
        )


def _spell(
    index: int, completion: gen.Completion, request: NativeGenerating, *, whole: bool
) -> NativeCompletion | dict[str, Any]:
    assert completion.started is not None and completion.finished is not None
    started, finished = completion.started, completion.finished
    predicted = finished.timings.completion_tokens
    answer = NativeCompletion(
        index=index,
        content=completion.text if whole else "",
        tokens=_tokens(completion.logprobs, request) if whole else [],
        model=completion.model,
        tokens_predicted=predicted,
        tokens_evaluated=started.prompt_tokens,
        generation_settings=_settings(request, started.defaults),
        prompt=started.prompt,
        has_new_line="\n" in completion.text,
        truncated=finished.cause == "context",
        stop_type="limit" if finished.reason == "length" else "word" if finished.stop else "eos",
        stopping_word=finished.stop or "",
        tokens_cached=started.prompt_tokens + max(0, predicted - 1),
        timings=TimingsReply.of(finished.timings),
        completion_probabilities=_probabilities(completion.logprobs, request) if whole else UNSET,
    )
    return _select(msgspec.to_builtins(answer), request.response_fields) if request.response_fields else answer


def _tokens(scores: Sequence[gen.TokenLogprob], request: NativeGenerating) -> list[int]:
    return [score.token for score in scores] if request.return_tokens else []


def _probabilities(
    scores: Sequence[gen.TokenLogprob], request: NativeGenerating
) -> list[NativeProbability] | UnsetType:
    if not request.n_probs:
        return UNSET
    return [NativeProbability.of(score, post_sampling=request.post_sampling_probs) for score in scores]


def _select(whole: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Take the named fields, `a/b` out of an object; what does not exist is left out."""
    selected: dict[str, Any] = {}
    for name in names:
        value: Any = whole
        for step in name.split("/"):
            if not isinstance(value, dict) or step not in value:
                break
            value = value[step]
        else:
            selected[name] = value
    return selected


def _settings(request: NativeGenerating, defaults: gen.Sampling) -> dict[str, Any]:
    sampling = request.sampling().over(defaults)
    limit = request.token_limit()
    return generation_params(sampling, request.delivery) | {
        "max_tokens": -1 if limit is None else limit,
        "n_predict": -1 if limit is None else limit,
        "lora": lora_params(request.adapters() or {}),
        "ignore_eos": request.ignore_eos,
        "n_probs": request.n_probs,
        "post_sampling_probs": request.post_sampling_probs,
        "stop": list(request.stop_strings),
        "logit_bias": [{"token": token, "bias": bias} for token, bias in sampling.logit_bias.items()],
        "dry_sequence_breakers": list(sampling.dry_breakers),
        "grammar": request.grammar if isinstance(request.grammar, str) else request.grammar.grammar,
        "grammar_lazy": False,
        "grammar_triggers": [],
        "preserved_tokens": [],
    }
