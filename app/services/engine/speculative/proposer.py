"""Guesses of what an answer says next; the model then tells how far they were right."""

from collections.abc import Sequence
from typing import Protocol

_FIRST = 4  # tokens guessed at first
_SHORTEST_PAUSE = 4  # steps


class Proposer(Protocol):
    """The guesses for one row."""

    @property
    def wants_all(self) -> bool:
        """Whether to wait for a token that is drawn and not read yet before it is asked."""

    def guess(self, tokens: Sequence[int], room: int) -> list[int]:
        """Give tokens that may follow all those of a prompt and its answer; no more than there is room for."""

    def learn(self, guessed: int, right: int) -> None:
        """Note how many of the guessed tokens were right."""


class ChainedProposer:
    """Several guessers for one row: the first that has a guess."""

    def __init__(self, guessers: Sequence[Proposer]) -> None:
        self._guessers = guessers
        self._last = guessers[0]  # the one that guessed

    @property
    def wants_all(self) -> bool:
        """Whether any of them wants to see what is not read yet."""
        return any(guesser.wants_all for guesser in self._guessers)

    def guess(self, tokens: Sequence[int], room: int) -> list[int]:
        """Give the guess of the first that has one."""
        for guesser in self._guessers:
            if guess := guesser.guess(tokens, room):
                self._last = guesser
                return guess
        return []

    def learn(self, guessed: int, right: int) -> None:
        """Tell the one that guessed."""
        self._last.learn(guessed, right)


class DraftLength:
    """How many tokens to guess: more while they are right, none for some steps when none was."""

    def __init__(self, most: int, longest_pause: int = _SHORTEST_PAUSE) -> None:
        self.size = min(_FIRST, most)  # tokens
        self.pause = 0  # steps that are left of it
        self._most = most
        self._longest_pause = longest_pause
        self._next_pause = _SHORTEST_PAUSE

    def pauses(self) -> bool:
        """Whether this step guesses nothing."""
        pausing = self.pause > 0
        self.pause -= pausing
        return pausing

    def learn(self, guessed: int, right: int) -> None:
        """Note how many of the guessed tokens were right; pauses in a row double up to the longest."""
        if right == 0:
            self.size = min(_FIRST, self._most)
            self.pause, self._next_pause = self._next_pause, min(self._longest_pause, 2 * self._next_pause)
            return
        self.size = min(self._most, 2 * self.size) if right == guessed else max(2, right + 1)
        self._next_pause = _SHORTEST_PAUSE
