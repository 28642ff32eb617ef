"""Texts over which no repetition reaches, as the tokens of a vocabulary."""

import threading
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache

from app.services.engine.sampling.dry import Breakers

_LONGEST_TEXT = 40  # bytes
_LONGEST_REST = 20  # tokens


class BreakerTexts:
    """Finds the tokens that have a text in them, and those that begin it. Any thread may ask.

    Source: llama.cpp's sampler DRY, which cuts a text to 40 bytes and its tokens to 20 after the first.
    """

    def __init__(self, piece: Callable[[int], bytes], tokenize: Callable[[str], Sequence[int]], count: int) -> None:
        self._piece, self._tokenize, self._count = piece, tokenize, count
        self._pieces: list[bytes] = []  # of each token, once something was looked for
        self._by_end: dict[int, list[int]] = {}  # tokens, by their last byte
        self._lock = threading.Lock()
        self._find = lru_cache(maxsize=64)(self._look_for)

    def find(self, texts: Sequence[str]) -> Breakers:
        """Give the tokens of texts, none of them empty."""
        single: set[int] = set()
        rows: dict[int, list[tuple[int, ...]]] = {}
        with self._lock:
            for text in texts:
                # Without half a character.
                whole = text.encode(errors="ignore")[:_LONGEST_TEXT].decode(errors="ignore").encode()
                tokens, longer = self._find(whole)
                single |= tokens
                for row in longer:
                    rows.setdefault(row[-1], []).append(row)
        return Breakers(frozenset(single), rows)

    def _look_for(self, whole: bytes) -> tuple[frozenset[int], tuple[tuple[int, ...], ...]]:
        if not self._pieces:
            self._read_pieces()
        single = frozenset(token for token, piece in enumerate(self._pieces) if whole in piece)
        rows = [row for cut in range(1, len(whole)) for row in self._rows(whole[:cut], whole[cut:], single)]
        return single, tuple(dict.fromkeys(rows))

    def _rows(self, begun: bytes, rest: bytes, single: frozenset[int]) -> Iterator[tuple[int, ...]]:
        """Give the tokens that end with the beginning of a text, each with the tokens of the rest behind it."""
        heads = [token for token in self._by_end.get(begun[-1], ()) if self._pieces[token].endswith(begun)]
        text = rest.decode(errors="replace")
        if not heads or text.startswith("\ufffd"):
            return  # nothing begins so, or within a character
        tail = list(self._tokenize(text))[:_LONGEST_REST]
        yield from ((token, *tail) for token in heads if token not in single)

    def _read_pieces(self) -> None:
        self._pieces = [self._piece(token) for token in range(self._count)]
        for token, piece in enumerate(self._pieces):
            if piece:
                self._by_end.setdefault(piece[-1], []).append(token)
