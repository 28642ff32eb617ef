"""OpenAI's Responses: the items of a conversation, as they come in and as they go out."""

import re
import secrets
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal

from msgspec import UNSET, Meta, UnsetType
from pydantic import BeforeValidator, Field, model_validator

import app.services.generation as gen
from app.dto.openai import custom_tools
from app.dto.openai import responses_foreign as openai_responses_foreign
from app.dto.openai.part import Part, shows_media
from app.dto.openai.part import pieces as part_pieces
from app.dto.openai.responses_tools import flat_name
from app.dto.shared.base import Reply, Typed, json_text
from app.dto.shared.logprobs import ContentLogprob
from app.dto.shared.readable import as_text, with_parts
from app.dto.shared.sealed import unseal
from app.services.errors import InvalidRequest, ItemNotFound

_TEXTS = frozenset({"input_text", "output_text", "text", "summary_text", "reasoning_text"})
_OUTPUT_ID = re.compile(r"(?:msg|fc|ctc|rs)_([0-9a-f]{32})[0-9a-f]{2,4}")
_PREFIX = {
    "message": "msg",
    "function_call": "fc",
    "function_call_output": "fco",
    "custom_tool_call": "ctc",
    "custom_tool_call_output": "ctco",
    "reasoning": "rs",
    "compaction": "cmp",
}
_OUTPUTS = {"function_call_output", "custom_tool_call_output"}

Status = Literal["in_progress", "completed", "incomplete"]


# What comes in.


class ItemPart(Part):
    """A part of an item: text, or an image for a model that sees."""

    kinds: ClassVar = _TEXTS | {"refusal"}

    type: str = Field(
        examples=["input_text"],
        description="input_text, output_text, text, summary_text, reasoning_text, refusal; of others the text is read",
    )
    text: str | None = Field(default=None, description="the text")
    refusal: str | None = Field(default=None, description="the refusal, in a part of that type")

    def to_text(self, where: str, *, of_user: bool = False) -> str:
        """Give what it says. Raises InvalidRequest for images and their kin among the user's own words."""
        if not self.is_ours:
            return self.foreign_text(where, of_user=of_user)
        if self.type == "refusal":
            return self.refusal or ""
        if self.text is None:
            raise InvalidRequest(f"a part of type '{self.type}' needs 'text'", param=where)
        return self.text


class InputItem(Typed):
    """An item of the conversation. What it carries depends on its type."""

    kinds: ClassVar = frozenset({*_PREFIX, "item_reference", "compaction_trigger"} - {"compaction"})

    type: str = Field(
        default="message",
        description="message, function_call, custom_tool_call, their _output, reasoning, item_reference, or at the end "
        "compaction_trigger; of others the text is read",
    )
    id: str | None = Field(
        default=None, description="id of the item; of an item_reference, the item that it stands for"
    )
    status: Any = Field(default=None, description="status of an item that this server sent; without effect")
    role: Literal["user", "assistant", "system", "developer"] | None = Field(
        default=None, description="who speaks, in a message"
    )
    content: str | list[ItemPart] | None = Field(
        default=None, description="text or parts, in a message or in reasoning", examples=["Hello!"]
    )
    call_id: str | None = Field(default=None, description="id of the call, in a call and in its output")
    name: str | None = Field(default=None, description="name of the tool, in a call")
    namespace: str | None = Field(default=None, description="namespace of the tool, in a call")
    arguments: Annotated[Any, BeforeValidator(json_text)] = Field(
        default=None, description="of a function_call: the arguments as JSON text; a JSON value is taken too"
    )
    input: str | None = Field(default=None, description="of a custom_tool_call: the text that the tool is called with")
    output: str | list[ItemPart] | None = Field(default=None, description="what came of a call: text or parts")
    summary: list[ItemPart] = Field(default_factory=list, description="summary of the reasoning, in reasoning")

    @model_validator(mode="before")
    @classmethod
    def _bare_reference(cls, value: Any) -> Any:
        """What is nothing but an id refers to an item; its type may be left out."""
        bare = isinstance(value, dict) and {name for name in value if value[name] is not None} == {"id"}
        return value | {"type": "item_reference"} if bare else value

    @model_validator(mode="before")
    @classmethod
    def _unsealed(cls, value: Any) -> Any:
        """Read reasoning that this server has sealed, where nothing else of it came back."""
        if not isinstance(value, dict) or value.get("type") != "reasoning":
            return value
        sealed = value.get("encrypted_content")
        if not (text := unseal(sealed) if isinstance(sealed, str) else ""):
            return value
        content = value.get("content") or (None if value.get("summary") else [{"type": "reasoning_text", "text": text}])
        return {**value, "content": content, "encrypted_content": None}

    @property
    def is_ours(self) -> bool:
        """Whether it is of a kind that is described here. Reasoning that is not stored is no loss, so it is not."""
        return self.type in self.kinds and not (self.type == "item_reference" and (self.id or "").startswith("rs_"))

    @property
    def is_summary(self) -> bool:
        """Whether it is a summary that stands for what is before it."""
        return not self.is_ours and bool(openai_responses_foreign.summary_of(self.type, self.fields))

    @property
    def outlasts_summary(self) -> bool:
        """Whether no summary stands for it: the words of the user, and what everybody has to follow."""
        return self.type == "message" and self.role != "assistant"

    @property
    def left_out(self) -> Iterable[str]:
        """What of an item of another type the model does not get to read."""
        return openai_responses_foreign.silent(self.type, self.fields)

    def pieces(self, where: str, *, of_tool: bool = False) -> list[str | gen.Image]:
        """Give what a message or an output says and shows. Raises InvalidRequest for media other than images."""
        content = self.output if self.type in _OUTPUTS else self.content
        if content is None or isinstance(content, str):
            return [content or ""]
        of_user = self.type == "message" and self.role != "assistant" and not of_tool
        return part_pieces(content, f"{where}.content", of_user=of_user)

    def reasoning_text(self, where: str) -> str:
        """Give the text of a reasoning item: its own where it has one, else its summary."""
        parts = self.content if isinstance(self.content, list) and self.content else self.summary
        return "\n\n".join(part.to_text(where) for part in parts)

    def to_call(self, index: int) -> gen.ToolCall:
        """Translate a call to the engine's vocabulary, by the name that the model knows the tool by."""
        custom = self.type == "custom_tool_call"
        arguments = custom_tools.to_arguments(self.input or "") if custom else self.arguments or "{}"
        return gen.ToolCall(index, self.call_id or "", flat_name(self.namespace, self.name or ""), arguments)

    def to_stored(self) -> dict[str, Any]:
        """Give the item with an id, as /input_items lists it."""
        if self.type not in self.kinds:
            return {"id": new_item_id(self.type), "type": self.type} | self.fields
        item = self.model_dump(mode="json", exclude_unset=True) | {"type": self.type}
        if self.type == "message" and isinstance(self.content, str):
            kind = "output_text" if self.role == "assistant" else "input_text"
            item["content"] = [{"type": kind, "text": self.content}]
        return {"id": new_item_id(self.type)} | item


def to_messages(items: Sequence[InputItem], later: Sequence[InputItem] = ()) -> Iterator[gen.Message]:
    """Translate a conversation to the engine's vocabulary. Raises InvalidRequest.

    What a model thinks, says and calls are items of their own; together they are one message of the assistant. What a
    summary stands for, which may be among the items that come `later`, is left out.
    """
    turn: _Turn | None = None
    end = _end_of_summarized(items, later)
    for index, item in enumerate(items):
        if index < end and not item.outlasts_summary:
            continue
        of_tool = index > 0 and items[index - 1].type in _OUTPUTS and shows_media(item.content)
        for message in _messages_of(item, f"input.{index}", of_tool=of_tool):
            begins = item.type == "reasoning" and turn is not None and turn.has_answered
            if turn is not None and (begins or message.role != "assistant"):
                yield turn.message()
                turn = None
            if message.role != "assistant":
                yield message
                continue
            turn = turn or _Turn()
            turn.add(message)
    if turn is not None:
        yield turn.message()


def _end_of_summarized(items: Sequence[InputItem], later: Sequence[InputItem]) -> int:
    """Give the number of items that come before the last summary."""
    if any(item.is_summary for item in later):
        return len(items)
    return next((index for index in reversed(range(len(items))) if items[index].is_summary), 0)


class _Turn:
    """A message of the assistant in the making; put together once, as it may be of thousands of items."""

    def __init__(self) -> None:
        self._texts: list[str] = []
        self._reasoning: list[str] = []
        self._calls: list[gen.ToolCall] = []

    @property
    def has_answered(self) -> bool:
        """Whether words or calls stand in it already."""
        return bool(self._texts or self._calls)

    def add(self, message: gen.Message) -> None:
        self._texts += [message.content] if message.content else []
        self._reasoning += [message.reasoning] if message.reasoning else []
        self._calls += [replace(call, index=i) for i, call in enumerate(message.tool_calls, len(self._calls))]

    def message(self) -> gen.Message:
        reasoning = "\n\n".join(self._reasoning) or None
        return gen.Message("assistant", "\n".join(self._texts), reasoning=reasoning, tool_calls=tuple(self._calls))


def _messages_of(item: InputItem, where: str, *, of_tool: bool) -> Iterator[gen.Message]:
    """Give what an item says, as messages of their own."""
    if not item.is_ours:
        yield from openai_responses_foreign.messages(item.type, item.fields)
        return
    _check(item, where)
    match item.type:
        case "reasoning":
            yield gen.Message("assistant", reasoning=item.reasoning_text(where) or None)
        case "function_call" | "custom_tool_call":
            yield gen.Message("assistant", tool_calls=(item.to_call(0),))
        case "function_call_output" | "custom_tool_call_output":
            pieces = item.pieces(where)
            yield with_parts(gen.Message("tool", as_text(pieces), tool_call_id=item.call_id), pieces)
        case "message":
            role: Literal["user", "assistant"] | None = item.role if item.role in ("user", "assistant") else None
            pieces = item.pieces(where, of_tool=of_tool)
            message = gen.Message(role or "system", as_text(pieces))
            yield message if role == "assistant" else with_parts(message, pieces)


def _check(item: InputItem, where: str) -> None:
    if item.type == "item_reference":
        raise ItemNotFound(item.id or "", where)
    required_fields: dict[str, dict[str, object]] = {
        "message": {"role": item.role, "content": item.content},
        "function_call": {"call_id": item.call_id, "name": item.name},
        "custom_tool_call": {"call_id": item.call_id, "name": item.name},
        "function_call_output": {"call_id": item.call_id},
        "custom_tool_call_output": {"call_id": item.call_id},
    }
    for name, value in required_fields.get(item.type, {}).items():
        if value is None:
            raise InvalidRequest(f"an item of type {item.type} needs '{name}'", param=f"{where}.{name}")


def new_item_id(kind: str) -> str:
    """Make the id of an item that came in."""
    return f"{_PREFIX.get(kind, 'item')}_{secrets.token_hex(16)}"


def output_item_id(kind: str, response_id: str, index: int) -> str:
    """Make the id of an output item, which contains the response's."""
    return f"{_PREFIX[kind]}_{response_id.removeprefix('resp_')}{index:02x}"


def response_of(item_id: str) -> str | None:
    """Give the id of the response that an output item belongs to, None for other ids."""
    match = _OUTPUT_ID.fullmatch(item_id)
    return f"resp_{match[1]}" if match else None


# What goes out.


class OutputText(Reply, tag_field="type", tag="output_text", kw_only=True):
    """Text of the answer."""

    annotations: Annotated[list[str], Meta(description="always empty; OpenAI's field")] = []
    logprobs: Annotated[
        list[ContentLogprob], Meta(description="how likely its tokens were, where include asks for it")
    ] = []
    text: Annotated[str, Meta(description="text of the answer")]


class SummaryText(Reply, tag_field="type", tag="summary_text", kw_only=True):
    """Reasoning of the model, where the request asks for a summary."""

    text: Annotated[str, Meta(description="text of the reasoning")]


class ReasoningText(Reply, tag_field="type", tag="reasoning_text", kw_only=True):
    """Reasoning of the model."""

    text: Annotated[str, Meta(description="text of the reasoning")]


class MessageItem(Reply, tag_field="type", tag="message", kw_only=True):
    """Text of the answer."""

    id: Annotated[str, Meta(description="id of the item")]
    role: Annotated[Literal["assistant"], Meta(description="always assistant")] = "assistant"
    status: Annotated[Status, Meta(description="in_progress, completed, or incomplete at a limit")]
    content: Annotated[list[OutputText], Meta(description="the text of the answer")]


class ReasoningItem(Reply, tag_field="type", tag="reasoning", kw_only=True):
    """Reasoning of the model: as a summary where the request asks for one, else as it is."""

    id: Annotated[str, Meta(description="id of the item")]
    status: Annotated[Status, Meta(description="in_progress, completed, or incomplete at a limit")]
    summary: Annotated[list[SummaryText], Meta(description="the reasoning, where reasoning.summary asks for it")]
    content: Annotated[list[ReasoningText], Meta(description="the reasoning, else")]
    encrypted_content: Annotated[
        str, Meta(description="the reasoning once more, encoded, where include asks for it; else empty")
    ] = ""


class FunctionCallItem(Reply, tag_field="type", tag="function_call", kw_only=True):
    """A call of the model."""

    id: Annotated[str, Meta(description="id of the item")]
    call_id: Annotated[str, Meta(description="id of the call, to which its output refers")]
    namespace: Annotated[str | UnsetType, Meta(description="namespace of the function; absent without one")] = UNSET
    name: Annotated[str, Meta(description="name of the function")]
    arguments: Annotated[str, Meta(description="the arguments as JSON text")]
    status: Annotated[Status, Meta(description="in_progress, completed, or incomplete where the arguments break off")]


class CustomToolCallItem(Reply, tag_field="type", tag="custom_tool_call", kw_only=True):
    """A call of the model with free text."""

    id: Annotated[str, Meta(description="id of the item")]
    call_id: Annotated[str, Meta(description="id of the call, to which its output refers")]
    namespace: Annotated[str | UnsetType, Meta(description="namespace of the tool; absent without one")] = UNSET
    name: Annotated[str, Meta(description="name of the tool")]
    input: Annotated[str, Meta(description="the text that it is called with")]
    status: Annotated[Status, Meta(description="in_progress, completed, or incomplete where the text breaks off")]


class CompactionItem(Reply, tag_field="type", tag="compaction", kw_only=True):
    """A summary of the conversation, which stands for it where the item is sent back."""

    id: Annotated[str, Meta(description="id of the item")]
    encrypted_content: Annotated[str, Meta(description="the summary, to be sent back as it is; it is no secret")]


AnswerItem = MessageItem | ReasoningItem | FunctionCallItem | CustomToolCallItem
OutputItem = AnswerItem | CompactionItem


def input_of(items: Iterable[dict[str, Any]]) -> list[InputItem]:
    """Read stored items again, those that a model wrote too."""
    return [InputItem.model_validate(item) for item in items]
