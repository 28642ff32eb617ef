"""What all dialects share: how bodies are read, how replies are written, and what a stream is."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import msgspec
from pydantic import BaseModel, ConfigDict, model_validator

from app.dto import parameters
from app.services.errors import AppError
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
        return parameters.ignored(self.registry, self._given())

    def refuse(self) -> None:
        """Raise UnsupportedParameter for what was given and is not honoured."""
        parameters.check(self.registry, self._given())

    def _given(self) -> dict[str, Any]:
        given = {name: getattr(self, name) for name in self.model_fields_set if name in type(self).model_fields}
        return given | (self.model_extra or {})


class Reply(msgspec.Struct):
    """A reply: a field of UNSET is left out, every other is written."""


class Dialect:
    """How a stream says events and a late failure."""

    end: ClassVar[bytes] = b""  # what follows the last event

    def feed(self, event: Event) -> Iterator[Reply | dict[str, Any]]:
        """Give the replies of an event, in order."""
        raise NotImplementedError

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
