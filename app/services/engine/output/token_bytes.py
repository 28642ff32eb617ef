"""The bytes of each token of a vocabulary, whatever kind of tokenizer it belongs to."""

import codecs
import json
import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

from tokenizers import decoders

# Where bytes are no text, byte-level decoders replace as much as may have been one character, and SentencePiece, whose
# vocabularies have a token for each byte, replaces every byte.
_EACH = "replace-each-byte"
codecs.register_error(_EACH, lambda error: ("\ufffd" * (error.end - error.start), error.end))  # type: ignore[attr-defined]
_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_ANCHOR = "a"  # stands before a token, so that decoders do not take it for the first


class TokenBytes(dict[int, bytes]):
    """The bytes of each token that follows others, worked out when they are needed. They may be a part of a character.

    All of them together are what the tokenizer decodes. Control tokens have theirs; ids past the vocabulary have none.
    """

    def __init__(self, tokenizer: Any) -> None:
        super().__init__()
        self._tokenizer = tokenizer  # of transformers, or mlx-lm's wrapper around it
        self._added = {int(token): str(entry.content) for token, entry in tokenizer.added_tokens_decoder.items()}
        self._decoder = _decoder(tokenizer)
        self._kinds = _kinds(self._decoder)
        self._is_byte_level = "ByteLevel" in self._kinds
        self.errors = "replace" if self._is_byte_level else _EACH
        newline = tokenizer.convert_tokens_to_ids("<n>")
        if newline is not None and tokenizer.decode([newline]) == "\n":  # mlx-lm's NewlineTokenizer
            self[newline] = b"\n"

    def __missing__(self, token: int) -> bytes:
        text = self._text(token)
        if self._is_byte_level:
            data = text.encode() if token in self._added else _from_alphabet(text)
        elif byte := self._byte(text):
            data = byte
        elif self._decoder is None:  # tokenizers puts a space between tokens then
            data = f" {text}".encode() if text else b""
        else:
            data = self._decode(_ANCHOR, text).removeprefix(_ANCHOR).encode() if text else b""
        self[token] = data
        return data

    def first(self, token: int) -> bytes:
        """Give the bytes of a token that begins a text: many decoders drop its first space."""
        text = self._text(token)
        if self._is_byte_level or not text or self._byte(text):
            return self[token]
        return self._decode(text).encode()

    def decode(self, tokens: Sequence[int]) -> str:
        """Give the text of a sequence of tokens, control tokens too."""
        data = [self.first(token) for token in tokens[:1]] + [self[token] for token in tokens[1:]]
        return b"".join(data).decode("utf-8", self.errors)

    def _text(self, token: int) -> str:
        """Give the token as it stands in the vocabulary; empty if there is none."""
        if token in self._added:
            return self._added[token]
        text = self._tokenizer.convert_ids_to_tokens(token) if 0 <= token < 2**32 else None
        return text if isinstance(text, str) else ""

    def _byte(self, text: str) -> bytes:
        """Give the byte of a token that is one and no character by itself; empty for others."""
        match = _BYTE.fullmatch(text)
        if match is None or int(match[1], 16) < 128 or "ByteFallback" not in self._kinds:
            return b""
        return bytes.fromhex(match[1])

    def _decode(self, *texts: str) -> str:
        return str(self._decoder.decode(list(texts))) if self._decoder is not None else " ".join(texts)


def is_byte_level(tokenizer: Any) -> bool:
    """Whether the tokens of a vocabulary are bytes, written in the alphabet of GPT-2."""
    return "ByteLevel" in _kinds(_decoder(tokenizer))


def _decoder(tokenizer: Any) -> Any:
    """Give the decoder of the tokenizers package; None if the tokenizer has none. Slow ones are SentencePiece's."""
    if (backend := getattr(tokenizer, "backend_tokenizer", None)) is not None:
        return backend.decoder
    parts = (decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0))
    return decoders.Sequence(list(parts))


def _kinds(decoder: Any) -> frozenset[str]:
    """Give the types of the parts of a decoder of the tokenizers package."""
    return frozenset(_types(json.loads(decoder.__getstate__()))) if decoder is not None else frozenset()


def _types(content: dict[str, Any]) -> Iterator[str]:
    yield content["type"]
    for inner in content.get("decoders", ()):
        yield from _types(inner)


def _from_alphabet(text: str) -> bytes:
    alphabet = _alphabet()
    return b"".join(alphabet.get(character) or character.encode() for character in text)


@lru_cache(maxsize=1)
def _alphabet() -> dict[str, bytes]:
    """Map the printable stand-ins of byte-level BPE back to bytes (GPT-2's rule)."""
    plain = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    alphabet = {chr(byte): bytes([byte]) for byte in plain}
    others = (byte for byte in range(256) if byte not in plain)
    return alphabet | {chr(256 + index): bytes([byte]) for index, byte in enumerate(others)}
