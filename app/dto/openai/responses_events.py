"""OpenAI's Responses: the response and the events of its stream."""

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, UnsetType

from app.dto.openai.responses_items import OutputItem, OutputText, ReasoningText, SummaryText
from app.dto.shared.base import Reply
from app.dto.shared.logprobs import ContentLogprob
from app.dto.shared.usage import PromptProgress, TimingsReply


class InputTokensDetails(Reply, kw_only=True):
    """What the prompt cost."""

    cached_tokens: Annotated[int, Meta(description="tokens that were computed for an earlier request")]
    cache_write_tokens: int = 0


class OutputTokensDetails(Reply, kw_only=True):
    """What the answer cost."""

    reasoning_tokens: int


class ResponseUsage(Reply, kw_only=True):
    """Tokens in and out."""

    input_tokens: int
    input_tokens_details: InputTokensDetails
    output_tokens: int
    output_tokens_details: OutputTokensDetails
    total_tokens: int


class ResponseError(Reply, kw_only=True):
    """Why a response failed."""

    code: str
    message: str


class IncompleteDetails(Reply, kw_only=True):
    """Why a response is not complete."""

    reason: Literal["max_output_tokens"] = "max_output_tokens"


class ReasoningReply(Reply, kw_only=True):
    """How it was to think."""

    effort: str | None
    summary: str | None


class ResponseReply(Reply, kw_only=True):
    """The response."""

    id: Annotated[str, Meta(examples=["resp_0c5f"])]
    object: Literal["response"] = "response"
    created_at: int
    completed_at: int | None = None
    status: Literal["in_progress", "completed", "incomplete", "failed"]
    background: bool = False
    error: ResponseError | None = None
    incomplete_details: IncompleteDetails | None = None
    instructions: str | None
    max_output_tokens: int | None
    max_tool_calls: int | None = None
    model: str
    output: list[OutputItem]
    parallel_tool_calls: bool = True
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    previous_response_id: str | None
    prompt_cache_key: str | None = None
    reasoning: ReasoningReply
    safety_identifier: str | None = None
    service_tier: str = "default"
    store: bool
    temperature: Annotated[float, Meta(description="what is used")]
    text: dict[str, Any]
    tool_choice: str | dict[str, Any]
    tools: list[dict[str, Any]]
    top_logprobs: int = 0
    top_p: Annotated[float, Meta(description="what is used")]
    truncation: str = "disabled"
    usage: ResponseUsage | None = None
    metadata: dict[str, Any]


class InputTokenCount(Reply, kw_only=True):
    """How long a prompt is."""

    object: Literal["response.input_tokens"] = "response.input_tokens"
    input_tokens: int


class DeletedResponse(Reply, kw_only=True):
    """A response is no longer kept."""

    id: str
    object: Literal["response"] = "response"
    deleted: bool = True


class InputItemList(Reply, kw_only=True):
    """What a response answered."""

    object: Literal["list"] = "list"
    data: list[dict[str, Any]]
    first_id: str | None
    last_id: str | None
    has_more: bool


# Events. Every one has its place in the stream.


class ResponseEvent(Reply, kw_only=True):
    """Something that happened to the response."""

    sequence_number: int = 0


class ResponseCreated(ResponseEvent, tag_field="type", tag="response.created", kw_only=True):
    """The request is accepted."""

    response: ResponseReply


class ResponseInProgress(ResponseEvent, tag_field="type", tag="response.in_progress", kw_only=True):
    """The server is at work; it says so again when it has been silent for a while, and how far the prompt is."""

    response: ResponseReply
    prompt_progress: Annotated[PromptProgress | UnsetType, Meta(description="with return_progress")] = UNSET
    timings: Annotated[TimingsReply | UnsetType, Meta(description="with timings_per_token")] = UNSET


class ResponseCompleted(ResponseEvent, tag_field="type", tag="response.completed", kw_only=True):
    """The answer is whole."""

    response: ResponseReply
    timings: TimingsReply | UnsetType = UNSET


class ResponseIncomplete(ResponseEvent, tag_field="type", tag="response.incomplete", kw_only=True):
    """The answer was cut at its limit."""

    response: ResponseReply
    timings: TimingsReply | UnsetType = UNSET


class ResponseFailed(ResponseEvent, tag_field="type", tag="response.failed", kw_only=True):
    """The answer failed in its middle."""

    response: ResponseReply


class ItemAdded(ResponseEvent, tag_field="type", tag="response.output_item.added", kw_only=True):
    """An item begins."""

    output_index: int
    item: OutputItem


class ItemDone(ResponseEvent, tag_field="type", tag="response.output_item.done", kw_only=True):
    """An item is whole."""

    output_index: int
    item: OutputItem


class PartAdded(ResponseEvent, tag_field="type", tag="response.content_part.added", kw_only=True):
    """A part of an item begins."""

    item_id: str
    output_index: int
    content_index: int
    part: OutputText | ReasoningText


class PartDone(ResponseEvent, tag_field="type", tag="response.content_part.done", kw_only=True):
    """A part of an item is whole."""

    item_id: str
    output_index: int
    content_index: int
    part: OutputText | ReasoningText


class OutputTextDelta(ResponseEvent, tag_field="type", tag="response.output_text.delta", kw_only=True):
    """More text."""

    item_id: str
    output_index: int
    content_index: int
    delta: str
    logprobs: list[ContentLogprob] = []
    timings: Annotated[TimingsReply | UnsetType, Meta(description="with timings_per_token")] = UNSET


class OutputTextDone(ResponseEvent, tag_field="type", tag="response.output_text.done", kw_only=True):
    """The text is whole."""

    item_id: str
    output_index: int
    content_index: int
    text: str
    logprobs: list[ContentLogprob] = []


class ReasoningTextDelta(ResponseEvent, tag_field="type", tag="response.reasoning_text.delta", kw_only=True):
    """More thoughts."""

    item_id: str
    output_index: int
    content_index: int
    delta: str
    timings: Annotated[TimingsReply | UnsetType, Meta(description="with timings_per_token")] = UNSET


class ReasoningTextDone(ResponseEvent, tag_field="type", tag="response.reasoning_text.done", kw_only=True):
    """The thoughts are whole."""

    item_id: str
    output_index: int
    content_index: int
    text: str


class SummaryPartAdded(ResponseEvent, tag_field="type", tag="response.reasoning_summary_part.added", kw_only=True):
    """A summary of the thoughts begins."""

    item_id: str
    output_index: int
    summary_index: int
    part: SummaryText


class SummaryPartDone(ResponseEvent, tag_field="type", tag="response.reasoning_summary_part.done", kw_only=True):
    """A summary of the thoughts is whole."""

    item_id: str
    output_index: int
    summary_index: int
    part: SummaryText


class SummaryTextDelta(ResponseEvent, tag_field="type", tag="response.reasoning_summary_text.delta", kw_only=True):
    """More of a summary."""

    item_id: str
    output_index: int
    summary_index: int
    delta: str
    timings: Annotated[TimingsReply | UnsetType, Meta(description="with timings_per_token")] = UNSET


class SummaryTextDone(ResponseEvent, tag_field="type", tag="response.reasoning_summary_text.done", kw_only=True):
    """The text of a summary is whole."""

    item_id: str
    output_index: int
    summary_index: int
    text: str


class ArgumentsDelta(ResponseEvent, tag_field="type", tag="response.function_call_arguments.delta", kw_only=True):
    """More of a call's arguments."""

    item_id: str
    output_index: int
    delta: str


class ArgumentsDone(ResponseEvent, tag_field="type", tag="response.function_call_arguments.done", kw_only=True):
    """A call's arguments are whole."""

    item_id: str
    output_index: int
    arguments: str
    name: str


class CustomInputDelta(ResponseEvent, tag_field="type", tag="response.custom_tool_call_input.delta", kw_only=True):
    """More of the text of a custom tool's call."""

    item_id: str
    output_index: int
    delta: str


class CustomInputDone(ResponseEvent, tag_field="type", tag="response.custom_tool_call_input.done", kw_only=True):
    """The text of a custom tool's call is whole."""

    item_id: str
    output_index: int
    input: str
