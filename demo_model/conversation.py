"""A conversation to train on or to test with."""

from dataclasses import dataclass, field
from typing import Any

Tool = dict[str, Any]
Call = dict[str, Any]


@dataclass
class Message:
    """One message; an assistant's may carry tool calls, a thought, and the words a right answer holds."""

    role: str
    content: str = ""
    calls: list[Call] = field(default_factory=list)
    thought: str = ""
    must: tuple[str, ...] = ()

    def as_dict(self, thinking: bool = False) -> dict[str, Any]:
        """The message as a chat template takes it; with `thinking` its thought comes first."""
        gap = "\n" if self.calls else "\n\n"
        content = f"<think>\n{self.thought}\n</think>{gap}{self.content}" if thinking else self.content
        calls = [{"type": "function", "function": call} for call in self.calls]
        return {"role": self.role, "content": content} | ({"tool_calls": calls} if calls else {})


@dataclass
class Conversation:
    """Messages under a set of tools; `thinking` thinks aloud in the last answer, the only one then trained on.

    With a `schema` the server holds the answers to it: their keys come from there, not from the model.
    """

    kind: str
    messages: list[Message] = field(default_factory=list)
    tools: list[Tool] = field(default_factory=list)
    thinking: bool = False
    schema: dict[str, Any] | None = None

    def system(self, content: str) -> "Conversation":
        """Put a system message first."""
        if content:
            self.messages.insert(0, Message("system", content))
        return self

    def user(self, content: str) -> "Conversation":
        """Add what the user says."""
        self.messages.append(Message("user", content))
        return self

    def tool(self, content: str) -> "Conversation":
        """Add what a tool gives back."""
        self.messages.append(Message("tool", content))
        return self

    def answer(self, content: str, thought: str, *must: str) -> "Conversation":
        """Add the assistant's answer; `must` are the words that a right answer holds."""
        self.messages.append(Message("assistant", content, thought=thought, must=must))
        return self

    def call(self, calls: list[Call], thought: str) -> "Conversation":
        """Add the assistant's tool calls."""
        self.messages.append(Message("assistant", calls=calls, thought=thought))
        return self

    def extend(self, other: "Conversation") -> "Conversation":
        """Add the other conversation's messages, without its system message, and its tools."""
        self.messages += [m for m in other.messages if m.role != "system"]
        self.tools += [t for t in other.tools if t not in self.tools]
        return self
