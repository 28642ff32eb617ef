"""What all dialects share: how bodies are read, how replies are written, and what a stream is."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import msgspec
from pydantic import BaseModel, ConfigDict, model_validator

from app.dto import parameters
from app.services.errors import AppError, UnprocessableBody
from app.services.generation import Event


class Body(BaseModel):
    """A request body: null means absent, unknown fields are kept aside, types are not converted."""

    model_config = ConfigDict(strict=True, extra="allow", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _drop_nulls(cls, value: Any) -> Any:
        return {k: v for k, v in value.items() if v is not None} if isinstance(value, dict) else value


class RequestBody(Body):
    """The body of a dialect whose parameters stand in a registry."""

    registry: ClassVar[tuple[parameters.Parameter, ...]]

    @property
    def ignored(self) -> str:
        """What was given and has no effect, for the header."""
        return parameters.ignored(self.registry, self._given(), self._unknown())

    def refuse(self) -> None:
        """Raise UnsupportedParameter for what was given and is not honoured."""
        parameters.check(self.registry, self._given())

    def _unknown(self) -> Iterator[str]:
        """Name what stands inside of parameters and has no effect."""
        return _unknown(self)

    def _given(self) -> dict[str, Any]:
        """What the client wrote, unknown fields too."""
        given = {name: getattr(self, name) for name in self.model_fields_set if name in type(self).model_fields}
        return given | (self.model_extra or {})


def _unknown(body: BaseModel, path: str = "") -> Iterator[str]:
    """Name the fields inside of parameters that no dialect knows: `messages.content.cache_control`."""
    for name in body.model_fields_set - (body.model_extra or {}).keys():
        value = getattr(body, name)
        for child in value if isinstance(value, list) else (value,):
            if isinstance(child, BaseModel):
                yield from (f"{path}{name}.{unknown}" for unknown in child.model_extra or ())
                yield from _unknown(child, f"{path}{name}.")


class Reply(msgspec.Struct):
    """A reply: a field of UNSET is left out, every other is written."""


class Dialect:
    """How a stream says events, silence and a late failure. A tagged reply is an event of that name."""

    end: ClassVar[bytes] = b""  # what follows the last event
    beside_error: ClassVar[dict[str, Any]] = {"choices": []}  # in the event of a late failure

    def feed(self, event: Event) -> Iterator[Reply | dict[str, Any]]:
        """Give the replies of an event, in order."""
        raise NotImplementedError

    def add(self, event: Event) -> None:
        """Take an event in without saying it: the whole answer is a fold over the stream."""
        for _ in self.feed(event):
            pass

    def silence(self) -> Reply | None:
        """Give what is said when there was nothing to say for a while; None is a comment line."""
        return None

    def failure(self, error: AppError) -> Reply | None:
        """Give what is said when the answer fails in its middle; None is OpenAI's error event, without the end."""
        return None


@dataclass(frozen=True, slots=True)
class Limits:
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
