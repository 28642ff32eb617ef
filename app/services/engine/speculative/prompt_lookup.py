"""Guesses of what an answer says next: what followed its last tokens where they stood before."""

from collections.abc import Sequence

from app.services.engine.speculative.proposer import DraftLength

_LENGTHS = (4, 3, 2)  # tokens that have to be the same, the longest first


class PromptLookupProposer:
    """The guesses for one row. They grow while they are right and pause when they are wrong."""

    wants_all = False  # it seldom has a guess, and waiting costs each step

    def __init__(self, most: int) -> None:
        self._boldness = DraftLength(most)
        self._tokens: list[int] = []
        self._places: dict[tuple[int, ...], int] = {}  # what follows a run of tokens, the last time

    def guess(self, tokens: Sequence[int], room: int) -> list[int]:
        """Give tokens that may follow all those of a prompt and its answer; no more than there is room for."""
        self._learn(tokens)
        if self._boldness.pauses():
            return []
        size = self._boldness.size
        for length in _LENGTHS:
            place = self._places.get(tuple(self._tokens[-length:]))
            if place is not None and place < len(self._tokens):
                following = self._tokens[place : place + size]  # over again where it is a short loop
                return [following[step % len(following)] for step in range(min(size, room))]
        return []

    def learn(self, guessed: int, right: int) -> None:
        """Note how many of the guessed tokens were right."""
        self._boldness.learn(guessed, right)

    def _learn(self, tokens: Sequence[int]) -> None:
        """Note what follows what, all but the end, of which nothing is known yet."""
        start = len(self._tokens)
        self._tokens = list(tokens)
        for place in range(max(start, 1), len(self._tokens)):
            for length in _LENGTHS:
                if place >= length:
                    self._places[tuple(self._tokens[place - length : place])] = place
