"""OpenAI's Responses: the items of a conversation, as they come in and as they go out."""

import re
import secrets
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal

from pydantic import Field

import app.services.generation as gen
from app.dto.base import Body, Reply
from app.dto.logprobs import ContentLogprob
from app.services.errors import InvalidRequest, UnsupportedParameter

_MEDIA = {"input_image": "images", "input_file": "files", "input_audio": "audio", "computer_screenshot": "screenshots"}
_TEXTS = {"input_text", "output_text", "text", "summary_text", "reasoning_text"}
_OUTPUT_ID = re.compile(r"(?:msg|fc|rs)_([0-9a-f]{32})[0-9a-f]{2,4}")
_PREFIX = {"message": "msg", "function_call": "fc", "function_call_output": "fco", "reasoning": "rs"}

Status = Literal["in_progress", "completed", "incomplete"]


# What comes in.


class ItemPart(Body):
    """A part of an item; this server takes text."""

    type: str = Field(examples=["input_text"])
    text: str | None = None
    refusal: str | None = None


class InputItem(Body):
    """An item of the conversation. What it carries depends on its type."""

    type: str = Field(
        default="message", description="message, function_call, function_call_output, reasoning or item_reference"
    )
    id: str | None = None
    role: Literal["user", "assistant", "system", "developer"] | None = Field(default=None, description="of a message")
    content: str | list[ItemPart] | None = Field(default=None, description="of a message", examples=["Hello!"])
    call_id: str | None = Field(default=None, description="of a function call and of its output")
    name: str | None = Field(default=None, description="of a function call")
    arguments: str | None = Field(default=None, description="of a function call: JSON text")
    output: str | list[ItemPart] | None = Field(default=None, description="of a function_call_output")
    summary: list[ItemPart] = Field(default_factory=list, description="of reasoning")

    def text(self, where: str) -> str:
        """Give what a message or an output says. Raises InvalidRequest for parts that are no text."""
        said = self.output if self.type == "function_call_output" else self.content
        if said is None or isinstance(said, str):
            return said or ""
        return "\n".join(_part_text(part, f"{where}.content.{place}") for place, part in enumerate(said))

    def thoughts(self, where: str) -> str:
        """Give what a reasoning item thinks: its own words where they are there, else their summary."""
        parts = self.content if isinstance(self.content, list) and self.content else self.summary
        return "\n\n".join(_part_text(part, where) for part in parts)

    def stored(self) -> dict[str, Any]:
        """Spell it with an id, as /input_items lists it."""
        item = self.model_dump(mode="json", exclude_unset=True) | {"type": self.type}
        if self.type == "message" and isinstance(self.content, str):
            kind = "output_text" if self.role == "assistant" else "input_text"
            item["content"] = [{"type": kind, "text": self.content}]
        return {"id": new_item_id(self.type)} | item


def _part_text(part: ItemPart, where: str) -> str:
    if part.type in _MEDIA:
        raise InvalidRequest(f"This model reads text only, it cannot take {_MEDIA[part.type]}", param=where)
    if part.type == "refusal":
        return part.refusal or ""
    if part.type not in _TEXTS:
        raise InvalidRequest(f"'{part.type[:64]}' is no content part that this server knows", param=where)
    if part.text is None:
        raise InvalidRequest(f"a part of type '{part.type}' needs 'text'", param=where)
    return part.text


def to_messages(items: Sequence[InputItem]) -> Iterator[gen.Message]:
    """Say a conversation in the common vocabulary. Raises InvalidRequest.

    What a model thinks, says and calls are items of their own; together they are one message of the assistant.
    """
    turn: _Turn | None = None
    for place, item in enumerate(items):
        where = f"input.{place}"
        _check(item, where)
        if item.type == "function_call_output" or (item.type == "message" and item.role != "assistant"):
            if turn is not None:
                yield turn.message()
                turn = None
            yield _other(item, where)
            continue
        if turn is not None and item.type == "reasoning" and (turn.texts or turn.calls):
            yield turn.message()
            turn = None
        turn = turn or _Turn()
        turn.add(item, where)
    if turn is not None:
        yield turn.message()


def _check(item: InputItem, where: str) -> None:
    if item.type == "item_reference":
        raise InvalidRequest(f"Item with id '{(item.id or '')[:64]}' not found", param=where, code="item_not_found")
    if item.type not in _PREFIX:
        raise UnsupportedParameter(where, f"of type '{item.type[:64]}' is not supported")
    needed: dict[str, dict[str, object]] = {
        "message": {"role": item.role, "content": item.content},
        "function_call": {"call_id": item.call_id, "name": item.name},
        "function_call_output": {"call_id": item.call_id, "output": item.output},
    }
    for name, value in needed.get(item.type, {}).items():
        if value is None:
            raise InvalidRequest(f"an item of type {item.type} needs '{name}'", param=f"{where}.{name}")


def _other(item: InputItem, where: str) -> gen.Message:
    if item.type == "function_call_output":
        return gen.Message("tool", item.text(where), tool_call_id=item.call_id)
    return gen.Message("user" if item.role == "user" else "system", item.text(where))


class _Turn:
    """A message of the assistant in the making; put together once, as it may be of thousands of items."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.calls: list[gen.ToolCall] = []
        self._thoughts: list[str] = []

    def add(self, item: InputItem, where: str) -> None:
        match item.type:
            case "reasoning":
                self._thoughts.append(item.thoughts(where))
            case "function_call":
                number = len(self.calls)
                self.calls.append(gen.ToolCall(number, item.call_id or "", item.name or "", item.arguments or "{}"))
            case _ if text := item.text(where):
                self.texts.append(text)

    def message(self) -> gen.Message:
        thoughts = "\n\n".join(thought for thought in self._thoughts if thought)
        text = "\n".join(self.texts)
        return gen.Message("assistant", text, reasoning=thoughts or None, tool_calls=tuple(self.calls))


def new_item_id(kind: str) -> str:
    """Make the id of an item that came in."""
    return f"{_PREFIX.get(kind, 'item')}_{secrets.token_hex(16)}"


def output_item_id(kind: str, response_id: str, place: int) -> str:
    """Make the id of an item that goes out; the response can be told from it."""
    return f"{_PREFIX[kind]}_{response_id.removeprefix('resp_')}{place:02x}"


def response_of(item_id: str) -> str | None:
    """Give the id of the response that an item went out with, None if the id does not tell."""
    found = _OUTPUT_ID.fullmatch(item_id)
    return f"resp_{found[1]}" if found else None


# What goes out.


class OutputText(Reply, tag_field="type", tag="output_text", kw_only=True):
    """What the model says."""

    annotations: list[str] = []
    logprobs: list[ContentLogprob] = []
    text: str


class SummaryText(Reply, tag_field="type", tag="summary_text", kw_only=True):
    """What the model thinks, where a summary was asked for."""

    text: str


class ReasoningText(Reply, tag_field="type", tag="reasoning_text", kw_only=True):
    """What the model thinks."""

    text: str


class MessageItem(Reply, tag_field="type", tag="message", kw_only=True):
    """Words of the model."""

    id: str
    role: Literal["assistant"] = "assistant"
    status: Status
    content: list[OutputText]


class ReasoningItem(Reply, tag_field="type", tag="reasoning", kw_only=True):
    """Thoughts of the model: as a summary where one was asked for, else as they are."""

    id: str
    status: Status
    summary: list[SummaryText]
    content: list[ReasoningText]
    encrypted_content: str = ""


class FunctionCallItem(Reply, tag_field="type", tag="function_call", kw_only=True):
    """A call of the model."""

    id: str
    call_id: str
    name: str
    arguments: str
    status: Status


OutputItem = MessageItem | ReasoningItem | FunctionCallItem


def input_of(items: Iterable[dict[str, Any]]) -> list[InputItem]:
    """Read stored items again, those that a model wrote too."""
    return [InputItem.model_validate(item) for item in items]
