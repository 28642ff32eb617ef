"""The messages and tools of a chat request."""

import json
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

import app.services.generation as gen
from app.dto.base import Body
from app.services.errors import InvalidRequest

_MEDIA = {"image_url": "images", "input_audio": "audio", "input_video": "video", "file": "files"}


class ContentPart(Body):
    """A part of a message; this server takes text."""

    type: str = Field(examples=["text"])
    text: str | None = None
    refusal: str | None = None


class FunctionCall(Body):
    """What to call, and with what."""

    name: str
    arguments: str = Field(default="{}", description="JSON text")

    @field_validator("arguments", mode="before")
    @classmethod
    def _as_text(cls, arguments: Any) -> Any:
        """Take what some clients send instead of its text."""
        return arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)


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
    tool_call_id: str | None = Field(default=None, description="of a tool message: the call it answers, else the next")
    name: str | None = None

    @model_validator(mode="after")
    def _complete(self) -> "ChatMessage":
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
