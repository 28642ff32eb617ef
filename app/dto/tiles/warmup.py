"""Warming a model up before its first message."""

from typing import Annotated

from msgspec import Meta
from pydantic import Field

from app.dto.shared.base import Body, Reply


class WarmupRequest(Body):
    """A model that is about to be used."""

    model: str = Field(
        min_length=1,
        max_length=4096,
        examples=["mlx-community/Qwen3-4B-4bit"],
        description="name of the model",
    )


class WarmupReply(Reply, kw_only=True):
    """The model is loaded."""

    message: Annotated[str, Meta(description="says that the model is loaded")] = "Model loaded"
    prefilled: Annotated[
        bool, Meta(description="whether the agent's prompt was computed; false until it was sent once")
    ]
    warnings: Annotated[list[str], Meta(description="sentences for the user: what is not as expected")]
