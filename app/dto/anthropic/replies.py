"""Anthropic's Messages: the reply and the events of its stream."""

import secrets
from collections.abc import Iterator
from typing import Annotated, Any, Literal, cast

from msgspec import UNSET, Meta, Raw, UnsetType
from msgspec.structs import replace

import app.services.generation as gen
from app.dto.shared.base import Dialect, Reply, object_text
from app.dto.shared.errors import AnthropicErrorReply
from app.dto.shared.extras import TilesExtras
from app.dto.shared.sealed import seal
from app.services.errors import AppError

StopReason = Literal["end_turn", "max_tokens", "stop_sequence", "tool_use", "model_context_window_exceeded"]

# Clients send reasoning back only with a signature; ours proves nothing.
_SIGNATURE = "tiles"  # of reasoning that is sent
_SIGNATURES = "clients send it back: it has the reasoning where the answer leaves that out, else it is tiles"


class TextBlock(Reply, tag_field="type", tag="text", kw_only=True):
    """Text of the answer."""

    text: Annotated[str, Meta(description="text of the answer")]


class ThinkingBlock(Reply, tag_field="type", tag="thinking", kw_only=True):
    """Reasoning of the model."""

    thinking: Annotated[str, Meta(description="text of the reasoning")]
    signature: Annotated[str, Meta(description=_SIGNATURES)]


class ToolUseBlock(Reply, tag_field="type", tag="tool_use", kw_only=True):
    """A call the model makes."""

    id: Annotated[str, Meta(description="id of the call, to which its result refers")]
    name: Annotated[str, Meta(description="name of the tool")]
    input: Annotated[dict[str, Any], Meta(description="the arguments")]


Block = TextBlock | ThinkingBlock | ToolUseBlock


class MessagesUsage(Reply, kw_only=True):
    """Tokens in and out; `input_tokens` leaves out what was cached."""

    input_tokens: Annotated[int, Meta(description="tokens of the prompt that were computed")]
    cache_creation_input_tokens: Annotated[int, Meta(description="always 0; Anthropic's field")] = 0
    cache_read_input_tokens: Annotated[int, Meta(description="tokens of the prompt that came from the prefix cache")]
    output_tokens: Annotated[int, Meta(description="tokens of the answer, reasoning too")]


class MessageReply(Reply, tag_field="type", tag="message", kw_only=True):
    """The answer."""

    id: Annotated[str, Meta(description="id of the answer", examples=["msg_0c5f"])]
    role: Annotated[Literal["assistant"], Meta(description="always assistant")] = "assistant"
    model: Annotated[str, Meta(description="id of the model")]
    content: Annotated[list[Block], Meta(description="reasoning, text and calls, in order")]
    stop_reason: Annotated[StopReason | None, Meta(description="why it ended; null before its end")]
    stop_sequence: Annotated[str | None, Meta(description="the stop string that ended it, else null")]
    usage: Annotated[MessagesUsage, Meta(description="tokens of prompt and answer")]
    tiles: Annotated[TilesExtras | UnsetType, Meta(description="what this server adds; absent before the end")] = UNSET


class MessageTokens(Reply, kw_only=True):
    """Length of a prompt, in tokens."""

    input_tokens: Annotated[int, Meta(description="tokens of the prompt")]


class MessageStart(Reply, tag_field="type", tag="message_start", kw_only=True):
    """The answer begins."""

    message: Annotated[MessageReply, Meta(description="the answer, still empty")]


class BlockStart(Reply, tag_field="type", tag="content_block_start", kw_only=True):
    """A block begins."""

    index: Annotated[int, Meta(description="index of the block in the answer")]
    content_block: Annotated[Block, Meta(description="the block, still empty")]


class TextDelta(Reply, tag_field="type", tag="text_delta", kw_only=True):
    """More text."""

    text: Annotated[str, Meta(description="new text")]


class ThinkingDelta(Reply, tag_field="type", tag="thinking_delta", kw_only=True):
    """More reasoning."""

    thinking: Annotated[str, Meta(description="new reasoning")]


class SignatureDelta(Reply, tag_field="type", tag="signature_delta", kw_only=True):
    """The end of the reasoning."""

    signature: Annotated[str, Meta(description=_SIGNATURES)]


class InputJsonDelta(Reply, tag_field="type", tag="input_json_delta", kw_only=True):
    """More of a call's arguments, as JSON text."""

    partial_json: Annotated[str, Meta(description="more of the arguments, as JSON text")]


class BlockDelta(Reply, tag_field="type", tag="content_block_delta", kw_only=True):
    """A block goes on."""

    index: Annotated[int, Meta(description="index of the block in the answer")]
    delta: Annotated[TextDelta | ThinkingDelta | SignatureDelta | InputJsonDelta, Meta(description="what is new of it")]


class BlockStop(Reply, tag_field="type", tag="content_block_stop", kw_only=True):
    """A block is whole."""

    index: Annotated[int, Meta(description="index of the block in the answer")]


class StopDelta(Reply, kw_only=True):
    """Why the answer ended."""

    stop_reason: Annotated[StopReason, Meta(description="why the answer ended")]
    stop_sequence: Annotated[str | None, Meta(description="the stop string that ended it, else null")]


class MessageDelta(Reply, tag_field="type", tag="message_delta", kw_only=True):
    """The answer ended."""

    delta: Annotated[StopDelta, Meta(description="why the answer ended")]
    usage: Annotated[MessagesUsage, Meta(description="tokens of prompt and answer")]
    tiles: Annotated[TilesExtras, Meta(description="what this server adds to Anthropic's fields")]


class MessageStop(Reply, tag_field="type", tag="message_stop", kw_only=True):
    """The answer is whole."""


class Ping(Reply, tag_field="type", tag="ping", kw_only=True):
    """The server is at work."""


class MessageStream(Dialect):
    """Translates events to Anthropic's, one block at a time; `message` is the whole answer at the end."""

    def __init__(
        self, request_id: str | None = None, *, hide_thinking: bool = False, return_timing: bool = False
    ) -> None:
        usage = MessagesUsage(input_tokens=0, cache_read_input_tokens=0, output_tokens=0)
        self.message = MessageReply(
            id=f"msg_{secrets.token_hex(12)}", model="", content=[], stop_reason=None, stop_sequence=None, usage=usage
        )
        self._request_id = request_id
        self._hide_thinking = hide_thinking
        self._return_timing = return_timing
        self._started = False
        self._open: Block | None = None
        self._arguments = ""  # of the open call
        self._hidden = ""  # reasoning of the open block

    def feed(self, event: gen.Event) -> Iterator[Reply]:
        """Give the stream's events for an event of the engine, in order."""
        match event:
            case gen.Started():
                self.message.model, self.message.usage.input_tokens = event.model, event.prompt_tokens
            case gen.Progress():
                yield from self._start(event.cached)
            case gen.Text():
                yield from self._start(event.timings.cached_tokens)
                yield from self._say(event.text)
            case gen.Reasoning():
                yield from self._start(event.timings.cached_tokens)
                yield from self._think(event.text)
            case gen.ToolCall():
                yield from self._start(0)
                yield from self._call(event)
            case gen.ToolArguments():
                self._arguments += event.text
                yield self._delta(InputJsonDelta(partial_json=event.text))
            case gen.Finished():
                yield from self._start(event.timings.cached_tokens)
                yield from self._close()
                yield from self._finish(event)

    def silence(self) -> Reply:
        """Give a ping; Anthropic's clients pass over it."""
        return Ping()

    def failure(self, error: AppError) -> Reply:
        """Give the event of an error."""
        return AnthropicErrorReply.of(error, self._request_id)

    def _start(self, cached_tokens: int) -> Iterator[Reply]:
        """Begin once it is known what was cached."""
        if self._started:
            return
        self._started = True
        usage = self.message.usage
        usage.input_tokens, usage.cache_read_input_tokens = usage.input_tokens - cached_tokens, cached_tokens
        yield MessageStart(message=replace(self.message, content=[], usage=replace(usage)))

    def _say(self, text: str) -> Iterator[Reply]:
        if not isinstance(self._open, TextBlock):
            yield from self._close()
            self._open = TextBlock(text="")
            yield self._begin(self._open)
        self._open.text += text
        yield self._delta(TextDelta(text=text))

    def _think(self, text: str) -> Iterator[Reply]:
        if not isinstance(self._open, ThinkingBlock):
            yield from self._close()
            self._open, self._hidden = ThinkingBlock(thinking="", signature=""), ""
            yield self._begin(self._open)
        if self._hide_thinking:
            self._hidden += text
            return
        self._open.thinking += text
        yield self._delta(ThinkingDelta(thinking=text))

    def _call(self, call: gen.ToolCall) -> Iterator[Reply]:
        yield from self._close()
        self._open = ToolUseBlock(id=call.id, name=call.name, input={})
        yield self._begin(self._open)
        self._arguments = call.arguments  # maybe their beginning
        if call.arguments:
            yield self._delta(InputJsonDelta(partial_json=call.arguments))

    def _close(self) -> Iterator[Reply]:
        if self._open is None:
            return
        if isinstance(self._open, ThinkingBlock):
            self._open.signature = seal(self._hidden) or _SIGNATURE
            yield self._delta(SignatureDelta(signature=self._open.signature))
        elif isinstance(self._open, ToolUseBlock):
            self._open.input = cast("Any", Raw(object_text(self._arguments).encode()))
        self._open = None
        yield BlockStop(index=self._index)

    def _begin(self, block: Block) -> BlockStart:
        self.message.content.append(block)
        return BlockStart(index=self._index, content_block=replace(block))

    def _delta(self, delta: TextDelta | ThinkingDelta | SignatureDelta | InputJsonDelta) -> BlockDelta:
        return BlockDelta(index=self._index, delta=delta)

    def _finish(self, event: gen.Finished) -> Iterator[Reply]:
        message, timings = self.message, event.timings
        message.stop_reason, message.stop_sequence = _stop_reason(event), event.stop
        message.usage = MessagesUsage(
            input_tokens=timings.prompt_tokens,
            cache_read_input_tokens=timings.cached_tokens,
            output_tokens=timings.completion_tokens,
        )
        delta = StopDelta(stop_reason=message.stop_reason, stop_sequence=message.stop_sequence)
        message.tiles = TilesExtras.of(event, timing=self._return_timing)
        yield MessageDelta(delta=delta, usage=message.usage, tiles=message.tiles)
        yield MessageStop()

    @property
    def _index(self) -> int:
        return len(self.message.content) - 1


# After max_tokens clients have the model go on, which helps neither a full context nor a model that repeats itself.
_CUT: dict[gen.FinishCause, StopReason] = {"context": "model_context_window_exceeded", "repetition": "end_turn"}


def _stop_reason(event: gen.Finished) -> StopReason:
    match event.reason:
        case "tool_calls":
            return "tool_use"
        case "length":
            return _CUT.get(event.cause, "max_tokens")
        case "stop":
            return "end_turn" if event.stop is None else "stop_sequence"
