"""What all dialects share: how bodies are read, how replies are written, and what a stream is."""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Self, cast

import msgspec
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    ModelWrapValidatorHandler,
    ValidationInfo,
    model_validator,
)
from pydantic_core import CoreSchema

from app.dto.shared import parameters
from app.dto.shared.readable import IMAGES
from app.services.errors import AppError, InvalidRequest, UnprocessableBody
from app.services.generation import Event, ImageUse, Message, ToolCall
from app.services.json_schema.enforcement import Binding

MOST_TOOLS = 4096  # in one request
_MOST_FIELDS = 1024  # of one object, with those that nobody knows


def _parts(schema: Any) -> Iterator[dict[str, Any]]:
    """Give every schema inside of a schema."""
    children = schema.values() if isinstance(schema, dict) else schema
    for child in children:
        if isinstance(child, dict | list | tuple):
            yield from _parts(child)
    if isinstance(schema, dict):
        yield schema


_ODD = re.compile("[^A-Za-z0-9_.-]")


class Body(BaseModel):
    """A request body: null means absent, unknown fields are kept aside, types are not converted.

    Of a list the first wrong item is named and none after it: a long list of wrong items would be as many errors.
    """

    # What checks a body is made for the first of its kind: all together take a tenth of a start.
    model_config = ConfigDict(strict=True, extra="allow", frozen=True, defer_build=True)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Have every list in the schema end at its first error."""
        schema = handler(source)
        for part in _parts(schema):
            if part.get("type") == "list":
                part["fail_fast"] = True
        return schema

    @model_validator(mode="before")
    @classmethod
    def _drop_nulls(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        if len(value) > _MOST_FIELDS:
            raise ValueError(f"more than {_MOST_FIELDS} fields")
        return {k: v for k, v in value.items() if v is not None}


class RequestBody(Body):
    """The body of a dialect whose parameters stand in a registry."""

    registry: ClassVar[tuple[parameters.Parameter, ...]]

    @cached_property
    def ignored(self) -> str:
        """What the client sent and has no effect, for the header. Images have one if the model saw them."""
        inner = [*self._unknown(), *self.binding.not_held()]
        if self.image_use.seen:
            inner = [name for name in inner if name.rpartition(".")[2] not in IMAGES]
        return parameters.ignored(self.registry, self._sent_fields(), inner)

    @cached_property
    def image_use(self) -> ImageUse:
        """What becomes of its images."""
        return ImageUse()

    def refuse(self) -> None:
        """Raise UnsupportedParameter for what the client sent and is refused."""
        parameters.check(self.registry, self._sent_fields())

    def _unknown(self) -> Iterator[str]:
        """Name what stands inside of parameters and has no effect."""
        return _unknown(self)

    @cached_property
    def binding(self) -> Binding:
        """Give the constraints on the answer. Raises InvalidRequest for two that exclude each other."""
        return Binding()

    def _sent_fields(self) -> dict[str, Any]:
        """The fields that the client sent, unknown ones too."""
        fields = {name: getattr(self, name) for name in self.model_fields_set if name in type(self).model_fields}
        return fields | (self.model_extra or {})


class Typed(Body):
    """One of several kinds of things. One of a kind that is not ours keeps its fields as they came, unchecked.

    What a conversation or a list of tools has of other kinds must not keep the rest from being answered.
    """

    kinds: ClassVar[frozenset[str]]

    type: str = Field(description="the kind of thing that it is")

    @model_validator(mode="wrap")
    @classmethod
    def _of_another_kind(cls, value: Any, validate: ModelWrapValidatorHandler[Self]) -> Self:
        kind = value.get("type") if isinstance(value, dict) else None
        if not isinstance(kind, str) or kind in cls.kinds:
            return validate(value)
        thing = cast(Self, cls.model_construct(type=kind))
        thing.fields.update((name, field) for name, field in value.items() if name != "type" and field is not None)
        return thing

    @property
    def is_ours(self) -> bool:
        """Whether it is of a kind that is described here."""
        return self.type in self.kinds

    @property
    def fields(self) -> dict[str, Any]:
        """The fields that no dialect knows; of a thing that is not ours, all but its type."""
        extra = self.model_extra
        assert extra is not None  # of a class that allows them
        return extra

    @property
    def left_out(self) -> Iterable[str]:
        """What of a thing that is not ours the model does not get to read, for the header."""
        return (self.type,)


def _unknown(body: BaseModel, path: str = "") -> Iterator[str]:
    """Name what is inside of parameters and has no effect: `messages.content.cache_control`, `tools.web_search`."""
    for name in body.model_fields_set - (body.model_extra or {}).keys():
        value = getattr(body, name)
        for child in value if isinstance(value, list) else (value,):
            if isinstance(child, Typed) and not child.is_ours:
                yield from (f"{path}{name}.{_ODD.sub('_', inner)[:64]}" for inner in child.left_out)
            elif isinstance(child, BaseModel):
                extras = child.model_extra or {}
                yield from (f"{path}{name}.{field}" for field, v in extras.items() if not parameters.is_nothing(v))
                yield from _unknown(child, f"{path}{name}.")


class Reply(msgspec.Struct):
    """A reply: a field of UNSET is left out, every other is written."""


class Dialect:
    """How a stream encodes events, silence and a late failure. A tagged reply is an event of that name."""

    lines: ClassVar[bool] = False  # lines of JSON in the place of server-sent events
    end: ClassVar[bytes] = b""  # what follows the last event
    beside_error: ClassVar[dict[str, Any]] = {"choices": []}  # in the event of a late failure

    def feed(self, event: Event) -> Iterator[Reply | dict[str, Any]]:
        """Give the replies for an event of the engine, in order."""
        raise NotImplementedError

    def add(self, event: Event) -> None:
        """Take an event in without sending it: the whole answer is a fold over the stream."""
        for _ in self.feed(event):
            pass

    def silence(self) -> Reply | None:
        """Give the event that keeps a silent stream alive; None is a comment line."""
        return None

    def failure(self, error: AppError) -> Reply | None:
        """Give the event of an answer that fails midway; None is OpenAI's error event, without the end."""
        return None


def json_text(value: Any) -> Any:
    """Encode what some clients send instead of JSON text, such as the arguments of a call."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def object_text(arguments: str) -> str:
    """Give the arguments of a call as an object, as they were written; what is none is handed over as a text."""
    values = ToolCall(0, "", "", arguments).values
    return json.dumps({"arguments": arguments}) if values is None else arguments


def no_empty_stop(stop: str | list[str] | None) -> str | list[str] | None:
    """Give stop strings as they came. Raises ValueError for an empty one, which would end every answer."""
    if stop == "" or (isinstance(stop, list) and "" in stop):
        raise ValueError("a stop string may not be empty")
    return stop


def few_messages(messages: Any, info: ValidationInfo) -> Any:
    """Count the messages of a body before any is looked at. Raises ValueError for too many."""
    if isinstance(messages, list) and isinstance(info.context, RequestLimits) and len(messages) > info.context.messages:
        raise ValueError(f"more than {info.context.messages} messages")
    return messages


def continues(last: Message) -> bool:
    """Whether the answer goes on with the last message, which is the assistant's then.

    Raises InvalidRequest for one that calls tools: it cannot be gone on with before their results are there.
    """
    if last.role == "assistant" and last.tool_calls:
        raise InvalidRequest("the last message calls tools; their results are missing", param="messages")
    return last.role == "assistant"


@dataclass(frozen=True, slots=True)
class RequestLimits:
    """What a request may ask at most."""

    messages: int = 4096
    stop_strings: int = 256
    stop_length: int = 4096  # bytes
    choices: int = 64

    def check_messages(self, messages: Sequence[Any], param: str) -> None:
        """Raise UnprocessableBody for a conversation that is too long."""
        if len(messages) > self.messages:
            raise UnprocessableBody(f"more than {self.messages} messages", param=param)

    def check_stop(self, stop: Sequence[str], param: str) -> None:
        """Raise UnprocessableBody for too many stop strings, or one that is too long."""
        if len(stop) > self.stop_strings:
            raise UnprocessableBody(f"more than {self.stop_strings} stop strings", param=param)
        if any(len(text.encode()) > self.stop_length for text in stop):
            raise UnprocessableBody(f"a stop string longer than {self.stop_length} bytes", param=param)
