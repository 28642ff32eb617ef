"""The tokens of a vocabulary in the order of their bytes, to find those that begin with a text."""

from bisect import bisect_left
from collections.abc import Iterator
from functools import lru_cache

import numpy as np
from llguidance import LLTokenizer

_TEXTS_KEPT = 4096  # whose joins are kept: grammars force the same texts again and again


class Vocabulary:
    """The tokens of text in llguidance's tables; `size` is the width of the logits.

    Their bytes lie one behind the other, since as many small objects would take several times the memory.
    """

    def __init__(self, tables: LLTokenizer) -> None:
        self.size = int(tables.vocab_size)
        self.tables = tables
        pieces = [b"" if tables.is_special_token(token) else tables.decode_bytes([token]) for token in range(self.size)]
        tokens = sorted((token for token, piece in enumerate(pieces) if piece), key=pieces.__getitem__)
        self._tokens = np.array(tokens, dtype=np.int32)
        self._bytes = b"".join(pieces[token] for token in tokens)
        self._starts = np.cumsum([0, *(len(pieces[token]) for token in tokens)], dtype=np.int32)
        self._longest = max(map(len, pieces), default=0)
        self.joins = lru_cache(_TEXTS_KEPT)(self._joins)

    def tokenize(self, text: bytes) -> list[int]:
        """Give the tokens of a text, as the tokenizer writes it."""
        return list(self.tables.tokenize_bytes(text))

    def length(self, token: int) -> int:
        """Count the bytes that a token has in a text that a grammar forces: control tokens stand there by number."""
        if self.tables.is_special_token(token):
            return len(b"\xff[%d]" % token)
        return len(self.tables.decode_bytes([token]))

    def prefixes(self, text: bytes) -> Iterator[int]:
        """Yield the tokens that a text begins with."""
        for end in range(1, min(len(text), self._longest) + 1):
            index = self._find(text[:end])
            while index < len(self._tokens) and self._piece(index) == text[:end]:
                yield int(self._tokens[index])
                index += 1

    def extensions(self, text: bytes) -> Iterator[tuple[int, bytes]]:
        """Yield the tokens that begin with a text and go on, and how they do."""
        for index in range(self._find(text), len(self._tokens)):
            piece = self._piece(index)
            if not piece.startswith(text):
                break
            if piece != text:
                yield int(self._tokens[index]), piece[len(text) :]

    def _joins(self, text: bytes) -> list[int]:
        """Give where in a text tokens may begin that hold all that is left of it and more."""
        starts = range(max(0, len(text) - self._longest), len(text))
        return [start for start in starts if any(True for _ in self.extensions(text[start:]))]

    def _find(self, text: bytes) -> int:
        return bisect_left(range(len(self._tokens)), text, key=self._piece)

    def _piece(self, index: int) -> bytes:
        return self._bytes[self._starts[index] : self._starts[index + 1]]
