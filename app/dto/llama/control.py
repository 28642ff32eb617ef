"""What can be asked of a streamed answer while it is made."""

from typing import Annotated, Literal

from msgspec import Meta
from pydantic import Field

from app.dto.shared.base import Body, Reply


class ControlRequest(Body):
    """What to do with which answer."""

    id: str = Field(
        min_length=1,
        max_length=256,
        description="id of the streamed answer, from its chunks",
        examples=["chatcmpl-7d1f9c"],
    )
    action: Literal["reasoning_end"] = Field(description="reasoning_end has the model end its reasoning and answer")


class ControlReply(Reply, kw_only=True):
    """Whether it was done."""

    success: Annotated[bool, Meta(description="false where no answer with this id is under way")]
    message: Annotated[str, Meta(description="what happened, in words")]

    @classmethod
    def of(cls, done: bool) -> "ControlReply":
        """Say it."""
        message = "the reasoning ends" if done else "no active completion for this id"
        return cls(success=done, message=message)
