"""Detokenizers: an answer's token ids to text, as they come, never half a character."""

import codecs
import re
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any, Protocol


class Detokenizer(Protocol):
    """Turns one answer's tokens into text as they come."""

    def feed(self, token: int) -> str:
        """Take in a token and give the text that is complete now."""

    def finish(self) -> str:
        """Give what was held back; a broken character becomes U+FFFD."""

    def token_bytes(self, token: int) -> bytes:
        """Give the bytes of a token by itself; they may be a part of a character."""


class ByteDetokenizer:
    """For byte-level vocabularies: a table of bytes a token and an incremental UTF-8 decoder."""

    def __init__(self, table: list[bytes]) -> None:
        self._table = table
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def feed(self, token: int) -> str:
        """Take in a token and give the text that is complete now."""
        return self._decoder.decode(self.token_bytes(token))

    def finish(self) -> str:
        """Give what was held back; a broken character becomes U+FFFD."""
        return self._decoder.decode(b"", final=True)

    def token_bytes(self, token: int) -> bytes:
        """Give the bytes of a token by itself; they may be a part of a character."""
        return self._table[token] if 0 <= token < len(self._table) else b""


class WrappedDetokenizer:
    """For all other vocabularies: mlx-lm's own streaming detokenizer."""

    def __init__(self, tokenizer: Any, hidden: frozenset[int]) -> None:
        self._tokenizer = tokenizer
        self._detokenizer = tokenizer.detokenizer
        self._hidden = hidden

    def feed(self, token: int) -> str:
        """Take in a token and give the text that is complete now."""
        if token in self._hidden:
            return ""
        self._detokenizer.add_token(token)
        return str(self._detokenizer.last_segment)

    def finish(self) -> str:
        """Give what was held back; a broken character becomes U+FFFD."""
        self._detokenizer.finalize()
        return str(self._detokenizer.last_segment)

    def token_bytes(self, token: int) -> bytes:
        """Give the bytes of a token by itself, as far as this vocabulary can tell."""
        return b"" if token in self._hidden else str(self._tokenizer.decode([token])).encode()


def detokenizer_factory(tokenizer: Any, markers: Iterable[str], width: int) -> Callable[[], Detokenizer]:
    """Choose the kind of detokenizer for a model, and return what makes one for each answer.

    Control tokens are hidden, but for the `markers` that the parser looks for. `width` is that of the logits, which
    may be wider than the vocabulary.
    """
    shown = tuple(markers)
    hidden = frozenset(
        int(token)
        for token, entry in tokenizer.added_tokens_decoder.items()
        if entry.special and not any(entry.content in marker for marker in shown)
    )
    if not _is_byte_level(tokenizer):
        return lambda: WrappedDetokenizer(tokenizer, hidden)
    table = _table(tokenizer, hidden, width)
    return lambda: ByteDetokenizer(table)


def longest_token(tokenizer: Any) -> int | None:
    """Give the length in bytes of the longest token of a byte-level vocabulary. None for others: they may normalize."""
    if not _is_byte_level(tokenizer) or getattr(tokenizer.backend_tokenizer, "normalizer", None) is not None:
        return None
    return max(len(text) for text in tokenizer.get_vocab())


def _is_byte_level(tokenizer: Any) -> bool:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    return type(getattr(backend, "decoder", None)).__name__ == "ByteLevel"


def _table(tokenizer: Any, hidden: frozenset[int], width: int) -> list[bytes]:
    table = [b""] * max(width, len(tokenizer))
    added_tokens = {int(token): entry.content for token, entry in tokenizer.added_tokens_decoder.items()}
    for text, token in tokenizer.get_vocab().items():
        if token in hidden:
            continue
        table[token] = added_tokens[token].encode() if token in added_tokens else _bytes(text)
    return table


def _bytes(text: str) -> bytes:
    alphabet = _alphabet()
    return b"".join(alphabet.get(character) or character.encode() for character in text)


@lru_cache(maxsize=1)
def _alphabet() -> dict[str, bytes]:
    """Map the printable stand-ins of byte-level BPE back to bytes (GPT-2's rule)."""
    plain = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    alphabet = {chr(byte): bytes([byte]) for byte in plain}
    others = (byte for byte in range(256) if byte not in plain)
    return alphabet | {chr(256 + index): bytes([byte]) for index, byte in enumerate(others)}


def token_to_piece(tokenizer: Any) -> Callable[[int], bytes]:
    """Return a function that gives the bytes of one token, of control tokens too."""
    added_tokens = {int(token): str(entry.content).encode() for token, entry in tokenizer.added_tokens_decoder.items()}
    to_bytes = _bytes if _is_byte_level(tokenizer) else _sentence_piece

    def piece(token: int) -> bytes:
        if token in added_tokens:
            return added_tokens[token]
        text = tokenizer.convert_ids_to_tokens(token)
        return to_bytes(text) if isinstance(text, str) else b""

    return piece


def _sentence_piece(text: str) -> bytes:
    """Give the bytes of a SentencePiece piece: <0xE6> is a byte, a low bar is a space."""
    if byte := re.fullmatch(r"<0x([0-9A-Fa-f]{2})>", text):
        return bytes.fromhex(byte[1])
    return text.replace("▁", " ").encode()
