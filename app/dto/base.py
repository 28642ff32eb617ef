"""What all dialects share: how bodies are read and how replies are written."""

from dataclasses import dataclass
from typing import Any

import msgspec
from pydantic import BaseModel, ConfigDict, model_validator


class Body(BaseModel):
    """A request body: null means absent, unknown fields are kept aside, types are not converted."""

    model_config = ConfigDict(strict=True, extra="allow", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _drop_nulls(cls, value: Any) -> Any:
        return {k: v for k, v in value.items() if v is not None} if isinstance(value, dict) else value


class Reply(msgspec.Struct):
    """A reply: a field of UNSET is left out, every other is written."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a request may ask at most."""

    messages: int = 4096
    stop_strings: int = 256
    stop_length: int = 4096  # bytes
