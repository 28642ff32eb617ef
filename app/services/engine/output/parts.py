"""What an answer is parsed into: pieces of text, and parts of tool calls."""

from dataclasses import dataclass

from app.services.generation import ToolArguments, ToolCall


@dataclass(frozen=True, slots=True)
class TextPiece:
    """A piece of text, of the answer or of the reasoning."""

    text: str
    reasoning: bool = False


OutputPart = TextPiece | ToolCall | ToolArguments
