"""OpenAI's text completions, with llama.cpp's extras."""

import codecs
import secrets
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal

from msgspec import UNSET, Meta, UnsetType
from pydantic import Field

import app.services.generation as gen
from app.dto.openai.prompt import Prompt, prompts
from app.dto.shared import parameters
from app.dto.shared.base import Dialect, Reply, RequestLimits
from app.dto.shared.logprobs import ContentLogprob
from app.dto.shared.sampling_fields import SamplingFields, StreamOptions
from app.dto.shared.usage import FINGERPRINT, PromptProgress, TimingsReply, Usage


class CompletionRequest(SamplingFields):
    """Prompts to continue."""

    registry = parameters.COMPLETION

    prompt: Prompt = Field(examples=["Once upon a time"])
    suffix: str | None = None
    echo: bool = False
    stream_options: StreamOptions | None = None
    n: int = Field(default=1, ge=1, le=128)
    logprobs: int | None = Field(default=None, ge=0, le=20)
    # What OpenAI checks although this server refuses it.
    best_of: int = Field(default=1, ge=1, le=128)

    @property
    def include_usage(self) -> bool:
        """Whether a stream ends with a chunk of usage alone."""
        return self.stream_options is not None and self.stream_options.include_usage

    def to_generations(self, limits: RequestLimits) -> list[gen.GenerationRequest]:
        """Translate to the engine's vocabulary, one request per prompt. Raises AppError for what is refused."""
        self.check(limits)
        changes: dict[str, Any] = {"suffix": self.suffix or None, "answers": self.n, "logprobs": self.logprobs}
        if self.scores_prompt:
            changes["prompt_logprobs"] = self.logprobs
        return [replace(self.continuing(parts), **changes) for parts in prompts(self.prompt, limits, answers=self.n)]

    @property
    def scores_prompt(self) -> bool:
        """Whether the answer says how likely the tokens of the prompt were."""
        return self.echo and self.logprobs is not None


class CompletionLogprobs(Reply, kw_only=True):
    """How likely the tokens were: OpenAI's lists, and llama.cpp's `content`."""

    tokens: Annotated[list[str], Meta(description="texts of the tokens")]
    token_logprobs: Annotated[
        list[float | None], Meta(description="natural logarithm of each token's probability; null for the first echoed")
    ]
    top_logprobs: Annotated[
        list[dict[str, float] | None] | None,
        Meta(description="the most likely tokens at each position; null unless logprobs is above 0"),
    ]
    text_offset: Annotated[list[int], Meta(description="where in the text each token begins, in characters")]
    content: Annotated[
        list[ContentLogprob], Meta(description="the same in llama.cpp's form, without the first token of an echo")
    ]

    @classmethod
    def of(cls, scores: Sequence[gen.TokenLogprob], offsets: "TextOffsets") -> "CompletionLogprobs":
        """Build it from the log-probabilities of the next tokens of an answer."""
        content = [ContentLogprob.of(score) for score in scores]
        return cls(
            tokens=[token.token for token in content],
            token_logprobs=[token.logprob for token in content],
            top_logprobs=[_by_text(token) for token in content]
            if any(token.top_logprobs for token in content)
            else None,
            text_offset=[offsets.pass_over(score.data) for score in scores],
            content=content,
        )

    @classmethod
    def of_prompt(
        cls, prompt: gen.PromptLogprobs, text: str, offsets: "TextOffsets", width: int | None
    ) -> "CompletionLogprobs":
        """Build it from an echoed prompt, whose first token has no probability; `width` alternatives are named.

        The text may lack the token that begins each prompt, and the space before the first word.
        """
        if text.startswith(prompt.first.decode(errors="replace")):
            offsets.pass_over(prompt.first)
        elif not text.startswith(" ") and prompt.first.startswith(b" "):
            offsets.pass_over(prompt.first[1:])
        rest = cls.of(prompt.logprobs, offsets)
        return cls(
            tokens=[prompt.first.decode(errors="replace"), *rest.tokens],
            token_logprobs=[None, *rest.token_logprobs],
            top_logprobs=[None, *(rest.top_logprobs or [])] if width else None,
            text_offset=[0, *rest.text_offset],
            content=rest.content,
        )


def _by_text(token: ContentLogprob) -> dict[str, float]:
    """Give the alternatives by their text; halves of characters may have the same, of which the likeliest counts."""
    by_text: dict[str, float] = {}
    for top in token.top_logprobs:
        by_text.setdefault(top.token, top.logprob)
    return by_text


class TextOffsets:
    """Where in the text of an answer its tokens begin, in characters."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._position = 0

    def pass_over(self, token: bytes) -> int:
        """Give where the next token begins."""
        begin = self._position
        self._position += len(self._decoder.decode(token))
        return begin


class CompletionChoice(Reply, kw_only=True):
    """A prompt's continuation, or what is new of it, and why it ended if it did."""

    text: Annotated[str, Meta(description="the answer, or in a stream what is new of it")]
    index: Annotated[int, Meta(description="index of the answer, in the order of the prompts")]
    logprobs: Annotated[CompletionLogprobs | None, Meta(description="how likely its tokens were, with logprobs")] = None
    finish_reason: Annotated[
        Literal["stop", "length"] | None,
        Meta(description="why it ended: by itself or at a stop string, or at a limit; null before its end"),
    ]


class TextCompletion(Reply, kw_only=True):
    """All the answers to all the prompts, n to each, in the order of the prompts."""

    id: Annotated[str, Meta(description="id of the answer", examples=["cmpl-0c5f"])]
    object: Literal["text_completion"] = "text_completion"
    created: Annotated[int, Meta(description="when it was made, in Unix seconds")]
    model: Annotated[str, Meta(description="id of the model")]
    system_fingerprint: Annotated[str, Meta(description="version of the server")] = FINGERPRINT
    choices: Annotated[
        list[CompletionChoice], Meta(description="the answers, n to each prompt, in the order of the prompts")
    ]
    usage: Annotated[Usage | UnsetType, Meta(description="tokens of prompts and answers")] = UNSET
    timings: Annotated[TimingsReply | UnsetType, Meta(description="how long it took, as llama.cpp says it")] = UNSET
    prompt_progress: Annotated[
        PromptProgress | UnsetType, Meta(description="how much of the prompt is computed, with return_progress")
    ] = UNSET

    @classmethod
    def of(cls, answers: Sequence[gen.Completion], request: CompletionRequest) -> "TextCompletion":
        """Build it from finished answers, in the order of their prompts."""
        timings = gen.Timings.together([answer.finished.timings for answer in answers if answer.finished], request.n)
        return cls(
            id=new_id(),
            created=int(time.time()),
            model=answers[0].model,
            choices=[_choice(index, answer, request) for index, answer in enumerate(answers)],
            usage=Usage.of(timings),
            timings=TimingsReply.of(timings),
        )


class TextCompletionChunk(TextCompletion, kw_only=True):
    """A piece of a streamed answer; the last one has the usage."""


def _choice(index: int, answer: gen.Completion, request: CompletionRequest) -> CompletionChoice:
    assert answer.started is not None and answer.finished is not None
    text = answer.started.prompt + answer.text if request.echo else answer.text
    logprobs, offsets = None, TextOffsets()
    if answer.prompt_logprobs is not None:
        whole = replace(answer.prompt_logprobs, logprobs=(*answer.prompt_logprobs.logprobs, *answer.logprobs))
        logprobs = CompletionLogprobs.of_prompt(whole, text, offsets, request.logprobs)
    elif request.logprobs is not None:
        logprobs = CompletionLogprobs.of(answer.logprobs, offsets)
    return CompletionChoice(text=text, index=index, logprobs=logprobs, finish_reason=_reason(answer.finished))


def _reason(finished: gen.Finished) -> Literal["stop", "length"]:
    return "length" if finished.reason == "length" else "stop"


class CompletionStream(Dialect):
    """Translates events to chunks."""

    end: ClassVar[bytes] = b"data: [DONE]\n\n"

    def __init__(self, request: CompletionRequest, choices: int) -> None:
        self._id = new_id()
        self._created = int(time.time())
        self._model = ""
        self._request = request
        self._timings: list[gen.Timings | None] = [None] * choices
        # By the tokens: a text may be held back for a stop string that begins in it, and its tokens are not.
        self._offsets = [TextOffsets() for _ in range(choices)]
        self._prompts: dict[int, str] = {}  # echoed ones, until their log-probabilities come

    def feed(self, event: gen.Event) -> Iterator[TextCompletionChunk]:
        """Give the chunks for an event of the engine, in order."""
        match event:
            case gen.Started():
                self._model = event.model
                if self._request.scores_prompt:
                    self._prompts[event.choice] = event.prompt
                elif self._request.echo:
                    yield self._chunk(event, event.prompt)
            case gen.PromptLogprobs():
                text = self._prompts.pop(event.choice, "")
                chunk = self._chunk(event, text)
                offsets, width = self._offsets[event.choice], self._request.logprobs
                chunk.choices[0].logprobs = CompletionLogprobs.of_prompt(event, text, offsets, width)
                yield chunk
            case gen.Progress():
                if self._request.return_progress:
                    chunk = self._chunk(event, "")
                    chunk.prompt_progress = PromptProgress.of(event)
                    if self._request.timings_per_token:
                        chunk.timings = TimingsReply.of_progress(event)
                    yield chunk
            case gen.Text():
                chunk = self._chunk(event, event.text)
                if self._request.timings_per_token:
                    chunk.timings = TimingsReply.of(event.timings)
                if event.logprobs:
                    chunk.choices[0].logprobs = CompletionLogprobs.of(event.logprobs, self._offsets[event.choice])
                yield chunk
            case gen.Finished():
                yield from self._finish(event)

    def _finish(self, event: gen.Finished) -> Iterator[TextCompletionChunk]:
        self._timings[event.choice] = event.timings
        chunk = self._chunk(event, "", _reason(event))
        if event.logprobs:
            chunk.choices[0].logprobs = CompletionLogprobs.of(event.logprobs, self._offsets[event.choice])
        finished = [timings for timings in self._timings if timings is not None]
        if len(finished) < len(self._timings):
            yield chunk
            return
        timings = gen.Timings.together(finished, self._request.n)
        chunk.timings = TimingsReply.of(timings)
        if self._request.include_usage:
            yield chunk
            chunk = self._new([])
            chunk.timings = TimingsReply.of(timings)
        chunk.usage = Usage.of(timings)
        yield chunk

    def _chunk(
        self, event: gen.Event, text: str, reason: Literal["stop", "length"] | None = None
    ) -> TextCompletionChunk:
        return self._new([CompletionChoice(text=text, index=event.choice, finish_reason=reason)])

    def _new(self, choices: list[CompletionChoice]) -> TextCompletionChunk:
        return TextCompletionChunk(id=self._id, created=self._created, model=self._model, choices=choices)


def new_id() -> str:
    """Make the id of an answer."""
    return f"cmpl-{secrets.token_hex(16)}"
