"""The messages and tools of a chat request."""

from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator, model_validator

import app.services.generation as gen
from app.dto.openai import custom_tools
from app.dto.openai.custom_tools import CustomFormat
from app.dto.openai.part import Part, shows_media
from app.dto.openai.part import pieces as part_pieces
from app.dto.shared.base import Body, Typed, json_text
from app.dto.shared.readable import as_text, with_parts
from app.services.errors import InvalidRequest

T = TypeVar("T")


class ContentPart(Part):
    """A part of a message: text, or an image for a model that sees."""

    kinds: ClassVar = frozenset({"text", "refusal"})

    type: str = Field(
        examples=["text"], description="`text` or `refusal`; parts of other types are read where there is text in them"
    )
    text: str | None = Field(default=None, description="the text, in a part of type text")
    refusal: str | None = Field(default=None, description="the refusal, in a part of type refusal")

    def to_text(self, where: str, *, of_user: bool) -> str:
        """Give what it says. Raises InvalidRequest for images and their kin among the user's own words."""
        if not self.is_ours:
            return self.foreign_text(where, of_user=of_user)
        text = self.refusal if self.type == "refusal" else self.text
        if text is None:
            raise InvalidRequest(f"a part of type '{self.type}' needs '{self.type}'", param=where)
        return text


class FunctionCall(Body):
    """What to call, and with what."""

    name: str = Field(description="name of the function")
    arguments: Annotated[Any, BeforeValidator(json_text)] = Field(
        default="{}", description="the arguments as JSON text; a JSON value is taken too"
    )


def _require(value: T | None, info: ValidationInfo) -> T | None:
    """What is called by its type has to be there."""
    if value is None and info.data.get("type") == info.field_name:
        raise ValueError("Field required")
    return value


class CustomCall(Body):
    """What to call, and with which text."""

    name: str = Field(description="name of the tool")
    input: str = Field(default="", description="the text that it is called with")


class AssistantToolCall(Typed):
    """A call that the model made earlier."""

    kinds: ClassVar = frozenset({"function", "custom"})

    id: str = Field(default="", description="id of the call, to which its result refers")
    type: str = Field(default="function", examples=["function"], description="`function` or `custom`")
    function: FunctionCall | None = Field(
        default=None, validate_default=True, description="what was called, for type function"
    )
    custom: CustomCall | None = Field(
        default=None, validate_default=True, description="what was called, for type custom"
    )

    _of_its_type = field_validator("function", "custom")(_require)

    def to_call(self, index: int) -> gen.ToolCall:
        """Translate to the engine's vocabulary."""
        if self.type == "custom" and self.custom is not None:
            return gen.ToolCall(index, self.id, self.custom.name, custom_tools.to_arguments(self.custom.input))
        assert self.function is not None
        return gen.ToolCall(index, self.id, self.function.name, self.function.arguments)


_TOOLS = frozenset({"tool", "function"})
_ROLES = {"developer": "system", "function": "tool"}


class ChatMessage(Body):
    """One message of the conversation."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"] = Field(
        description="who speaks; developer is the same as system, function is the old name of tool"
    )
    content: str | list[ContentPart] | None = Field(
        default=None,
        examples=["Hello!"],
        description="text, or a list of parts; may be null for an assistant that calls tools",
    )
    reasoning_content: str | None = Field(
        default=None, description="the reasoning of an earlier answer, for chat templates that read it"
    )
    refusal: str | None = Field(default=None, description="what the assistant said instead of content")
    tool_calls: list[AssistantToolCall] = Field(default_factory=list, description="tools that the assistant called")
    function_call: FunctionCall | None = Field(
        default=None, description="old form of tool_calls with one call, answered by a message of role function"
    )
    tool_call_id: str | None = Field(
        default=None, description="the call that a tool message answers; absent, the next one without an answer"
    )
    name: str | None = Field(default=None, description="name of the speaker, for chat templates that read it")

    @model_validator(mode="after")
    def _complete(self) -> "ChatMessage":
        if self.content is None and self.role in {"system", "developer", "user"}:
            raise ValueError(f"a {self.role} message needs 'content'")
        return self

    @property
    def calls(self) -> tuple[gen.ToolCall, ...]:
        """The calls of the assistant, function_call too."""
        calls = [call.to_call(index) for index, call in enumerate(call for call in self.tool_calls if call.is_ours)]
        if self.function_call is not None and not calls:
            calls = [gen.ToolCall(0, "", self.function_call.name, self.function_call.arguments)]
        return tuple(calls)

    def to_message(self, index: int, before: "ChatMessage | None" = None) -> gen.Message:
        """Translate to the engine's vocabulary, behind another. Raises InvalidRequest for media other than images."""
        of_tool = before is not None and before.role in _TOOLS and shows_media(self.content)
        pieces = self._pieces(index, of_user=not of_tool and self.role not in {"assistant", *_TOOLS})
        message = gen.Message(
            role=_ROLES.get(self.role, self.role),  # type: ignore[arg-type]
            content=as_text(pieces),
            reasoning=self.reasoning_content,
            tool_calls=self.calls,
            tool_call_id=self.tool_call_id,
            name=self.name,
        )
        return message if self.role == "assistant" else with_parts(message, pieces)

    def _pieces(self, index: int, *, of_user: bool) -> list[str | gen.Image]:
        if self.content is None or isinstance(self.content, str):
            return [self.content or self.refusal or ""]
        return part_pieces(self.content, f"messages.{index}.content", of_user=of_user)


class FunctionDefinition(Body):
    """A function that the model may call."""

    name: str = Field(min_length=1, max_length=256, description="name of the function")
    description: str = Field(default="", description="what the function does, for the model")
    parameters: dict[str, Any] = Field(default_factory=dict, description="JSON schema of the arguments")
    strict: bool = Field(default=False, description="enforce the schema of the arguments")


class CustomDefinition(Body):
    """A tool that is called with free text."""

    name: str = Field(min_length=1, max_length=256, description="name of the tool")
    description: str = Field(default="", description="what the tool does, for the model")
    format: CustomFormat | None = Field(
        default=None, description="text, or a grammar, which is shown to the model and not enforced"
    )


class Tool(Typed):
    """A tool that the model may use; those of other types are left out."""

    kinds: ClassVar = frozenset({"function", "custom"})

    type: str = Field(
        default="function",
        examples=["function"],
        description="`function` or `custom`; tools of other types are left out",
    )
    function: FunctionDefinition | None = Field(
        default=None, validate_default=True, description="the function, for type function"
    )
    custom: CustomDefinition | None = Field(
        default=None, validate_default=True, description="the tool, for type custom"
    )

    _of_its_type = field_validator("function", "custom")(_require)

    @property
    def name(self) -> str:
        """What the model calls it; nothing for a tool that is left out."""
        definition = self.custom if self.type == "custom" else self.function
        return definition.name if definition is not None else ""

    def to_template(self) -> dict[str, Any]:
        """Give the tool as chat templates read it."""
        if self.type == "custom" and self.custom is not None:
            return custom_tools.to_function(self.custom.name, self.custom.description, self.custom.format)
        unread: Any = {
            "custom": True,
            "cache_control": True,
            "function": {"cache_control"},
        }  # it moves, and says nothing
        return self.model_dump(exclude_none=True, exclude_unset=True, exclude=unread) | {"type": "function"}
