"""What a workload drives."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol

from benchmarks.model import Model
from benchmarks.reply import Message, Reply

More = Mapping[str, Any]  # fields of the request body besides the usual ones


class Target(Protocol):
    """Something that answers: a server over HTTP, or mlx-lm in a process of its own."""

    name: str
    model: Model

    async def chat(self, messages: list[Message], tokens: int, more: More = ...) -> Reply:
        """Answer one conversation, greedily, with exactly `tokens` tokens."""
        ...

    async def chats(
        self, conversations: list[list[Message]], tokens: int, at_once: int, more: More = ...
    ) -> list[Reply]:
        """Answer many, no more than `at_once` at a time."""
        ...

    def awake(self) -> AbstractContextManager[None]:
        """Let it run; outside of this it is suspended."""
        ...

    async def stop(self) -> None:
        """End it, whatever it does."""
        ...
