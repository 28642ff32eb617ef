"""OpenAI's Responses: from events to the events of its stream, and to the whole response."""

import secrets
import time
from collections.abc import Iterator

from msgspec.structs import replace

import app.services.generation as gen
from app.dto.base import Dialect, Reply
from app.dto.counts import TimingsReply
from app.dto.logprobs import ContentLogprob
from app.dto.openai_responses import ResponsesRequest
from app.dto.openai_responses_events import (
    ArgumentsDelta,
    ArgumentsDone,
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
from app.dto.openai_responses_items import (
    FunctionCallItem,
    MessageItem,
    OutputItem,
    OutputText,
    ReasoningItem,
    ReasoningText,
    Status,
    SummaryText,
    output_item_id,
)
from app.services.errors import AppError


class ResponseStream(Dialect):
    """Says events in OpenAI's words, one item at a time; `response` is the whole response at the end."""

    def __init__(self, request: ResponsesRequest, *, store: bool = False) -> None:
        self.response = _begun(request, store)
        self._summarizes = request.summarizes
        self._number = 0
        self._open: OutputItem | None = None
        self._tokens = 0  # of the answer, as of the last event
        self._reasoning_tokens = 0

    def feed(self, event: gen.Event) -> Iterator[Reply]:
        """Give the events of an event, in order."""
        for said in self._feed(event):
            yield self._numbered(said)

    def silence(self) -> Reply:
        """Say once more that the response is in progress; clients that wait for events do not see comments."""
        return self._numbered(ResponseInProgress(response=self._snapshot()))

    def failure(self, error: AppError) -> Reply:
        """Give the event of an error."""
        response = self.response
        response.status = "failed"
        code = "server_error" if error.status >= 500 else error.code or error.kind
        response.error = ResponseError(code=code, message=error.message)
        return self._numbered(ResponseFailed(response=response))

    def _numbered(self, event: ResponseEvent) -> ResponseEvent:
        event.sequence_number = self._number
        self._number += 1
        return event

    def _feed(self, event: gen.Event) -> Iterator[ResponseEvent]:
        match event:
            case gen.Started():
                self.response.model = event.model
                yield ResponseCreated(response=self._snapshot())
                yield ResponseInProgress(response=self._snapshot())
            case gen.Text():
                self._count(event.timings, thinks=False)
                yield from self._say(event.text, [ContentLogprob.of(score) for score in event.logprobs])
            case gen.Reasoning():
                self._count(event.timings, thinks=True)
                yield from self._think(event.text)
            case gen.ToolCall():
                yield from self._call(event)
            case gen.ToolArguments():
                yield from self._argue(event.text)
            case gen.Finished():
                yield from self._finish(event)
            case gen.Progress():
                pass

    def _snapshot(self) -> ResponseReply:
        return replace(self.response, output=[])

    def _count(self, timings: gen.Timings, *, thinks: bool) -> None:
        if thinks:
            self._reasoning_tokens += timings.completion_tokens - self._tokens
        self._tokens = timings.completion_tokens

    def _say(self, text: str, logprobs: list[ContentLogprob]) -> Iterator[ResponseEvent]:
        if not isinstance(self._open, MessageItem):
            yield from self._close("completed")
            item = self._open = MessageItem(id=self._new_id("message"), status="in_progress", content=[])
            yield self._added(item)
            item.content.append(OutputText(text=""))
            yield PartAdded(item_id=item.id, output_index=self._index, content_index=0, part=OutputText(text=""))
        said = self._open.content[0]
        said.text += text
        said.logprobs += logprobs
        where = {"output_index": self._index, "content_index": 0}
        yield OutputTextDelta(item_id=self._open.id, delta=text, logprobs=logprobs, **where)

    def _think(self, text: str) -> Iterator[ResponseEvent]:
        if not isinstance(self._open, ReasoningItem):
            yield from self._close("completed")
            self._open = ReasoningItem(id=self._new_id("reasoning"), status="in_progress", summary=[], content=[])
            yield self._added(self._open)
            yield self._thought_begun(self._open)
        item, index = self._open, self._index
        if self._summarizes:
            item.summary[0].text += text
            yield SummaryTextDelta(item_id=item.id, output_index=index, summary_index=0, delta=text)
        else:
            item.content[0].text += text
            yield ReasoningTextDelta(item_id=item.id, output_index=index, content_index=0, delta=text)

    def _thought_begun(self, item: ReasoningItem) -> ResponseEvent:
        if self._summarizes:
            item.summary.append(SummaryText(text=""))
            return SummaryPartAdded(
                item_id=item.id, output_index=self._index, summary_index=0, part=SummaryText(text="")
            )
        item.content.append(ReasoningText(text=""))
        return PartAdded(item_id=item.id, output_index=self._index, content_index=0, part=ReasoningText(text=""))

    def _call(self, call: gen.ToolCall) -> Iterator[ResponseEvent]:
        yield from self._close("completed")
        self._open = FunctionCallItem(
            id=self._new_id("function_call"), call_id=call.id, name=call.name, arguments="", status="in_progress"
        )
        yield self._added(self._open)
        if call.arguments:
            yield from self._argue(call.arguments)

    def _argue(self, arguments: str) -> Iterator[ResponseEvent]:
        item = self._open
        assert isinstance(item, FunctionCallItem)
        item.arguments += arguments
        yield ArgumentsDelta(item_id=item.id, output_index=self._index, delta=arguments)

    def _new_id(self, kind: str) -> str:
        return output_item_id(kind, self.response.id, len(self.response.output))

    def _added(self, item: OutputItem) -> ItemAdded:
        self.response.output.append(item)
        return ItemAdded(output_index=self._index, item=_copied(item))

    def _close(self, status: Status) -> Iterator[ResponseEvent]:
        """End the open item, if there is one."""
        item, index = self._open, self._index
        if item is None:
            return
        self._open = None
        item.status = status
        if isinstance(item, FunctionCallItem):
            yield from self._called(item, index)
        elif isinstance(item, MessageItem):
            said = item.content[0]
            yield OutputTextDone(
                item_id=item.id, output_index=index, content_index=0, text=said.text, logprobs=said.logprobs
            )
            yield PartDone(item_id=item.id, output_index=index, content_index=0, part=said)
        elif item.summary:
            summary = item.summary[0]
            yield SummaryTextDone(item_id=item.id, output_index=index, summary_index=0, text=summary.text)
            yield SummaryPartDone(item_id=item.id, output_index=index, summary_index=0, part=summary)
        else:
            thought = item.content[0]
            yield ReasoningTextDone(item_id=item.id, output_index=index, content_index=0, text=thought.text)
            yield PartDone(item_id=item.id, output_index=index, content_index=0, part=thought)
        yield ItemDone(output_index=index, item=item)

    def _called(self, item: FunctionCallItem, index: int) -> Iterator[ResponseEvent]:
        """A call whose arguments break off is incomplete, and they are never said to be done."""
        whole = gen.ToolCall(0, item.call_id, item.name, item.arguments).is_whole
        item.status = "completed" if whole else "incomplete"
        if whole:
            yield ArgumentsDone(item_id=item.id, output_index=index, arguments=item.arguments, name=item.name)

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


def _begun(request: ResponsesRequest, store: bool) -> ResponseReply:
    reasoning = request.reasoning
    return ResponseReply(
        id=f"resp_{secrets.token_hex(16)}",
        created_at=int(time.time()),
        status="in_progress",
        instructions=request.instructions or None,
        max_output_tokens=request.max_output_tokens,
        model="",
        output=[],
        previous_response_id=request.previous_response_id,
        reasoning=ReasoningReply(effort=reasoning.effort, summary=reasoning.summary or reasoning.generate_summary),
        store=store,
        temperature=request.temperature,
        text={"format": {"type": "text"}} | request.text.model_dump(mode="json", by_alias=True, exclude_unset=True),
        tool_choice=request.tool_choice,
        parallel_tool_calls=request.parallel_tool_calls,
        tools=[tool.model_dump(mode="json") for tool in request.tools],
        top_logprobs=request.top_logprobs,
        top_p=request.top_p,
        metadata=dict(request.metadata),
    )


def _copied(item: OutputItem) -> OutputItem:
    """The item as it is now; it is filled after it has been said to begin."""
    match item:
        case MessageItem():
            return replace(item, content=[])
        case ReasoningItem():
            return replace(item, summary=[], content=[])
        case FunctionCallItem():
            return replace(item)


def _usage(timings: gen.Timings, reasoning_tokens: int) -> ResponseUsage:
    prompt = timings.prompt_tokens + timings.cached_tokens
    return ResponseUsage(
        input_tokens=prompt,
        input_tokens_details=InputTokensDetails(cached_tokens=timings.cached_tokens),
        output_tokens=timings.completion_tokens,
        output_tokens_details=OutputTokensDetails(reasoning_tokens=reasoning_tokens),
        total_tokens=prompt + timings.completion_tokens,
    )
