"""Control of a streamed answer under way."""

from typing import Annotated, Literal

from msgspec import Meta
from pydantic import Field

from app.dto.shared.base import Body, Reply


class ControlRequest(Body):
    """Which answer to control, and how."""

    id: str = Field(
        min_length=1,
        max_length=256,
        description="id of the streamed answer, from its chunks",
        examples=["chatcmpl-7d1f9c"],
    )
    action: Literal["reasoning_end"] = Field(description="reasoning_end has the model end its reasoning and answer")


class ControlReply(Reply, kw_only=True):
    """Whether an answer was found and controlled."""

    success: Annotated[bool, Meta(description="false where no answer with this id is under way")]
    message: Annotated[str, Meta(description="what happened, in words")]

    @classmethod
    def of(cls, success: bool) -> "ControlReply":
        """Tell whether an answer was found."""
        message = "the reasoning ends" if success else "no active completion for this id"
        return cls(success=success, message=message)
