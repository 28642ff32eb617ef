"""Tiles' own requests: sessions, and models to load and unload."""

from typing import Annotated, Any

from msgspec import UNSET, Meta, UnsetType
from pydantic import Field

from app.dto.shared.base import Body, Reply
from app.services.session import Session


class StartRequest(Body):
    """A session to start: its model and the folder of that, its memory and its system prompt."""

    model: str = Field(
        min_length=1,
        max_length=4096,
        examples=["mlx-community/Qwen3-4B-4bit"],
        description="name of the model, or its folder",
    )
    memory_path: str = Field(
        max_length=4096,
        examples=["~/tiles/memory"],
        description="folder with the notes of the memory agent; empty for a session without memory",
    )
    system_prompt: str = Field(examples=["You are a helpful assistant."], description="system prompt of the session")
    model_cache_path: str = Field(
        max_length=4096,
        examples=["~/models/Qwen3-4B-4bit"],
        description="folder of the model; empty where `model` tells it",
    )

    def to_session(self) -> Session:
        """Translate to the service's session."""
        return Session(
            model=self.model,
            model_cache_path=self.model_cache_path,
            memory_path=self.memory_path,
            system_prompt=self.system_prompt,
        )


class StartReply(Reply, kw_only=True):
    """The model is loaded and the session saved."""

    message: Annotated[str, Meta(description="says that the model is loaded")] = "Model loaded"
    warnings: Annotated[
        list[str], Meta(description="sentences for the user: what is not as the session has it, as memory that is off")
    ] = []


class LoadRequest(Body):
    """A model to load."""

    model: str = Field(max_length=4096, examples=["mlx-community/Qwen3-4B-4bit"], description="name of the model")
    extra_args: list[Any] | None = Field(default=None, description="llama-server's arguments of the model; ignored")


class UnloadRequest(Body):
    """A model to unload."""

    model: str = Field(max_length=4096, examples=["mlx-community/Qwen3-4B-4bit"], description="name of the model")


class Success(Reply, kw_only=True):
    """Whether it worked, and why not."""

    success: Annotated[bool, Meta(description="whether it worked")]
    error: Annotated[str | UnsetType, Meta(description="why it did not work; absent where it did")] = UNSET

    @classmethod
    def of(cls, error: str | None) -> "Success":
        """Tell what went wrong, or that nothing did."""
        return cls(success=error is None, error=error or UNSET)
