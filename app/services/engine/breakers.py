"""Texts over which no repetition reaches, as the tokens of a vocabulary."""

import threading
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache

from app.services.engine.dry import Breakers

_LONGEST_TEXT = 40  # bytes
_LONGEST_REST = 20  # tokens


class BreakerTexts:
    """Finds the tokens that have a text in them, and those that begin it. Any thread may ask.

    Source: llama.cpp's sampler DRY, which cuts a text to 40 bytes and its tokens to 20 after the first.
    """

    def __init__(self, piece: Callable[[int], bytes], tokenize: Callable[[str], Sequence[int]], count: int) -> None:
        self._piece, self._tokenize, self._count = piece, tokenize, count
        self._pieces: list[bytes] | None = None  # once something was looked for
        self._lock = threading.Lock()
        self._find = lru_cache(maxsize=64)(self._look_for)

    def find(self, texts: Sequence[str]) -> Breakers:
        """Give the tokens of texts, none of them empty."""
        single: set[int] = set()
        rows: dict[int, list[tuple[int, ...]]] = {}
        with self._lock:
            for text in texts:
                tokens, longer = self._find(text)
                single |= tokens
                for row in longer:
                    rows.setdefault(row[-1], []).append(row)
        return Breakers(frozenset(single), rows)

    def _look_for(self, text: str) -> tuple[frozenset[int], tuple[tuple[int, ...], ...]]:
        if self._pieces is None:
            self._pieces = [self._piece(token) for token in range(self._count)]
        whole = text.encode()[:_LONGEST_TEXT]
        single = frozenset(token for token, piece in enumerate(self._pieces) if whole in piece)
        rows = [
            (token, *rest)
            for begun, rest in self._splits(whole)
            for token, piece in enumerate(self._pieces)
            if token not in single and piece.endswith(begun)
        ]
        return single, tuple(dict.fromkeys(rows))

    def _splits(self, whole: bytes) -> Iterator[tuple[bytes, Sequence[int]]]:
        """Give each way to cut a text in two between characters, the second part as tokens."""
        for cut in range(1, len(whole)):
            try:
                rest = whole[cut:].decode()
            except UnicodeDecodeError:
                continue
            yield whole[:cut], list(self._tokenize(rest))[:_LONGEST_REST]
