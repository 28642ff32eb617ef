"""OpenAI's chat completions, with llama.cpp's and Tiles' extras."""

import json
import secrets
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, Any, ClassVar, Literal

from msgspec import UNSET, Meta, UnsetType
from pydantic import Field, field_validator, model_validator

import app.services.generation as gen
from app import __version__
from app.dto import parameters
from app.dto.base import Body, Limits, Reply
from app.dto.errors import ErrorDetail
from app.services.errors import AppError, InvalidRequest, UnprocessableBody, UnsupportedParameter

FINGERPRINT = f"b1-tiles-{__version__}"
_MEDIA = {"image_url": "images", "input_audio": "audio", "input_video": "video", "file": "files"}

# Arguments of the call that renders the template, not of the template.
_NOT_FOR_TEMPLATES = {
    *("self", "messages", "conversation", "tools", "tokenize", "chat_template", "tokenizer_kwargs"),
    *("add_generation_prompt", "continue_final_message", "padding", "truncation", "max_length"),
    *("return_dict", "return_tensors", "return_assistant_tokens_mask"),
}


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


class JsonSchema(Body):
    """A named schema."""

    name: str = "answer"
    description: str | None = None
    schema_: dict[str, Any] = Field(default_factory=dict, alias="schema", description="JSON schema")
    strict: bool = True


class ResponseFormat(Body):
    """What the answer has to be."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None
    schema_: dict[str, Any] | None = Field(default=None, alias="schema", description="llama.cpp's, with json_object")

    @model_validator(mode="after")
    def _complete(self) -> "ResponseFormat":
        if self.type == "json_schema" and self.json_schema is None and self.schema_ is None:
            raise ValueError("'json_schema' is missing")
        return self

    def to_constraint(self) -> gen.Constraint | None:
        """Say it in the common vocabulary."""
        if self.type == "text":
            return None
        schema = self.json_schema.schema_ if self.json_schema else self.schema_
        return gen.Constraint("json_schema", json.dumps(schema or {"type": "object"}), "response_format")


class Grammar(Body):
    """A grammar with its language."""

    type: Literal["gbnf", "lark"]
    grammar: str


# Tokens of reasoning for an effort.
EFFORTS = {"none": 0, "minimal": 128, "low": 512, "medium": 2048, "high": 8192}


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
    response_format: ResponseFormat | None = None
    json_schema: dict[str, Any] = Field(default_factory=dict, description="llama.cpp's short form of response_format")
    grammar: str | Grammar = Field(default="", description="GBNF, or another language by name")
    regex: str | None = Field(default=None, min_length=1, description="the whole answer matches it")
    choice: list[str] | None = Field(default=None, min_length=1, description="the answer is one of these")
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high"] | None = None
    thinking_budget_tokens: int | None = Field(default=None, ge=-1, description="-1 is no bound")
    input: str | None = Field(default=None, description="memory mode: the user's words")
    chat_start: bool | None = Field(default=None, description="memory mode: false on the relays of a user turn")
    python_code: str = Field(default="", description="memory mode: the code of the last answer")
    logprobs: bool = False
    top_logprobs: int = Field(default=0, ge=0, le=20)
    # What OpenAI checks although this server refuses it.
    n: int = Field(default=1, ge=1, le=128)

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
        if wrong := sorted(_NOT_FOR_TEMPLATES & kwargs.keys()):
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
        self._check_limits(limits)
        self._check_tools()
        return gen.GenerationRequest(
            messages=tuple(message.to_message(place) for place, message in enumerate(self.messages)),
            tools=tuple(tool.to_template() for tool in self.tools),
            template_kwargs=self._template_kwargs(),
            continue_final_message=self._continues(),
            sampling=self._sampling(),
            max_tokens=self._max_tokens(),
            stop=tuple([self.stop] if isinstance(self.stop, str) else self.stop or ()),
            ignore_eos=self.ignore_eos,
            constraint=self._constraint(),
            logprobs=self._logprobs(),
            thinking_budget=self._thinking_budget(),
            parse_tool_calls=self._parses_calls(),
            split_reasoning=self.reasoning_format != "none",
        )

    def _given(self) -> dict[str, Any]:
        given = {name: getattr(self, name) for name in self.model_fields_set if name in type(self).model_fields}
        return given | (self.model_extra or {})

    def _check_limits(self, limits: Limits) -> None:
        stop = [self.stop] if isinstance(self.stop, str) else self.stop or []
        if len(self.messages) > limits.messages:
            raise UnprocessableBody(f"more than {limits.messages} messages", param="messages")
        if len(stop) > limits.stop_strings:
            raise UnprocessableBody(f"more than {limits.stop_strings} stop strings", param="stop")
        if any(len(text.encode()) > limits.stop_length for text in stop):
            raise UnprocessableBody(f"a stop string longer than {limits.stop_length} bytes", param="stop")

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

    def _constraint(self) -> gen.Constraint | None:
        asked = [constraint for constraint in self._constraints() if constraint is not None]
        if len(asked) > 1:
            raise InvalidRequest(f"{asked[0].param} and {asked[1].param} exclude each other", param=asked[1].param)
        if asked and self.tools and self.tool_choice != "none":
            raise InvalidRequest(f"{asked[0].param} and tools exclude each other", param=asked[0].param)
        return asked[0] if asked else None

    def _constraints(self) -> Iterator[gen.Constraint | None]:
        yield self.response_format.to_constraint() if self.response_format else None
        if self.json_schema:
            yield gen.Constraint("json_schema", json.dumps(self.json_schema), "json_schema")
        if self.grammar:
            language = self.grammar.type if isinstance(self.grammar, Grammar) else "gbnf"
            text = self.grammar.grammar if isinstance(self.grammar, Grammar) else self.grammar
            yield gen.Constraint(language, text, "grammar")
        if self.regex:
            yield gen.Constraint("regex", self.regex, "regex")
        if self.choice:
            yield gen.Constraint("choice", json.dumps(self.choice), "choice")

    def _logprobs(self) -> int | None:
        if self.top_logprobs and not self.logprobs:
            raise InvalidRequest("top_logprobs needs logprobs", param="top_logprobs")
        return self.top_logprobs if self.logprobs else None

    def _template_kwargs(self) -> dict[str, Any]:
        if self.reasoning_effort is None or "enable_thinking" in self.chat_template_kwargs:
            return self.chat_template_kwargs
        return {"enable_thinking": self.reasoning_effort != "none"} | self.chat_template_kwargs

    def _thinking_budget(self) -> int | None:
        if self.thinking_budget_tokens is not None:
            return None if self.thinking_budget_tokens == -1 else self.thinking_budget_tokens
        return None if self.reasoning_effort is None else EFFORTS[self.reasoning_effort]

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


class TopLogprob(Reply, kw_only=True):
    """A token and how likely it was."""

    id: int
    token: str
    bytes: list[int]
    logprob: Annotated[float, Meta(description="natural logarithm, before penalties and temperature")]


class ContentLogprob(TopLogprob, kw_only=True):
    """A token of the answer, and what was likely in its place."""

    top_logprobs: list[TopLogprob]

    @classmethod
    def of(cls, score: gen.TokenLogprob) -> "ContentLogprob":
        """Spell a score."""
        return cls(**_score(score), top_logprobs=[TopLogprob(**_score(top)) for top in score.top])


class ChoiceLogprobs(Reply, kw_only=True):
    """How likely the tokens of the answer were."""

    content: list[ContentLogprob]


def _score(score: gen.TokenLogprob) -> dict[str, Any]:
    token = score.data.decode(errors="replace")
    return {"id": score.token, "token": token, "bytes": list(score.data), "logprob": score.logprob}


def _logprobs(scores: Iterable[gen.TokenLogprob]) -> ChoiceLogprobs:
    return ChoiceLogprobs(content=[ContentLogprob.of(score) for score in scores])


class Choice(Reply, kw_only=True):
    """The answer and why it ended."""

    index: int = 0
    message: ReplyMessage
    logprobs: ChoiceLogprobs | UnsetType = UNSET
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


class TilesExtras(Reply, kw_only=True):
    """What this server adds to the dialect."""

    finish: Annotated[gen.FinishCause, Meta(description="why the answer ended, more exactly")]


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
    tiles: TilesExtras

    @classmethod
    def of(cls, said: gen.Completion) -> "ChatCompletion":
        """Spell a finished answer."""
        assert said.finished is not None
        timings = said.finished.timings
        return cls(
            id=new_id(),
            created=int(time.time()),
            model=said.model,
            choices=[_choice(said, said.finished)],
            usage=Usage.of(timings),
            timings=TimingsReply.of(timings),
            metrics=Metrics.of(timings),
            tiles=TilesExtras(finish=said.finished.cause),
        )


def _choice(said: gen.Completion, finished: gen.Finished) -> Choice:
    logprobs = _logprobs(said.logprobs) if said.logprobs else UNSET
    return Choice(message=_message(said), finish_reason=finished.reason, logprobs=logprobs)


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
    logprobs: ChoiceLogprobs | UnsetType = UNSET
    finish_reason: Literal["stop", "length", "tool_calls", "error"] | None = None


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
    tiles: TilesExtras | UnsetType = UNSET
    prompt_progress: PromptProgress | UnsetType = UNSET
    error: Annotated[ErrorDetail | UnsetType, Meta(description="memory mode: why the answer ended")] = UNSET


class ChatStream:
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
                yield from self._delta(Delta(content=event.text), event.timings, event.logprobs)
            case gen.Reasoning():
                yield from self._delta(Delta(reasoning_content=event.text), event.timings)
            case gen.ToolCall():
                yield from self._delta(Delta(tool_calls=[_delta_call(event)]))
            case gen.Finished():
                yield from self._first()
                yield from self._last(event)

    def failure(self, _: AppError) -> Reply | None:
        """Give what is said when the answer fails in its middle; None is OpenAI's error chunk."""
        return None

    def _delta(
        self, delta: Delta, timings: gen.Timings | None = None, logprobs: Sequence[gen.TokenLogprob] = ()
    ) -> Iterator[ChatCompletionChunk]:
        yield from self._first()
        chunk = self._chunk(delta)
        if logprobs:
            chunk.choices[0].logprobs = _logprobs(logprobs)
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
        chunk.tiles = TilesExtras(finish=event.cause)
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

    def _chunk(
        self, delta: Delta | None, reason: gen.FinishReason | Literal["error"] | None = None
    ) -> ChatCompletionChunk:
        choices = [] if delta is None else [ChunkChoice(delta=delta, finish_reason=reason)]
        return ChatCompletionChunk(id=self._id, created=self._created, model=self._model, choices=choices)


def _delta_call(call: gen.ToolCall) -> DeltaToolCall:
    return DeltaToolCall(index=call.index, id=call.id, function=Function(name=call.name, arguments=call.arguments))


def new_id() -> str:
    """Make the id of an answer."""
    return f"chatcmpl-{secrets.token_hex(16)}"
