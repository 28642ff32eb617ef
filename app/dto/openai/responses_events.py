"""OpenAI's Responses: the response and the events of its stream."""

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, UnsetType

from app.dto.openai.responses_items import OutputItem, OutputText, ReasoningText, SummaryText
from app.dto.shared.base import Reply
from app.dto.shared.errors import ErrorDetail, ErrorReply
from app.dto.shared.logprobs import ContentLogprob
from app.dto.shared.usage import PromptProgress, TimingsReply
from app.services.errors import AppError


class InputTokensDetails(Reply, kw_only=True):
    """What the prompt cost."""

    cached_tokens: Annotated[int, Meta(description="tokens of the prompt that came from the prefix cache")]
    cache_write_tokens: Annotated[int, Meta(description="always 0; OpenAI's field")] = 0


class OutputTokensDetails(Reply, kw_only=True):
    """What the answer cost."""

    reasoning_tokens: Annotated[int, Meta(description="tokens of the reasoning")]


class ResponseUsage(Reply, kw_only=True):
    """Tokens in and out."""

    input_tokens: Annotated[int, Meta(description="tokens of the prompt, cached ones too")]
    input_tokens_details: Annotated[InputTokensDetails, Meta(description="how many of them were cached")]
    output_tokens: Annotated[int, Meta(description="tokens of the answer, reasoning too")]
    output_tokens_details: Annotated[OutputTokensDetails, Meta(description="how many of them were reasoning")]
    total_tokens: Annotated[int, Meta(description="input_tokens and output_tokens together")]


class ResponseError(Reply, kw_only=True):
    """Why a response failed."""

    code: Annotated[str, Meta(description="which error it is, for programs")]
    message: Annotated[str, Meta(description="what is wrong, in a sentence")]


class IncompleteDetails(Reply, kw_only=True):
    """Why a response is not complete."""

    reason: Annotated[
        Literal["max_output_tokens"], Meta(description="always max_output_tokens: a limit ended the answer")
    ] = "max_output_tokens"


class ReasoningReply(Reply, kw_only=True):
    """Reasoning settings of the request."""

    effort: Annotated[str | None, Meta(description="effort of the request")]
    summary: Annotated[str | None, Meta(description="kind of summary that the request asks for")]


class ResponseReply(Reply, kw_only=True):
    """The response."""

    id: Annotated[str, Meta(description="id of the response", examples=["resp_0c5f"])]
    object: Literal["response"] = "response"
    created_at: Annotated[int, Meta(description="when it was begun, in Unix seconds")]
    completed_at: Annotated[int | None, Meta(description="when it was completed, in Unix seconds")] = None
    status: Annotated[
        Literal["in_progress", "completed", "incomplete", "failed"],
        Meta(description="in_progress, completed, incomplete at a limit, or failed"),
    ]
    background: Annotated[bool, Meta(description="always false; there are no responses in the background")] = False
    error: Annotated[ResponseError | None, Meta(description="why it failed")] = None
    incomplete_details: Annotated[IncompleteDetails | None, Meta(description="why it is incomplete")] = None
    instructions: Annotated[str | None, Meta(description="instructions of the request")]
    max_output_tokens: Annotated[int | None, Meta(description="limit of the request, in tokens")]
    max_tool_calls: Annotated[int | None, Meta(description="as in the request; without effect")] = None
    model: Annotated[str, Meta(description="id of the model")]
    output: Annotated[list[OutputItem], Meta(description="reasoning, messages and calls, in order")]
    parallel_tool_calls: Annotated[bool, Meta(description="whether the answer may call several tools")] = True
    presence_penalty: Annotated[float, Meta(description="as in the request")] = 0.0
    frequency_penalty: Annotated[float, Meta(description="as in the request")] = 0.0
    previous_response_id: Annotated[str | None, Meta(description="the response that this one goes on with")]
    prompt_cache_key: Annotated[str | None, Meta(description="as in the request; without effect")] = None
    reasoning: Annotated[ReasoningReply, Meta(description="reasoning settings of the request")]
    safety_identifier: Annotated[str | None, Meta(description="as in the request; without effect")] = None
    service_tier: Annotated[str, Meta(description="always default")] = "default"
    store: Annotated[bool, Meta(description="whether it is stored on this machine")]
    temperature: Annotated[float, Meta(description="temperature that is used")]
    text: Annotated[dict[str, Any], Meta(description="format of the answer")]
    tool_choice: Annotated[str | dict[str, Any], Meta(description="as in the request")]
    tools: Annotated[list[dict[str, Any]], Meta(description="tools of the request")]
    top_logprobs: Annotated[int, Meta(description="as in the request")] = 0
    top_p: Annotated[float, Meta(description="top_p that is used")]
    truncation: Annotated[str, Meta(description="as in the request; nothing is dropped either way")] = "disabled"
    usage: Annotated[ResponseUsage | None, Meta(description="tokens of prompt and answer, once it has ended")] = None
    metadata: Annotated[dict[str, Any], Meta(description="metadata of the request")]


class CompactedReply(Reply, kw_only=True):
    """A conversation with a summary in the place of what the model said and did; it goes on as any response does."""

    id: Annotated[str, Meta(description="id for previous_response_id", examples=["resp_0c5f"])]
    object: Literal["response.compaction"] = "response.compaction"
    created_at: Annotated[int, Meta(description="when it was begun, in Unix seconds")]
    output: Annotated[
        list[dict[str, Any]], Meta(description="messages of user, system and developer, then the item of the summary")
    ]
    usage: Annotated[ResponseUsage | None, Meta(description="tokens of the prompt and of the summary")]


class InputTokenCount(Reply, kw_only=True):
    """Length of a prompt, in tokens."""

    object: Literal["response.input_tokens"] = "response.input_tokens"
    input_tokens: Annotated[int, Meta(description="tokens of the prompt")]


class DeletedResponse(Reply, kw_only=True):
    """The response is deleted."""

    id: Annotated[str, Meta(description="id of the response")]
    object: Literal["response"] = "response"
    deleted: Annotated[bool, Meta(description="always true")] = True


class InputItemList(Reply, kw_only=True):
    """A page of the conversation before a response."""

    object: Literal["list"] = "list"
    data: Annotated[list[dict[str, Any]], Meta(description="the items of this page")]
    first_id: Annotated[str | None, Meta(description="id of the first item of the page")]
    last_id: Annotated[str | None, Meta(description="id of the last item of the page, for `after`")]
    has_more: Annotated[bool, Meta(description="whether more items follow")]


# Events, in the order of the stream. Fields that many of them have:
ItemId = Annotated[str, Meta(description="id of the item")]
OutputIndex = Annotated[int, Meta(description="index of the item in the output")]
ContentIndex = Annotated[int, Meta(description="index of the part in the item's content")]
SummaryIndex = Annotated[int, Meta(description="index of the part in the item's summary")]
TokenTimings = Annotated[TimingsReply | UnsetType, Meta(description="how long it took so far, with timings_per_token")]


class ResponseEvent(Reply, kw_only=True):
    """Something that happened to the response."""

    sequence_number: Annotated[int, Meta(description="number of the event in the stream, from 0")] = 0


class SocketError(Reply, tag_field="type", tag="error", kw_only=True):
    """A request over a WebSocket is not accepted; the connection takes the next."""

    status: Annotated[int, Meta(description="the status that it would have over HTTP")]
    error: Annotated[ErrorDetail, Meta(description="what is wrong")]

    @classmethod
    def of(cls, error: AppError) -> "SocketError":
        """Build it from an error."""
        return cls(status=error.status, error=ErrorReply.of(error).error)


class ResponseCreated(ResponseEvent, tag_field="type", tag="response.created", kw_only=True):
    """The request is accepted."""

    response: Annotated[ResponseReply, Meta(description="the response so far")]


class ResponseInProgress(ResponseEvent, tag_field="type", tag="response.in_progress", kw_only=True):
    """The server is at work; it says so again when it has been silent for a while, and how far the prompt is."""

    response: Annotated[ResponseReply, Meta(description="the response so far")]
    prompt_progress: Annotated[
        PromptProgress | UnsetType, Meta(description="how much of the prompt is computed, with return_progress")
    ] = UNSET
    timings: Annotated[
        TimingsReply | UnsetType, Meta(description="how long it took so far, with timings_per_token")
    ] = UNSET


class ResponseCompleted(ResponseEvent, tag_field="type", tag="response.completed", kw_only=True):
    """The answer is whole."""

    response: Annotated[ResponseReply, Meta(description="the whole response")]
    timings: Annotated[TimingsReply | UnsetType, Meta(description="how long it took, as llama.cpp says it")] = UNSET


class ResponseIncomplete(ResponseEvent, tag_field="type", tag="response.incomplete", kw_only=True):
    """The answer was cut at its limit."""

    response: Annotated[ResponseReply, Meta(description="the response up to the limit")]
    timings: Annotated[TimingsReply | UnsetType, Meta(description="how long it took, as llama.cpp says it")] = UNSET


class ResponseFailed(ResponseEvent, tag_field="type", tag="response.failed", kw_only=True):
    """The answer failed midway."""

    response: Annotated[ResponseReply, Meta(description="the response with its error")]


class ItemAdded(ResponseEvent, tag_field="type", tag="response.output_item.added", kw_only=True):
    """An item begins."""

    output_index: OutputIndex
    item: Annotated[OutputItem, Meta(description="the item, still empty")]


class ItemDone(ResponseEvent, tag_field="type", tag="response.output_item.done", kw_only=True):
    """An item is whole."""

    output_index: OutputIndex
    item: Annotated[OutputItem, Meta(description="the whole item")]


class PartAdded(ResponseEvent, tag_field="type", tag="response.content_part.added", kw_only=True):
    """A part of an item begins."""

    item_id: ItemId
    output_index: OutputIndex
    content_index: ContentIndex
    part: Annotated[OutputText | ReasoningText, Meta(description="the part, still empty")]


class PartDone(ResponseEvent, tag_field="type", tag="response.content_part.done", kw_only=True):
    """A part of an item is whole."""

    item_id: ItemId
    output_index: OutputIndex
    content_index: ContentIndex
    part: Annotated[OutputText | ReasoningText, Meta(description="the whole part")]


class OutputTextDelta(ResponseEvent, tag_field="type", tag="response.output_text.delta", kw_only=True):
    """More text."""

    item_id: ItemId
    output_index: OutputIndex
    content_index: ContentIndex
    delta: Annotated[str, Meta(description="new text")]
    logprobs: Annotated[
        list[ContentLogprob], Meta(description="how likely the new tokens were, where include asks for it")
    ] = []
    timings: TokenTimings = UNSET


class OutputTextDone(ResponseEvent, tag_field="type", tag="response.output_text.done", kw_only=True):
    """The text is whole."""

    item_id: ItemId
    output_index: OutputIndex
    content_index: ContentIndex
    text: Annotated[str, Meta(description="the whole text")]
    logprobs: Annotated[
        list[ContentLogprob], Meta(description="how likely its tokens were, where include asks for it")
    ] = []


class ReasoningTextDelta(ResponseEvent, tag_field="type", tag="response.reasoning_text.delta", kw_only=True):
    """More reasoning."""

    item_id: ItemId
    output_index: OutputIndex
    content_index: ContentIndex
    delta: Annotated[str, Meta(description="new reasoning")]
    timings: TokenTimings = UNSET


class ReasoningTextDone(ResponseEvent, tag_field="type", tag="response.reasoning_text.done", kw_only=True):
    """The reasoning is whole."""

    item_id: ItemId
    output_index: OutputIndex
    content_index: ContentIndex
    text: Annotated[str, Meta(description="the whole reasoning")]


class SummaryPartAdded(ResponseEvent, tag_field="type", tag="response.reasoning_summary_part.added", kw_only=True):
    """A summary of the reasoning begins."""

    item_id: ItemId
    output_index: OutputIndex
    summary_index: SummaryIndex
    part: Annotated[SummaryText, Meta(description="the part, still empty")]


class SummaryPartDone(ResponseEvent, tag_field="type", tag="response.reasoning_summary_part.done", kw_only=True):
    """A summary of the reasoning is whole."""

    item_id: ItemId
    output_index: OutputIndex
    summary_index: SummaryIndex
    part: Annotated[SummaryText, Meta(description="the whole part")]


class SummaryTextDelta(ResponseEvent, tag_field="type", tag="response.reasoning_summary_text.delta", kw_only=True):
    """More of a summary."""

    item_id: ItemId
    output_index: OutputIndex
    summary_index: SummaryIndex
    delta: Annotated[str, Meta(description="new reasoning")]
    timings: TokenTimings = UNSET


class SummaryTextDone(ResponseEvent, tag_field="type", tag="response.reasoning_summary_text.done", kw_only=True):
    """The text of a summary is whole."""

    item_id: ItemId
    output_index: OutputIndex
    summary_index: SummaryIndex
    text: Annotated[str, Meta(description="the whole reasoning")]


class CompactionCompacting(ResponseEvent, tag_field="type", tag="response.compaction.compacting", kw_only=True):
    """The summary of the conversation is being written."""

    item_id: ItemId
    output_index: OutputIndex


class ArgumentsDelta(ResponseEvent, tag_field="type", tag="response.function_call_arguments.delta", kw_only=True):
    """More of a call's arguments."""

    item_id: ItemId
    output_index: OutputIndex
    delta: Annotated[str, Meta(description="more of the arguments, as JSON text")]


class ArgumentsDone(ResponseEvent, tag_field="type", tag="response.function_call_arguments.done", kw_only=True):
    """A call's arguments are whole."""

    item_id: ItemId
    output_index: OutputIndex
    arguments: Annotated[str, Meta(description="the whole arguments, as JSON text")]
    name: Annotated[str, Meta(description="name of the function")]


class CustomInputDelta(ResponseEvent, tag_field="type", tag="response.custom_tool_call_input.delta", kw_only=True):
    """More of the text of a custom tool's call."""

    item_id: ItemId
    output_index: OutputIndex
    delta: Annotated[str, Meta(description="more of the text that the tool is called with")]


class CustomInputDone(ResponseEvent, tag_field="type", tag="response.custom_tool_call_input.done", kw_only=True):
    """The text of a custom tool's call is whole."""

    item_id: ItemId
    output_index: OutputIndex
    input: Annotated[str, Meta(description="the whole text that the tool is called with")]
