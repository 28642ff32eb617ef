"""Text to tokens and back, as llama.cpp's clients ask for it."""

from collections.abc import Sequence
from typing import Annotated, Literal

from msgspec import Meta
from pydantic import Field

from app.dto.shared import parameters
from app.dto.shared.base import Reply, RequestBody


class TokenizeRequest(RequestBody):
    """Text to turn into tokens."""

    registry = parameters.TOKENIZE

    content: str | list[str | int] = Field(examples=["Hello world"])
    add_special: bool = False
    with_pieces: bool = False
    model: str | None = None

    def parts(self) -> tuple[str | int, ...]:
        """Give the texts and token ids. Raises UnsupportedParameter for what is refused by name."""
        self.refuse()
        return (self.content,) if isinstance(self.content, str) else tuple(self.content)


class TokenPiece(Reply, kw_only=True):
    """A token and what it says: text, or bytes that are a part of a character."""

    id: Annotated[int, Meta(description="token id")]
    piece: Annotated[
        str | list[int], Meta(description="text of the token, or its bytes where they are part of a character")
    ]


class Tokens(Reply, kw_only=True):
    """The tokens of a text: ids, or ids with their pieces."""

    tokens: Annotated[list[int | TokenPiece], Meta(description="token ids; with with_pieces, objects of id and piece")]

    @classmethod
    def of(cls, tokens: Sequence[tuple[int, bytes]], request: TokenizeRequest) -> "Tokens":
        """Build it from token ids and their bytes."""
        if not request.with_pieces:
            return cls(tokens=[token for token, _ in tokens])
        return cls(tokens=[TokenPiece(id=token, piece=_piece(data)) for token, data in tokens])


def _piece(data: bytes) -> str | list[int]:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return list(data)


class DetokenizeRequest(RequestBody):
    """Token ids to turn into text."""

    registry = parameters.DETOKENIZE

    tokens: list[int] = Field(examples=[[1, 2, 3]])
    model: str | None = None


class Detokenized(Reply, kw_only=True):
    """The text of tokens."""

    content: Annotated[str, Meta(description="text of the tokens")]


class TemplatedPrompt(Reply, kw_only=True):
    """The prompt that the chat template makes of a conversation."""

    prompt: Annotated[str, Meta(description="the prompt as text")]


class InputTokens(Reply, kw_only=True):
    """Length of a conversation, in tokens."""

    input_tokens: Annotated[int, Meta(description="tokens of the prompt")]
    object: Literal["response.input_tokens"] = "response.input_tokens"
