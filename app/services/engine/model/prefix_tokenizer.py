"""Texts that begin alike, tokenized one after another: what they begin with is tokenized once."""

from collections.abc import Callable

from app.services.engine.cache.prefixes import common_length

_LEAST = 2048  # characters that a text shares with the one before it; with fewer all of it is tokenized
_OVERLAP = 512  # of these, the last ones, are tokenized again
_AGREED = 16  # tokens beyond the seam that both texts have to have

Tokenize = Callable[[str], list[int]]


class PrefixTokenizer:
    """Gives the very tokens that each text has as a whole, which what follows decides about as well.

    A piece of the text before, from within what both share, is tokenized with its end: where that gives the tokens that
    this text ended with, its own beginning no longer matters. The same piece of the new text has the same tokens there,
    and further on. A tokenizer that decides for longer than that by what is far away has the text tokenized as a whole.
    """

    def __init__(self, tokenize: Tokenize, tokenize_piece: Tokenize) -> None:
        self._tokenize = tokenize  # a text, perhaps with a token that begins it
        self._tokenize_piece = tokenize_piece  # without one
        self._text = ""
        self._tokens: list[int] = []

    def __call__(self, text: str) -> list[int]:
        """Give the tokens of a text."""
        self._tokens = self._from_shared(text) or self._tokenize(text)
        self._text = text
        return self._tokens

    def shares(self, text: str) -> bool:
        """Whether so much of a text is tokenized already that no more than its end would be."""
        return common_length(self._text, text) >= max(_LEAST, len(text) // 2)

    def _from_shared(self, text: str) -> list[int] | None:
        shared = common_length(self._text, text)
        if shared < _LEAST:
            return None
        start = shared - _OVERLAP
        before, piece = self._tokenize_piece(self._text[start:]), self._tokenize_piece(text[start:])
        end = self._tokens[-len(before) :]
        same = common_length(before[::-1], end[::-1])
        seam = len(before) - same
        if common_length(before, piece) < seam + _AGREED:
            return None
        return [*self._tokens[: len(self._tokens) - same], *piece[seam:]]
