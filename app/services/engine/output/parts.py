"""What an answer is parsed into: pieces of text, and parts of tool calls."""

from dataclasses import dataclass

from app.services.generation import ToolArguments, ToolCall


@dataclass(frozen=True, slots=True)
class TextPiece:
    """A piece of text, of the answer or of the reasoning."""

    text: str
    reasoning: bool = False


@dataclass(frozen=True, slots=True)
class CallStart:
    """That a call has begun: behind a marker, or with the arguments of a tool. `text` is what came from there on."""

    text: str
    marker: str = ""
    tool: str = ""


OutputPart = TextPiece | ToolCall | ToolArguments
