"""OpenAI's chat completions: the whole answer and the chunks of a stream."""

import secrets
import time
from collections.abc import Collection, Iterator, Sequence
from typing import Annotated, ClassVar, Literal

from msgspec import UNSET, Meta, UnsetType

import app.services.generation as gen
from app.dto.openai.chat import ChatRequest
from app.dto.openai.custom_tools import CustomInput, input_of
from app.dto.shared.base import Dialect, Reply
from app.dto.shared.errors import ErrorDetail
from app.dto.shared.extras import TilesExtras
from app.dto.shared.logprobs import ChoiceLogprobs
from app.dto.shared.usage import FINGERPRINT, PromptProgress, TilesMetrics, TimingsReply, Usage


class ReplyFunction(Reply, kw_only=True):
    """What the model calls."""

    name: Annotated[str, Meta(description="name of the function")]
    arguments: Annotated[str, Meta(description="the arguments as JSON text")]


class ReplyCustomCall(Reply, kw_only=True):
    """What the model calls with free text."""

    name: Annotated[str, Meta(description="name of the tool")]
    input: Annotated[str, Meta(description="the text that it is called with")]


class ReplyToolCall(Reply, kw_only=True):
    """A call the model made: of a function, or of a custom tool."""

    id: Annotated[str, Meta(description="id of the call, to which its result refers")]
    type: Annotated[Literal["function", "custom"], Meta(description="`function` or `custom`")] = "function"
    function: Annotated[ReplyFunction | UnsetType, Meta(description="what is called, for type function")] = UNSET
    custom: Annotated[ReplyCustomCall | UnsetType, Meta(description="what is called, for type custom")] = UNSET

    @classmethod
    def of(cls, call: gen.ToolCall, custom_tools: Collection[str]) -> "ReplyToolCall":
        """Build it from a call; `custom_tools` are the names of tools that take free text."""
        if call.name in custom_tools:
            return cls(id=call.id, type="custom", custom=ReplyCustomCall(name=call.name, input=input_of(call)))
        return cls(id=call.id, function=ReplyFunction(name=call.name, arguments=call.arguments))


class DeltaFunction(Reply, kw_only=True):
    """What the model calls, or more of its arguments."""

    name: Annotated[str | UnsetType, Meta(description="name of the function, in the first piece of a call")] = UNSET
    arguments: Annotated[str, Meta(description="more of the arguments, as JSON text")]


class DeltaCustomCall(Reply, kw_only=True):
    """What the model calls with free text, or more of that text."""

    name: Annotated[str | UnsetType, Meta(description="name of the tool, in the first piece of a call")] = UNSET
    input: Annotated[str, Meta(description="more of the text that it is called with")]


class DeltaToolCall(Reply, kw_only=True):
    """A call in a stream: its first piece says which, the others bring more arguments, or more text."""

    index: Annotated[int, Meta(description="which of the answer's calls it belongs to")]
    id: Annotated[str | UnsetType, Meta(description="id of the call, in its first piece")] = UNSET
    type: Annotated[
        Literal["function", "custom"] | UnsetType, Meta(description="`function` or `custom`, in the first piece")
    ] = UNSET
    function: Annotated[DeltaFunction | UnsetType, Meta(description="more of a call of type function")] = UNSET
    custom: Annotated[DeltaCustomCall | UnsetType, Meta(description="more of a call of type custom")] = UNSET


class ReplyMessage(Reply, kw_only=True):
    """The answer."""

    role: Annotated[Literal["assistant"], Meta(description="always assistant")] = "assistant"
    content: Annotated[str, Meta(description="text of the answer")]
    reasoning_content: Annotated[
        str | UnsetType, Meta(description="what the model thought before; absent where it did not")
    ] = UNSET
    tool_calls: Annotated[
        list[ReplyToolCall] | UnsetType, Meta(description="tools that the model calls; absent where it calls none")
    ] = UNSET


class Choice(Reply, kw_only=True):
    """The answer and why it ended."""

    index: Annotated[int, Meta(description="index of the answer, of n")] = 0
    message: Annotated[ReplyMessage, Meta(description="the answer")]
    logprobs: Annotated[ChoiceLogprobs | UnsetType, Meta(description="how likely its tokens were, with logprobs")] = (
        UNSET
    )
    finish_reason: Annotated[
        Literal["stop", "length", "tool_calls"],
        Meta(description="why it ended: by itself or at a stop string, at a limit, or with a call of a tool"),
    ]


class ChatCompletion(Reply, kw_only=True):
    """The whole answer."""

    id: Annotated[str, Meta(description="id of the answer", examples=["chatcmpl-0c5f"])]
    object: Literal["chat.completion"] = "chat.completion"
    created: Annotated[int, Meta(description="when it was made, in Unix seconds")]
    model: Annotated[str, Meta(description="id of the model")]
    system_fingerprint: Annotated[str, Meta(description="version of the server")] = FINGERPRINT
    choices: Annotated[list[Choice], Meta(description="the answers, n of them")]
    usage: Annotated[Usage, Meta(description="tokens of prompt and answers")]
    timings: Annotated[TimingsReply, Meta(description="how long it took, as llama.cpp says it")]
    metrics: Annotated[TilesMetrics, Meta(description="how long it took, as the Tiles CLI shows it")]
    tiles: Annotated[TilesExtras, Meta(description="what this server adds to OpenAI's fields")]

    @classmethod
    def of(
        cls, answers: Sequence[gen.Completion], custom_tools: Collection[str] = (), *, timing: bool = False
    ) -> "ChatCompletion":
        """Build it from the finished answers to one prompt; `custom_tools` names the tools that take free text."""
        ends = [completion.finished for completion in answers if completion.finished is not None]
        timings = gen.Timings.together([end.timings for end in ends], len(ends))
        return cls(
            id=new_id(),
            created=int(time.time()),
            model=answers[0].model,
            choices=[
                _choice(index, completion, end, custom_tools)
                for index, (completion, end) in enumerate(zip(answers, ends, strict=True))
            ],
            usage=Usage.of(timings),
            timings=TimingsReply.of(timings),
            metrics=TilesMetrics.of(timings),
            tiles=TilesExtras.of(ends[0], timing=timing),
        )


def _choice(index: int, completion: gen.Completion, finished: gen.Finished, custom_tools: Collection[str]) -> Choice:
    logprobs = ChoiceLogprobs.of(completion.logprobs) if completion.logprobs else UNSET
    message = _message(completion, custom_tools)
    return Choice(index=index, message=message, finish_reason=finished.reason, logprobs=logprobs)


def _message(completion: gen.Completion, custom_tools: Collection[str]) -> ReplyMessage:
    calls = [ReplyToolCall.of(call, custom_tools) for call in completion.tool_calls]
    return ReplyMessage(
        content=completion.text,
        reasoning_content=completion.reasoning or UNSET,
        tool_calls=calls or UNSET,
    )


class Delta(Reply, kw_only=True):
    """What is new."""

    role: Annotated[Literal["assistant"] | UnsetType, Meta(description="always assistant, in the first chunk")] = UNSET
    content: Annotated[str | UnsetType | None, Meta(description="new text")] = UNSET
    reasoning_content: Annotated[str | UnsetType, Meta(description="new reasoning")] = UNSET
    tool_calls: Annotated[list[DeltaToolCall] | UnsetType, Meta(description="new pieces of calls")] = UNSET


class ChunkChoice(Reply, kw_only=True):
    """What is new, and why it ended if it did."""

    index: Annotated[int, Meta(description="index of the answer, of n")] = 0
    delta: Annotated[Delta, Meta(description="what is new")]
    logprobs: Annotated[
        ChoiceLogprobs | UnsetType, Meta(description="how likely the new tokens were, with logprobs")
    ] = UNSET
    finish_reason: Annotated[
        Literal["stop", "length", "tool_calls", "error"] | None,
        Meta(description="why the answer ended, in its last chunk; null before"),
    ] = None


class ChatCompletionChunk(Reply, kw_only=True):
    """A piece of a streamed answer."""

    id: Annotated[str, Meta(description="id of the answer, the same in all chunks")]
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: Annotated[int, Meta(description="when the answer was begun, in Unix seconds")]
    model: Annotated[str, Meta(description="id of the model")]
    system_fingerprint: Annotated[str, Meta(description="version of the server")] = FINGERPRINT
    choices: Annotated[list[ChunkChoice], Meta(description="one answer's news; empty in the chunk with the usage")]
    usage: Annotated[
        Usage | UnsetType,
        Meta(description="tokens of prompt and answers, in a last chunk, with stream_options.include_usage"),
    ] = UNSET
    timings: Annotated[
        TimingsReply | UnsetType,
        Meta(description="how long it took, in the last chunk, or in every one with timings_per_token"),
    ] = UNSET
    metrics: Annotated[
        TilesMetrics | UnsetType, Meta(description="how long it took, as the Tiles CLI shows it; in the last chunk")
    ] = UNSET
    tiles: Annotated[
        TilesExtras | UnsetType, Meta(description="what this server adds to OpenAI's fields; in the last chunk")
    ] = UNSET
    prompt_progress: Annotated[
        PromptProgress | UnsetType, Meta(description="how much of the prompt is computed, with return_progress")
    ] = UNSET
    error: Annotated[ErrorDetail | UnsetType, Meta(description="memory mode: why the answer failed")] = UNSET


class ChatStream(Dialect):
    """Translates events to chunks; with several answers each chunk has the index of its own."""

    end: ClassVar[bytes] = b"data: [DONE]\n\n"

    def __init__(self, request: ChatRequest) -> None:
        self.id = new_id()
        self._created = int(time.time())
        self._model = ""
        self._request = request
        self._open_choices: set[int] = set()
        self._timings: list[gen.Timings] = []
        self._texts: dict[tuple[int, int], CustomInput] = {}  # of custom tools, by answer and call

    def feed(self, event: gen.Event) -> Iterator[ChatCompletionChunk]:
        """Give the chunks for an event of the engine, in order."""
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
            case gen.ToolCall() | gen.ToolArguments():
                yield from self._first(event)
                yield from self._call(event)
            case gen.Finished():
                yield from self._first(event)
                yield from self._texts_ended(event)
                yield from self._last(event)

    def _first(self, event: gen.Event) -> Iterator[ChatCompletionChunk]:
        if event.choice not in self._open_choices:
            self._open_choices.add(event.choice)
            yield self._chunk(event, Delta(role="assistant", content=""))
            if not self._request.continue_final_message:
                yield from self._prefix(event)

    def _prefix(self, event: gen.Event) -> Iterator[ChatCompletionChunk]:
        """Send the text that is continued, unless the client asked for that with continue_final_message."""
        prefix = self._request.answer_prefix()
        if prefix.reasoning:
            yield self._chunk(event, Delta(reasoning_content=prefix.reasoning))
        if prefix.text:
            yield self._chunk(event, Delta(content=prefix.text))

    def _piece(
        self, event: gen.Text | gen.Reasoning, delta: Delta, logprobs: Sequence[gen.TokenLogprob] = ()
    ) -> ChatCompletionChunk:
        chunk = self._chunk(event, delta)
        if logprobs:
            chunk.choices[0].logprobs = ChoiceLogprobs.of(logprobs)
        if self._request.timings_per_token:
            chunk.timings = TimingsReply.of(event.timings)
        return chunk

    def _call(self, event: gen.ToolCall | gen.ToolArguments) -> Iterator[ChatCompletionChunk]:
        key = (event.choice, event.index)
        if isinstance(event, gen.ToolCall):
            yield from self._texts_ended(event)
            if event.name in self._request.custom_tools:
                self._texts[key] = CustomInput()
                custom = DeltaCustomCall(name=event.name, input=self._texts[key].add(event.arguments))
                delta = DeltaToolCall(index=event.index, id=event.id, type="custom", custom=custom)
                yield self._chunk(event, Delta(tool_calls=[delta]))
                return
        elif key in self._texts:
            yield from self._more_text(event, event.index, self._texts[key].add(event.text))
            return
        yield self._chunk(event, Delta(tool_calls=[_delta_call(event)]))

    def _texts_ended(self, event: gen.Event) -> Iterator[ChatCompletionChunk]:
        """Send the rest of the texts of an answer's custom tool calls."""
        for choice, index in [key for key in self._texts if key[0] == event.choice]:
            yield from self._more_text(event, index, self._texts.pop((choice, index)).end())

    def _more_text(self, event: gen.Event, index: int, text: str) -> Iterator[ChatCompletionChunk]:
        if text:
            delta = DeltaToolCall(index=index, custom=DeltaCustomCall(input=text))
            yield self._chunk(event, Delta(tool_calls=[delta]))

    def _last(self, event: gen.Finished) -> Iterator[ChatCompletionChunk]:
        chunk = self._chunk(event, Delta(), event.reason)
        chunk.timings, chunk.metrics = TimingsReply.of(event.timings), TilesMetrics.of(event.timings)
        chunk.tiles = TilesExtras.of(event, timing=self._request.return_timing)
        if event.logprobs:
            chunk.choices[0].logprobs = ChoiceLogprobs.of(event.logprobs)
        yield chunk
        self._timings.append(event.timings)
        if self._request.include_usage and len(self._timings) == self._request.n:
            together = gen.Timings.together(self._timings, self._request.n)
            usage_chunk = self._chunk(event, None)
            usage_chunk.usage, usage_chunk.timings = Usage.of(together), TimingsReply.of(together)
            yield usage_chunk

    def _progress(self, event: gen.Progress) -> ChatCompletionChunk:
        chunk = self._chunk(event, Delta(role="assistant", content=None))
        chunk.prompt_progress = PromptProgress.of(event)
        if self._request.timings_per_token:
            chunk.timings = TimingsReply.of_progress(event)
        return chunk

    def _chunk(
        self, event: gen.Event, delta: Delta | None, reason: gen.FinishReason | None = None
    ) -> ChatCompletionChunk:
        choices = [] if delta is None else [ChunkChoice(index=event.choice, delta=delta, finish_reason=reason)]
        return ChatCompletionChunk(id=self.id, created=self._created, model=self._model, choices=choices)


def _delta_call(call: gen.ToolCall | gen.ToolArguments) -> DeltaToolCall:
    if isinstance(call, gen.ToolArguments):
        return DeltaToolCall(index=call.index, function=DeltaFunction(arguments=call.text))
    function = DeltaFunction(name=call.name, arguments=call.arguments)
    return DeltaToolCall(index=call.index, id=call.id, type="function", function=function)


def new_id() -> str:
    """Make the id of an answer."""
    return f"chatcmpl-{secrets.token_hex(16)}"
