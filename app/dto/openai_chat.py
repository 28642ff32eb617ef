"""OpenAI's chat completions, with llama.cpp's and Tiles' extras."""

import secrets
import time
from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal

from msgspec import UNSET, Meta, UnsetType
from pydantic import Field, field_validator, model_validator

import app.services.generation as gen
from app import __version__
from app.dto import parameters
from app.dto.base import Body, Dialect, Limits, Reply
from app.services.errors import InvalidRequest, UnsupportedParameter

FINGERPRINT = f"b1-tiles-{__version__}"
_MEDIA = {"image_url": "images", "input_audio": "audio", "input_video": "video", "file": "files"}


class ContentPart(Body):
    """A part of a message; this server takes text."""

    type: str = Field(examples=["text"])
    text: str | None = None
    refusal: str | None = None


class FunctionCall(Body):
    """What to call, and with what."""

    name: str
    arguments: str = Field(default="{}", description="JSON text")


class AssistantToolCall(Body):
    """A call that the model made earlier."""

    id: str = ""
    type: Literal["function"] = "function"
    function: FunctionCall


class ChatMessage(Body):
    """One message of the conversation."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[ContentPart] | None = Field(default=None, examples=["Hello!"])
    reasoning_content: str | None = Field(default=None, description="the assistant's thoughts, given back")
    tool_calls: list[AssistantToolCall] = Field(default_factory=list)
    tool_call_id: str | None = Field(default=None, description="of a tool message: the call it answers")
    name: str | None = None

    @model_validator(mode="after")
    def _complete(self) -> "ChatMessage":
        if self.role == "tool" and not self.tool_call_id:
            raise ValueError("a tool message needs 'tool_call_id'")
        if self.content is None and self.role != "assistant":
            raise ValueError(f"a {self.role} message needs 'content'")
        if self.content is None and not self.tool_calls and self.reasoning_content is None:
            raise ValueError("an assistant message needs 'content' or 'tool_calls'")
        return self

    def to_message(self, place: int) -> gen.Message:
        """Say it in the common vocabulary. Raises InvalidRequest for parts that are no text."""
        return gen.Message(
            role="system" if self.role == "developer" else self.role,
            content=self._text(place),
            reasoning=self.reasoning_content,
            tool_calls=tuple(
                gen.ToolCall(number, call.id, call.function.name, call.function.arguments)
                for number, call in enumerate(self.tool_calls)
            ),
            tool_call_id=self.tool_call_id,
            name=self.name,
        )

    def _text(self, place: int) -> str:
        if self.content is None or isinstance(self.content, str):
            return self.content or ""
        return "\n".join(_part_text(part, f"messages.{place}.content.{i}") for i, part in enumerate(self.content))


def _part_text(part: ContentPart, where: str) -> str:
    if part.type in _MEDIA:
        raise InvalidRequest(f"This model reads text only, it cannot take {_MEDIA[part.type]}", param=where)
    text = part.refusal if part.type == "refusal" else part.text
    if part.type not in {"text", "refusal"}:
        raise InvalidRequest(f"'{part.type[:64]}' is no content part that this server knows", param=where)
    if text is None:
        raise InvalidRequest(f"a part of type '{part.type}' needs '{part.type}'", param=where)
    return text


class FunctionDefinition(Body):
    """A function that the model may call."""

    name: str = Field(min_length=1, max_length=256)
    description: str = ""
    parameters: dict[str, Any] = Field(default_factory=dict, description="JSON schema of the arguments")
    strict: bool = False


class Tool(Body):
    """A tool that the model may use."""

    type: Literal["function"] = "function"
    function: FunctionDefinition

    def to_template(self) -> dict[str, Any]:
        """Spell it as chat templates read it."""
        return self.model_dump(exclude_none=True, exclude_unset=True) | {"type": "function"}


class StreamOptions(Body):
    """What else a stream should carry."""

    include_usage: bool = False


class ChatRequest(Body):
    """A conversation to be answered."""

    messages: list[ChatMessage] = Field(min_length=1)
    model: str | None = Field(default=None, description="any name; the served model answers")
    stream: bool = False
    stream_options: StreamOptions | None = None
    max_tokens: int | None = Field(default=None, ge=-1)
    max_completion_tokens: int | None = Field(default=None, ge=-1)
    n_predict: int | None = Field(default=None, ge=-1)
    temperature: float | None = Field(default=None, ge=0, le=100)
    top_p: float | None = Field(default=None, ge=0, le=1)
    top_k: int | None = Field(default=None, ge=-1, lt=2**31)
    min_p: float | None = Field(default=None, ge=0, le=1)
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**64)
    stop: str | list[str] | None = None
    presence_penalty: float = Field(default=0.0, ge=-100, le=100)
    frequency_penalty: float = Field(default=0.0, ge=-100, le=100)
    repetition_penalty: float | None = Field(default=None, gt=0, le=100)
    repeat_penalty: float | None = Field(default=None, gt=0, le=100)
    repeat_last_n: int | None = Field(default=None, ge=-1, lt=2**31)
    logit_bias: dict[str, float] = Field(default_factory=dict, examples=[{"42": -100}])
    ignore_eos: bool = False
    tools: list[Tool] = Field(default_factory=list)
    tool_choice: str | dict[str, Any] = Field(default="auto", description="auto or none")
    chat_template_kwargs: dict[str, Any] = Field(default_factory=dict, examples=[{"enable_thinking": True}])
    reasoning_format: Literal["auto", "none", "deepseek", "deepseek-legacy"] = "auto"
    continue_final_message: bool = False
    add_generation_prompt: bool = True
    return_progress: bool = False
    timings_per_token: bool = False
    sse_ping_interval: float | None = Field(default=None, ge=-1, le=3600, description="seconds; 0 or -1 is never")
    # What OpenAI checks although this server refuses or ignores it.
    n: int = Field(default=1, ge=1, le=128)
    logprobs: bool = False
    top_logprobs: int = Field(default=0, ge=0, le=20)

    @field_validator("stop")
    @classmethod
    def _no_empty_stop(cls, stop: str | list[str] | None) -> str | list[str] | None:
        if stop == "" or (isinstance(stop, list) and "" in stop):
            raise ValueError("a stop string may not be empty")
        return stop

    @field_validator("logit_bias")
    @classmethod
    def _token_ids(cls, bias: dict[str, float]) -> dict[str, float]:
        for token, value in bias.items():
            if not token.isdecimal() or not token.isascii() or len(token) > 9:
                raise ValueError(f"'{token[:32]}' is no token id")
            if not -100 <= value <= 100:
                raise ValueError(f"the bias of token {token} is not between -100 and 100")
        return bias

    @field_validator("chat_template_kwargs")
    @classmethod
    def _own_kwargs(cls, kwargs: dict[str, Any]) -> dict[str, Any]:
        taken = {"messages", "conversation", "tools", "tokenize", "add_generation_prompt", "chat_template"}
        if wrong := sorted(taken & kwargs.keys()):
            raise ValueError(f"'{wrong[0]}' is not for the caller to set")
        if not isinstance(kwargs.get("enable_thinking", True), bool):
            raise ValueError("'enable_thinking' is true or false")
        return kwargs

    @property
    def include_usage(self) -> bool:
        """Whether a stream ends with a chunk of usage."""
        return self.stream_options is not None and self.stream_options.include_usage

    @property
    def ignored(self) -> str:
        """What was given and has no effect, for the header."""
        return parameters.ignored(parameters.CHAT, self._given())

    def to_generation(self, limits: Limits) -> gen.GenerationRequest:
        """Say it in the common vocabulary. Raises InvalidRequest for what cannot be done."""
        parameters.check(parameters.CHAT, self._given())
        limits.check_messages(self.messages, "messages")
        stop = tuple([self.stop] if isinstance(self.stop, str) else self.stop or ())
        limits.check_stop(stop, "stop")
        self._check_tools()
        return gen.GenerationRequest(
            messages=tuple(message.to_message(place) for place, message in enumerate(self.messages)),
            tools=tuple(tool.to_template() for tool in self.tools),
            template_kwargs=self.chat_template_kwargs,
            continue_final_message=self._continues(),
            sampling=self._sampling(),
            max_tokens=self._max_tokens(),
            stop=stop,
            ignore_eos=self.ignore_eos,
            parse_tool_calls=self._parses_calls(),
            split_reasoning=self.reasoning_format != "none",
        )

    def _check_tools(self) -> None:
        for place, tool in enumerate(self.tools):
            if tool.function.strict:
                raise UnsupportedParameter(f"tools.{place}.function.strict", "cannot be enforced yet")

    def _continues(self) -> bool:
        roles = [message.role for message in self.messages]
        if roles[-2:] == ["assistant", "assistant"]:
            raise InvalidRequest("two messages of the assistant at the end cannot be answered", param="messages")
        asks_prompt = self.add_generation_prompt and "add_generation_prompt" in self.model_fields_set
        if self.continue_final_message and asks_prompt:
            raise InvalidRequest(
                "continue_final_message and add_generation_prompt exclude each other", param="continue_final_message"
            )
        if self.continue_final_message and roles[-1] != "assistant":
            raise InvalidRequest("the last message is not the assistant's", param="continue_final_message")
        if roles[-1] == "assistant" and self.messages[-1].tool_calls:
            raise InvalidRequest("the last message calls tools; their results are missing", param="messages")
        return roles[-1] == "assistant"

    def _sampling(self) -> gen.Sampling:
        window = None if self.repeat_last_n in (None, -1) else self.repeat_last_n
        off = window == 0
        repetition = self.repetition_penalty if self.repetition_penalty is not None else self.repeat_penalty
        return gen.Sampling(
            temperature=self.temperature,
            top_k=None if self.top_k is None else max(0, self.top_k),
            top_p=self.top_p,
            min_p=self.min_p,
            seed=None if self.seed == -1 else self.seed,
            repetition_penalty=1.0 if off else repetition,
            presence_penalty=0.0 if off else self.presence_penalty,
            frequency_penalty=0.0 if off else self.frequency_penalty,
            penalty_window=window,
            logit_bias={int(token): value for token, value in self.logit_bias.items()},
        )

    def _max_tokens(self) -> int | None:
        given = (self.n_predict, self.max_completion_tokens, self.max_tokens)
        limit = next((value for value in given if value is not None), -1)
        return None if limit == -1 else limit

    def _parses_calls(self) -> bool:
        if self.tool_choice in ("auto", "none"):
            return self.tool_choice == "auto"
        raise UnsupportedParameter("tool_choice", "other than auto and none is not supported yet")


class Function(Reply, kw_only=True):
    """What the model calls."""

    name: str
    arguments: str


class ReplyToolCall(Reply, kw_only=True):
    """A call the model made."""

    id: str
    type: Literal["function"] = "function"
    function: Function


class DeltaToolCall(ReplyToolCall, kw_only=True):
    """A call in a stream."""

    index: int


class ReplyMessage(Reply, kw_only=True):
    """The answer."""

    role: Literal["assistant"] = "assistant"
    content: str
    reasoning_content: str | UnsetType = UNSET
    tool_calls: list[ReplyToolCall] | UnsetType = UNSET


class Choice(Reply, kw_only=True):
    """The answer and why it ended."""

    index: int = 0
    message: ReplyMessage
    finish_reason: Literal["stop", "length", "tool_calls"]


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

    @classmethod
    def of(cls, timings: gen.Timings) -> "TimingsReply":
        """Spell the timings."""
        following = max(0, timings.completion_tokens - 1)
        return cls(
            cache_n=timings.cached_tokens,
            prompt_n=timings.prompt_tokens,
            prompt_ms=round(timings.prompt_ms, 3),
            prompt_per_token_ms=_ratio(timings.prompt_ms, timings.prompt_tokens),
            prompt_per_second=_ratio(timings.prompt_tokens * 1000, timings.prompt_ms),
            predicted_n=timings.completion_tokens,
            predicted_ms=round(timings.completion_ms, 3),
            predicted_per_token_ms=_ratio(timings.completion_ms, following),
            predicted_per_second=_ratio(following * 1000, timings.completion_ms),
        )


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
            tokens_per_second=_ratio(timings.completion_tokens * 1000, timings.total_ms),
            total_latency_s=round(timings.total_ms / 1000, 6),
        )


def _ratio(amount: float, by: float) -> float:
    return round(amount / by, 3) if by > 0 else 0.0


class ChatCompletion(Reply, kw_only=True):
    """The whole answer."""

    id: Annotated[str, Meta(examples=["chatcmpl-0c5f"])]
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    system_fingerprint: str = FINGERPRINT
    choices: list[Choice]
    usage: Usage
    timings: TimingsReply
    metrics: Metrics

    @classmethod
    def of(cls, said: gen.Completion) -> "ChatCompletion":
        """Spell a finished answer."""
        assert said.finished is not None
        timings = said.finished.timings
        return cls(
            id=new_id(),
            created=int(time.time()),
            model=said.model,
            choices=[Choice(message=_message(said), finish_reason=said.finished.reason)],
            usage=Usage.of(timings),
            timings=TimingsReply.of(timings),
            metrics=Metrics.of(timings),
        )


def _message(said: gen.Completion) -> ReplyMessage:
    calls = [ReplyToolCall(id=c.id, function=Function(name=c.name, arguments=c.arguments)) for c in said.tool_calls]
    return ReplyMessage(
        content=said.text,
        reasoning_content=said.reasoning or UNSET,
        tool_calls=calls or UNSET,
    )


class Delta(Reply, kw_only=True):
    """What is new."""

    role: Literal["assistant"] | UnsetType = UNSET
    content: str | UnsetType | None = UNSET
    reasoning_content: str | UnsetType = UNSET
    tool_calls: list[DeltaToolCall] | UnsetType = UNSET


class ChunkChoice(Reply, kw_only=True):
    """What is new, and why it ended if it did."""

    index: int = 0
    delta: Delta
    finish_reason: Literal["stop", "length", "tool_calls"] | None = None


class PromptProgress(Reply, kw_only=True):
    """How much of the prompt is computed."""

    total: int
    cache: int
    processed: int
    time_ms: int


class ChatCompletionChunk(Reply, kw_only=True):
    """A piece of a streamed answer."""

    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    system_fingerprint: str = FINGERPRINT
    choices: list[ChunkChoice]
    usage: Usage | UnsetType = UNSET
    timings: TimingsReply | UnsetType = UNSET
    metrics: Metrics | UnsetType = UNSET
    prompt_progress: PromptProgress | UnsetType = UNSET


class ChatStream(Dialect):
    """Says events as chunks."""

    end: ClassVar[bytes] = b"data: [DONE]\n\n"

    def __init__(self, request: ChatRequest) -> None:
        self._id = new_id()
        self._created = int(time.time())
        self._model = ""
        self._request = request
        self._spoken = False

    def feed(self, event: gen.Event) -> Iterator[ChatCompletionChunk]:
        """Give the chunks of an event, in order."""
        match event:
            case gen.Started():
                self._model = event.model
            case gen.Progress():
                if self._request.return_progress:
                    yield self._progress(event)
            case gen.Text():
                yield from self._delta(Delta(content=event.text), event.timings)
            case gen.Reasoning():
                yield from self._delta(Delta(reasoning_content=event.text), event.timings)
            case gen.ToolCall():
                yield from self._delta(Delta(tool_calls=[_delta_call(event)]))
            case gen.Finished():
                yield from self._first()
                yield from self._last(event)

    def _delta(self, delta: Delta, timings: gen.Timings | None = None) -> Iterator[ChatCompletionChunk]:
        yield from self._first()
        chunk = self._chunk(delta)
        if timings is not None and self._request.timings_per_token:
            chunk.timings = TimingsReply.of(timings)
        yield chunk

    def _first(self) -> Iterator[ChatCompletionChunk]:
        if not self._spoken:
            self._spoken = True
            yield self._chunk(Delta(role="assistant", content=""))

    def _last(self, event: gen.Finished) -> Iterator[ChatCompletionChunk]:
        chunk = self._chunk(Delta(), event.reason)
        chunk.timings, chunk.metrics = TimingsReply.of(event.timings), Metrics.of(event.timings)
        yield chunk
        if self._request.include_usage:
            counted = self._chunk(None)
            counted.usage, counted.timings = Usage.of(event.timings), chunk.timings
            yield counted

    def _progress(self, event: gen.Progress) -> ChatCompletionChunk:
        chunk = self._chunk(Delta(role="assistant", content=None))
        chunk.prompt_progress = PromptProgress(
            total=event.total, cache=event.cached, processed=event.done, time_ms=int(event.elapsed_ms)
        )
        return chunk

    def _chunk(self, delta: Delta | None, reason: gen.FinishReason | None = None) -> ChatCompletionChunk:
        choices = [] if delta is None else [ChunkChoice(delta=delta, finish_reason=reason)]
        return ChatCompletionChunk(id=self._id, created=self._created, model=self._model, choices=choices)


def _delta_call(call: gen.ToolCall) -> DeltaToolCall:
    return DeltaToolCall(index=call.index, id=call.id, function=Function(name=call.name, arguments=call.arguments))


def new_id() -> str:
    """Make the id of an answer."""
    return f"chatcmpl-{secrets.token_hex(16)}"
