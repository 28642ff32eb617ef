"""OpenAI's Responses: from events to the events of its stream, and to the whole response."""

import secrets
import time
from collections.abc import Iterator
from typing import Any

from msgspec import UNSET, UnsetType
from msgspec.structs import replace

import app.services.generation as gen
from app.dto.openai.custom_tools import CustomInput
from app.dto.openai.responses import ResponsesRequest
from app.dto.openai.responses_events import (
    ArgumentsDelta,
    ArgumentsDone,
    CustomInputDelta,
    CustomInputDone,
    IncompleteDetails,
    InputTokensDetails,
    ItemAdded,
    ItemDone,
    OutputTextDelta,
    OutputTextDone,
    OutputTokensDetails,
    PartAdded,
    PartDone,
    ReasoningReply,
    ReasoningTextDelta,
    ReasoningTextDone,
    ResponseCompleted,
    ResponseCreated,
    ResponseError,
    ResponseEvent,
    ResponseFailed,
    ResponseIncomplete,
    ResponseInProgress,
    ResponseReply,
    ResponseUsage,
    SummaryPartAdded,
    SummaryPartDone,
    SummaryTextDelta,
    SummaryTextDone,
)
from app.dto.openai.responses_items import (
    AnswerItem,
    CustomToolCallItem,
    FunctionCallItem,
    MessageItem,
    OutputText,
    ReasoningItem,
    ReasoningText,
    Status,
    SummaryText,
    output_item_id,
)
from app.dto.shared.base import Dialect, Reply
from app.dto.shared.logprobs import ContentLogprob
from app.dto.shared.sealed import seal
from app.dto.shared.usage import PromptProgress, TimingsReply
from app.services.errors import AppError


class ResponseStream(Dialect):
    """Translates events to OpenAI's, one item at a time; `response` is the whole response at the end."""

    def __init__(self, request: ResponsesRequest, *, store: bool = False) -> None:
        self.response = _new_reply(request, store)
        self._request = request
        self._tools = {tool.name: tool for tool in reversed(request.offered_tools)}
        self._text = CustomInput()  # of the open call of a custom tool
        self._number = 0
        self._open: AnswerItem | None = None
        self._tokens = 0  # of the answer, as of the last event
        self._reasoning_tokens = 0

    def feed(self, event: gen.Event) -> Iterator[Reply]:
        """Give the stream's events for an event of the engine, in order."""
        for reply in self._feed(event):
            yield self._with_number(reply)

    def silence(self) -> Reply:
        """Give one more response.in_progress; clients that wait for events do not see comments."""
        return self._with_number(ResponseInProgress(response=self._snapshot()))

    def failure(self, error: AppError) -> Reply:
        """Give the event of an error."""
        response = self.response
        response.status = "failed"
        code = "server_error" if error.status >= 500 else error.code or error.kind
        response.error = ResponseError(code=code, message=error.message)
        return self._with_number(ResponseFailed(response=response))

    def _with_number(self, event: ResponseEvent) -> ResponseEvent:
        event.sequence_number = self._number
        self._number += 1
        return event

    def _feed(self, event: gen.Event) -> Iterator[ResponseEvent]:
        match event:
            case gen.Started():
                self._use(event)
                yield ResponseCreated(response=self._snapshot())
                yield ResponseInProgress(response=self._snapshot())
            case gen.Text():
                self._count(event.timings, thinks=False)
                yield from self._say(event, [ContentLogprob.of(logprob) for logprob in event.logprobs])
            case gen.Reasoning():
                self._count(event.timings, thinks=True)
                yield from self._think(event)
            case gen.ToolCall():
                yield from self._call(event)
            case gen.ToolArguments():
                yield from self._add_arguments(event.text)
            case gen.Finished():
                yield from self._finish(event)
            case gen.Progress():
                if self._request.return_progress:
                    timings = TimingsReply.of_progress(event) if self._request.timings_per_token else UNSET
                    progress = PromptProgress.of(event)
                    yield ResponseInProgress(response=self._snapshot(), prompt_progress=progress, timings=timings)

    def _use(self, event: gen.Started) -> None:
        """Note who answers, and what is used where the request says nothing."""
        response, request, defaults = self.response, self._request, event.defaults
        response.model = event.model
        response.temperature = _first(request.temperature, defaults.temperature, response.temperature)
        response.top_p = _first(request.top_p, defaults.top_p, response.top_p)

    def _timings(self, event: gen.Text | gen.Reasoning) -> TimingsReply | UnsetType:
        return TimingsReply.of(event.timings) if self._request.timings_per_token else UNSET

    def _snapshot(self) -> ResponseReply:
        return replace(self.response, output=[])

    def _count(self, timings: gen.Timings, *, thinks: bool) -> None:
        if thinks:
            self._reasoning_tokens += timings.completion_tokens - self._tokens
        self._tokens = timings.completion_tokens

    def _say(self, event: gen.Text, logprobs: list[ContentLogprob]) -> Iterator[ResponseEvent]:
        if not isinstance(self._open, MessageItem):
            yield from self._close("completed")
            item = self._open = MessageItem(id=self._new_id("message"), status="in_progress", content=[])
            yield self._add_item(item)
            item.content.append(OutputText(text=""))
            yield PartAdded(item_id=item.id, output_index=self._index, content_index=0, part=OutputText(text=""))
        part = self._open.content[0]
        part.text += event.text
        part.logprobs += logprobs
        yield OutputTextDelta(
            item_id=self._open.id,
            output_index=self._index,
            content_index=0,
            delta=event.text,
            logprobs=logprobs,
            timings=self._timings(event),
        )

    def _think(self, event: gen.Reasoning) -> Iterator[ResponseEvent]:
        if not isinstance(self._open, ReasoningItem):
            yield from self._close("completed")
            self._open = ReasoningItem(id=self._new_id("reasoning"), status="in_progress", summary=[], content=[])
            yield self._add_item(self._open)
            yield self._begin_reasoning(self._open)
        item, index, text, timings = self._open, self._index, event.text, self._timings(event)
        if self._request.summarizes:
            item.summary[0].text += text
            yield SummaryTextDelta(item_id=item.id, output_index=index, summary_index=0, delta=text, timings=timings)
        else:
            item.content[0].text += text
            yield ReasoningTextDelta(item_id=item.id, output_index=index, content_index=0, delta=text, timings=timings)

    def _begin_reasoning(self, item: ReasoningItem) -> ResponseEvent:
        if self._request.summarizes:
            item.summary.append(SummaryText(text=""))
            return SummaryPartAdded(
                item_id=item.id, output_index=self._index, summary_index=0, part=SummaryText(text="")
            )
        item.content.append(ReasoningText(text=""))
        return PartAdded(item_id=item.id, output_index=self._index, content_index=0, part=ReasoningText(text=""))

    def _call(self, call: gen.ToolCall) -> Iterator[ResponseEvent]:
        yield from self._close("completed")
        self._open = self._new_call(call)
        yield self._add_item(self._open)
        if call.arguments:
            yield from self._add_arguments(call.arguments)

    def _new_call(self, call: gen.ToolCall) -> FunctionCallItem | CustomToolCallItem:
        """Make the item of a call, by the names that the client knows: the model knows others, and no custom tools."""
        tool = self._tools.get(call.name)
        name = tool.tool.name or "" if tool is not None else call.name
        namespace = tool.namespace or UNSET if tool is not None else UNSET
        if tool is not None and tool.is_custom:
            self._text = CustomInput()
            identity = self._new_id("custom_tool_call")
            return CustomToolCallItem(
                id=identity, call_id=call.id, namespace=namespace, name=name, input="", status="in_progress"
            )
        identity = self._new_id("function_call")
        return FunctionCallItem(
            id=identity, call_id=call.id, namespace=namespace, name=name, arguments="", status="in_progress"
        )

    def _add_arguments(self, arguments: str) -> Iterator[ResponseEvent]:
        item = self._open
        if isinstance(item, CustomToolCallItem):
            yield from self._more_text(item, self._index, self._text.add(arguments))
            return
        assert isinstance(item, FunctionCallItem)
        item.arguments += arguments
        yield ArgumentsDelta(item_id=item.id, output_index=self._index, delta=arguments)

    def _more_text(self, item: CustomToolCallItem, index: int, text: str) -> Iterator[ResponseEvent]:
        if text:
            item.input += text
            yield CustomInputDelta(item_id=item.id, output_index=index, delta=text)

    def _new_id(self, kind: str) -> str:
        return output_item_id(kind, self.response.id, len(self.response.output))

    def _add_item(self, item: AnswerItem) -> ItemAdded:
        self.response.output.append(item)
        return ItemAdded(output_index=self._index, item=_empty_copy(item))

    def _close(self, status: Status) -> Iterator[ResponseEvent]:
        """End the open item, if there is one."""
        item, index = self._open, self._index
        if item is None:
            return
        self._open = None
        item.status = status
        if isinstance(item, FunctionCallItem):
            yield from self._end_call(item, index)
        elif isinstance(item, CustomToolCallItem):
            yield from self._end_custom_call(item, index)
        elif isinstance(item, MessageItem):
            part = item.content[0]
            yield OutputTextDone(
                item_id=item.id, output_index=index, content_index=0, text=part.text, logprobs=part.logprobs
            )
            yield PartDone(item_id=item.id, output_index=index, content_index=0, part=part)
        elif item.summary:
            summary = item.summary[0]
            item.encrypted_content = self._sealed(summary.text)
            yield SummaryTextDone(item_id=item.id, output_index=index, summary_index=0, text=summary.text)
            yield SummaryPartDone(item_id=item.id, output_index=index, summary_index=0, part=summary)
        else:
            reasoning = item.content[0]
            item.encrypted_content = self._sealed(reasoning.text)
            yield ReasoningTextDone(item_id=item.id, output_index=index, content_index=0, text=reasoning.text)
            yield PartDone(item_id=item.id, output_index=index, content_index=0, part=reasoning)
        yield ItemDone(output_index=index, item=item)

    def _sealed(self, reasoning: str) -> str:
        return seal(reasoning) if self._request.seals_reasoning else ""

    def _end_call(self, item: FunctionCallItem, index: int) -> Iterator[ResponseEvent]:
        """A call whose arguments break off is incomplete, and they are never said to be done."""
        whole = gen.ToolCall(0, item.call_id, item.name, item.arguments).is_whole
        item.status = "completed" if whole else "incomplete"
        if whole:
            yield ArgumentsDone(item_id=item.id, output_index=index, arguments=item.arguments, name=item.name)

    def _end_custom_call(self, item: CustomToolCallItem, index: int) -> Iterator[ResponseEvent]:
        yield from self._more_text(item, index, self._text.end())
        item.status = "completed" if self._text.is_whole else "incomplete"
        if self._text.is_whole:
            yield CustomInputDone(item_id=item.id, output_index=index, input=item.input)

    def _finish(self, event: gen.Finished) -> Iterator[ResponseEvent]:
        response, cut = self.response, event.reason == "length"
        yield from self._close("incomplete" if cut else "completed")
        response.usage = _usage(event.timings, self._reasoning_tokens)
        timings = TimingsReply.of(event.timings)
        if cut:
            response.status, response.incomplete_details = "incomplete", IncompleteDetails()
            yield ResponseIncomplete(response=response, timings=timings)
        else:
            response.status, response.completed_at = "completed", int(time.time())
            yield ResponseCompleted(response=response, timings=timings)

    @property
    def _index(self) -> int:
        return len(self.response.output) - 1


def _new_reply(request: ResponsesRequest, store: bool) -> ResponseReply:
    reasoning = request.reasoning
    return ResponseReply(
        id=f"resp_{secrets.token_hex(16)}",
        created_at=int(time.time()),
        status="in_progress",
        instructions=request.instructions or None,
        max_output_tokens=request.max_output_tokens,
        max_tool_calls=request.extra("max_tool_calls", int),
        model="",
        output=[],
        presence_penalty=request.presence_penalty,
        frequency_penalty=request.frequency_penalty,
        previous_response_id=request.previous_response_id or None,
        prompt_cache_key=request.extra("prompt_cache_key", str),
        safety_identifier=request.extra("safety_identifier", str),
        reasoning=ReasoningReply(effort=reasoning.effort, summary=reasoning.summary or reasoning.generate_summary),
        store=store,
        temperature=_first(request.temperature, 1.0),  # until it is known what the model uses
        text=_text(request),
        tool_choice=request.tool_choice,
        parallel_tool_calls=request.parallel_tool_calls,
        tools=[tool.echo() for tool in request.tools],
        top_logprobs=request.top_logprobs,
        top_p=_first(request.top_p, 1.0),
        truncation=request.truncation,
        metadata=dict(request.metadata),
    )


def _text(request: ResponsesRequest) -> dict[str, Any]:
    """Give the text settings as the response repeats them; of a schema, with OpenAI's defaults."""
    text = request.text.model_dump(mode="json", by_alias=True, exclude_unset=True)
    form = text.get("format") or {"type": "text"}
    if form["type"] == "json_schema":
        form = {"name": "answer", "description": None, "strict": True} | form
    return text | {"format": form}


def _empty_copy(item: AnswerItem) -> AnswerItem:
    """Copy an item without its content, for the event that it begins."""
    match item:
        case MessageItem():
            return replace(item, content=[])
        case ReasoningItem():
            return replace(item, summary=[], content=[])
        case FunctionCallItem() | CustomToolCallItem():
            return replace(item)


def _first(*numbers: float | None) -> float:
    return next(number for number in numbers if number is not None)


def _usage(timings: gen.Timings, reasoning_tokens: int) -> ResponseUsage:
    prompt = timings.prompt_tokens + timings.cached_tokens
    return ResponseUsage(
        input_tokens=prompt,
        input_tokens_details=InputTokensDetails(cached_tokens=timings.cached_tokens),
        output_tokens=timings.completion_tokens,
        output_tokens_details=OutputTokensDetails(reasoning_tokens=reasoning_tokens),
        total_tokens=prompt + timings.completion_tokens,
    )
