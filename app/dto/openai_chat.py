"""OpenAI's chat completions, with llama.cpp's and Tiles' extras."""

import json
import secrets
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, Any, ClassVar, Literal

from msgspec import UNSET, Meta, UnsetType
from pydantic import Field, field_validator, model_validator

import app.services.generation as gen
from app.dto import parameters
from app.dto.base import Body, Dialect, Limits, Reply
from app.dto.counts import FINGERPRINT, Metrics, PromptProgress, TimingsReply, Usage
from app.dto.errors import ErrorDetail
from app.dto.generating import Generating, StreamOptions
from app.services.errors import InvalidRequest, UnprocessableBody, UnsupportedParameter

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


# Tokens of reasoning for an effort.
EFFORTS = {"none": 0, "minimal": 128, "low": 512, "medium": 2048, "high": 8192}


class ChatRequest(Generating):
    """A conversation to be answered."""

    registry = parameters.CHAT

    messages: list[ChatMessage] = Field(min_length=1)
    stream_options: StreamOptions | None = None
    tools: list[Tool] = Field(default_factory=list)
    tool_choice: str | dict[str, Any] = Field(default="auto", description="auto or none")
    chat_template_kwargs: dict[str, Any] = Field(default_factory=dict, examples=[{"enable_thinking": True}])
    reasoning_format: Literal["auto", "none", "deepseek", "deepseek-legacy"] = "auto"
    continue_final_message: bool = False
    add_generation_prompt: bool = True
    response_format: ResponseFormat | None = None
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high"] | None = None
    thinking_budget_tokens: int | None = Field(default=None, ge=-1, description="-1 is no bound")
    logprobs: bool = False
    top_logprobs: int = Field(default=0, ge=0, le=20)
    input: str | None = Field(default=None, description="memory mode: the user's words")
    chat_start: bool | None = Field(default=None, description="memory mode: false on the relays of a user turn")
    python_code: str = Field(default="", description="memory mode: the code of the last answer")
    n: int = Field(default=1, ge=1, le=8, description="answers to the same prompt")

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

    def to_generation(self, limits: Limits) -> gen.GenerationRequest:
        """Say it in the common vocabulary. Raises InvalidRequest for what cannot be done."""
        self.check(limits)
        if len(self.messages) > limits.messages:
            raise UnprocessableBody(f"more than {limits.messages} messages", param="messages")
        self._check_tools()
        return gen.GenerationRequest(
            messages=tuple(message.to_message(place) for place, message in enumerate(self.messages)),
            tools=tuple(tool.to_template() for tool in self.tools),
            template_kwargs=self._template_kwargs(),
            continue_final_message=self._continues(),
            sampling=self.sampling(),
            answers=self.n,
            max_tokens=self.token_limit(),
            stop=self.stop_strings,
            ignore_eos=self.ignore_eos,
            constraint=self._constraint(),
            logprobs=self._logprobs(),
            thinking_budget=self._thinking_budget(),
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

    def _constraint(self) -> gen.Constraint | None:
        constraint = self.constraint()
        if constraint and self.tools and self.tool_choice != "none":
            raise InvalidRequest(f"{constraint.param} and tools exclude each other", param=constraint.param)
        return constraint

    def _constraints(self) -> Iterator[gen.Constraint]:
        if self.response_format and (constraint := self.response_format.to_constraint()):
            yield constraint
        yield from super()._constraints()

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


class CacheReply(Reply, kw_only=True):
    """How much of the prompt was known from earlier requests, and why not more."""

    cached_tokens: int
    reason: Literal["whole", "first_diff", "evicted", "not_stored"]
    first_diff: Annotated[int | None, Meta(description="index of the first token that differs from what is known")]


class TilesExtras(Reply, kw_only=True):
    """What this server adds to the dialect."""

    finish: Annotated[gen.FinishCause, Meta(description="why the answer ended, more exactly")]
    cache: CacheReply

    @classmethod
    def of(cls, finished: gen.Finished) -> "TilesExtras":
        """Say it of a finished answer."""
        use = finished.cache
        cache = CacheReply(cached_tokens=use.cached_tokens, reason=use.reason, first_diff=use.first_diff)
        return cls(finish=finished.cause, cache=cache)


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
    def of(cls, answers: Sequence[gen.Completion]) -> "ChatCompletion":
        """Spell the finished answers to one prompt."""
        ends = [said.finished for said in answers if said.finished is not None]
        timings = gen.Timings.together([end.timings for end in ends], len(ends))
        return cls(
            id=new_id(),
            created=int(time.time()),
            model=answers[0].model,
            choices=[_choice(place, *pair) for place, pair in enumerate(zip(answers, ends, strict=True))],
            usage=Usage.of(timings),
            timings=TimingsReply.of(timings),
            metrics=Metrics.of(timings),
            tiles=TilesExtras.of(ends[0]),
        )


def _choice(place: int, said: gen.Completion, finished: gen.Finished) -> Choice:
    logprobs = _logprobs(said.logprobs) if said.logprobs else UNSET
    return Choice(index=place, message=_message(said), finish_reason=finished.reason, logprobs=logprobs)


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


class ChatStream(Dialect):
    """Says events as chunks; of several answers each chunk says which one it is of."""

    end: ClassVar[bytes] = b"data: [DONE]\n\n"

    def __init__(self, request: ChatRequest) -> None:
        self._id = new_id()
        self._created = int(time.time())
        self._model = ""
        self._request = request
        self._spoken: set[int] = set()
        self._ended: list[gen.Timings] = []

    def feed(self, event: gen.Event) -> Iterator[ChatCompletionChunk]:
        """Give the chunks of an event, in order."""
        match event:
            case gen.Started():
                self._model = event.model
            case gen.Progress():
                if self._request.return_progress:
                    yield self._progress(event)
            case gen.Text():
                yield from self._first(event)
                yield self._piece(event, Delta(content=event.text), event.logprobs)
            case gen.Reasoning():
                yield from self._first(event)
                yield self._piece(event, Delta(reasoning_content=event.text))
            case gen.ToolCall():
                yield from self._first(event)
                yield self._chunk(event, Delta(tool_calls=[_delta_call(event)]))
            case gen.Finished():
                yield from self._first(event)
                yield from self._last(event)

    def _first(self, event: gen.Event) -> Iterator[ChatCompletionChunk]:
        if event.choice not in self._spoken:
            self._spoken.add(event.choice)
            yield self._chunk(event, Delta(role="assistant", content=""))

    def _piece(
        self, event: gen.Text | gen.Reasoning, delta: Delta, logprobs: Sequence[gen.TokenLogprob] = ()
    ) -> ChatCompletionChunk:
        chunk = self._chunk(event, delta)
        if logprobs:
            chunk.choices[0].logprobs = _logprobs(logprobs)
        if self._request.timings_per_token:
            chunk.timings = TimingsReply.of(event.timings)
        return chunk

    def _last(self, event: gen.Finished) -> Iterator[ChatCompletionChunk]:
        chunk = self._chunk(event, Delta(), event.reason)
        chunk.timings, chunk.metrics = TimingsReply.of(event.timings), Metrics.of(event.timings)
        chunk.tiles = TilesExtras.of(event)
        if event.logprobs:
            chunk.choices[0].logprobs = _logprobs(event.logprobs)
        yield chunk
        self._ended.append(event.timings)
        if self._request.include_usage and len(self._ended) == self._request.n:
            together = gen.Timings.together(self._ended, self._request.n)
            counted = self._chunk(event, None)
            counted.usage, counted.timings = Usage.of(together), TimingsReply.of(together)
            yield counted

    def _progress(self, event: gen.Progress) -> ChatCompletionChunk:
        chunk = self._chunk(event, Delta(role="assistant", content=None))
        chunk.prompt_progress = PromptProgress.of(event)
        return chunk

    def _chunk(
        self, event: gen.Event, delta: Delta | None, reason: gen.FinishReason | None = None
    ) -> ChatCompletionChunk:
        choices = [] if delta is None else [ChunkChoice(index=event.choice, delta=delta, finish_reason=reason)]
        return ChatCompletionChunk(id=self._id, created=self._created, model=self._model, choices=choices)


def _delta_call(call: gen.ToolCall) -> DeltaToolCall:
    return DeltaToolCall(index=call.index, id=call.id, function=Function(name=call.name, arguments=call.arguments))


def new_id() -> str:
    """Make the id of an answer."""
    return f"chatcmpl-{secrets.token_hex(16)}"
