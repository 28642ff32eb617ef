"""Turns the breaker texts of DRY into tokens of a vocabulary."""

import threading
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache

from app.services.engine.sampling.dry import Breakers

_MAX_TEXT = 40  # bytes
_MAX_TAIL = 20  # tokens


class BreakerFinder:
    """Finds the tokens that contain a text, and the sequences that spell it. Any thread may call it.

    Source: llama.cpp's DRY sampler, which cuts a text to 40 bytes and its tokens to 20 after the first.
    """

    def __init__(self, piece: Callable[[int], bytes], tokenize: Callable[[str], Sequence[int]], count: int) -> None:
        self._piece, self._tokenize, self._count = piece, tokenize, count
        self._pieces: list[bytes] = []  # of each token; empty until the first search
        self._by_end: dict[int, list[int]] = {}  # tokens, by their last byte
        self._lock = threading.Lock()
        self._search = lru_cache(maxsize=64)(self._search_once)

    def find(self, texts: Sequence[str]) -> Breakers:
        """Find the tokens of texts, none of them empty."""
        single: set[int] = set()
        sequences: dict[int, list[tuple[int, ...]]] = {}
        with self._lock:
            for text in texts:
                # Without half a character at the cut.
                data = text.encode(errors="ignore")[:_MAX_TEXT].decode(errors="ignore").encode()
                tokens, longer = self._search(data)
                single |= tokens
                for sequence in longer:
                    sequences.setdefault(sequence[-1], []).append(sequence)
        return Breakers(frozenset(single), sequences)

    def _search_once(self, text: bytes) -> tuple[frozenset[int], tuple[tuple[int, ...], ...]]:
        if not self._pieces:
            self._read_pieces()
        single = frozenset(token for token, piece in enumerate(self._pieces) if text in piece)
        cuts = range(1, len(text))
        sequences = [sequence for cut in cuts for sequence in self._sequences(text[:cut], text[cut:], single)]
        return single, tuple(dict.fromkeys(sequences))

    def _sequences(self, start: bytes, rest: bytes, single: frozenset[int]) -> Iterator[tuple[int, ...]]:
        """Yield the tokens that end with the start of a text, each followed by the tokens of the rest."""
        heads = [token for token in self._by_end.get(start[-1], ()) if self._pieces[token].endswith(start)]
        text = rest.decode(errors="replace")
        if not heads or text.startswith("\ufffd"):
            return  # no token ends so, or the cut is within a character
        tail = list(self._tokenize(text))[:_MAX_TAIL]
        yield from ((token, *tail) for token in heads if token not in single)

    def _read_pieces(self) -> None:
        self._pieces = [self._piece(token) for token in range(self._count)]
        for token, piece in enumerate(self._pieces):
            if piece:
                self._by_end.setdefault(piece[-1], []).append(token)
