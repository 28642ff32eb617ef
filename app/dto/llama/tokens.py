"""Text to tokens and back, as llama.cpp's clients ask for it."""

from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from app.dto.shared import parameters
from app.dto.shared.base import Reply, RequestBody


class TokenizeRequest(RequestBody):
    """Text to be taken apart."""

    registry = parameters.TOKENIZE

    content: str | list[str | int] = Field(examples=["Hello world"])
    add_special: bool = Field(default=False, description="with what the model wants before a text")
    with_pieces: bool = Field(default=False, description="with the text of every token")
    model: str | None = Field(default=None, description="any name is answered, unless there are several models")

    def parts(self) -> tuple[str | int, ...]:
        """Give the texts and token ids. Raises UnsupportedParameter for what is refused by name."""
        self.refuse()
        return (self.content,) if isinstance(self.content, str) else tuple(self.content)


class TokenPiece(Reply, kw_only=True):
    """A token and what it says: text, or bytes that are a part of a character."""

    id: int
    piece: str | list[int]


class Tokens(Reply, kw_only=True):
    """The tokens of a text: ids, or ids with their pieces."""

    tokens: list[int | TokenPiece]

    @classmethod
    def of(cls, tokens: Sequence[tuple[int, bytes]], request: TokenizeRequest) -> "Tokens":
        """Spell token ids and their bytes."""
        if not request.with_pieces:
            return cls(tokens=[token for token, _ in tokens])
        return cls(tokens=[TokenPiece(id=token, piece=_piece(data)) for token, data in tokens])


def _piece(data: bytes) -> str | list[int]:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return list(data)


class DetokenizeRequest(RequestBody):
    """Tokens to be put together."""

    registry = parameters.DETOKENIZE

    tokens: list[int] = Field(examples=[[1, 2, 3]])
    model: str | None = Field(default=None, description="any name is answered, unless there are several models")


class Detokenized(Reply, kw_only=True):
    """The text of tokens."""

    content: str


class TemplatedPrompt(Reply, kw_only=True):
    """The prompt that a conversation becomes."""

    prompt: str


class InputTokens(Reply, kw_only=True):
    """How many tokens a conversation has."""

    input_tokens: int
    object: Literal["response.input_tokens"] = "response.input_tokens"
