"""Detokenizers: an answer's token ids to text, as they come, never half a character."""

import codecs
from collections.abc import Iterable
from typing import Any, Protocol

from app.services.engine.output.token_bytes import TokenBytes, is_byte_level

# Stands before a control token where the parser has to tell it from text that is spelled like it. Unicode has no such
# character, so that text has none.
CONTROL = "\ufdd0"
_CONTROL = CONTROL.encode()


class Detokenizer:
    """Turns one answer's tokens into text as they come, from their bytes and an incremental UTF-8 decoder.

    An answer that `continues` a text keeps the space that it begins with.
    """

    def __init__(
        self,
        vocabulary: TokenBytes,
        hidden: frozenset[int],
        set_off: frozenset[int] = frozenset(),  # tokens with CONTROL before them
        *,
        continues: bool = False,
    ) -> None:
        self._vocabulary = vocabulary
        self._hidden = hidden
        self._set_off = set_off
        self._is_first = not continues
        self._decoder = codecs.getincrementaldecoder("utf-8")(vocabulary.errors)

    def feed(self, token: int) -> str:
        """Take in a token and give the text that is complete now."""
        if token in self._hidden:
            return ""
        data = self.token_bytes(token)
        if token in self._set_off:
            data = _CONTROL + data
        self._is_first = False
        return self._decoder.decode(data)

    def finish(self) -> str:
        """Give what was held back; a broken character becomes U+FFFD."""
        return self._decoder.decode(b"", final=True)

    def token_bytes(self, token: int) -> bytes:
        """Give the bytes of a token if it came next; they may be a part of a character."""
        if token in self._hidden:
            return b""
        return self._vocabulary.first(token) if self._is_first else self._vocabulary[token]


class DetokenizerFactory(Protocol):
    """Makes a detokenizer for each answer of a model."""

    def __call__(self, *, continues: bool = False) -> Detokenizer:
        """Make one for an answer that continues a text, or begins one."""


def detokenizer_factory(tokenizer: Any, markers: Iterable[str]) -> DetokenizerFactory:
    """Return what makes a detokenizer for each answer of a model.

    Control tokens are hidden, but for the `markers` that the parser looks for; those that it looks for behind CONTROL
    are set off by it.
    """
    shown = tuple(markers)
    set_off = frozenset(
        int(token) for token, entry in tokenizer.added_tokens_decoder.items() if CONTROL + entry.content in shown
    )
    hidden = frozenset(
        int(token)
        for token, entry in tokenizer.added_tokens_decoder.items()
        if entry.special and not any(entry.content in marker for marker in shown)
    )
    vocabulary = TokenBytes(tokenizer)
    return lambda *, continues=False: Detokenizer(vocabulary, hidden, set_off, continues=continues)


def longest_token(tokenizer: Any) -> int | None:
    """Give the length in bytes of the longest token of a byte-level vocabulary. None for others: they may normalize."""
    if not is_byte_level(tokenizer) or getattr(tokenizer.backend_tokenizer, "normalizer", None) is not None:
        return None
    return max(len(text) for text in tokenizer.get_vocab())
