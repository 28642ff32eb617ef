"""Tokens of an answer that are certain before they are drawn."""

from collections.abc import Sequence
from itertools import takewhile


class ForcedTokens(dict[int, int]):
    """By their positions in the answer: they come whatever is drawn there.

    Those that a grammar forces can be computed in one call, as a prompt is. Others have to be read one by one, since
    how the answer goes on may depend on each.
    """

    follow_draws = False  # whether a grammar forced tokens behind the last one that was drawn freely
    _grammar_end = 0  # position behind the last one that a grammar forces

    def add_by_grammar(self, position: int, tokens: Sequence[int]) -> None:
        """Note the tokens that a grammar forces from a position on, if any."""
        if position - 1 not in self:
            self.follow_draws = bool(tokens)
        if tokens:
            self.update(enumerate(tokens, position))
            self._grammar_end = position + len(tokens)

    def add_certain(self, position: int, tokens: Sequence[int]) -> None:
        """Note tokens that were drawn, and fed, but not read yet."""
        self.update(enumerate(tokens, position))
        self._grammar_end = max(self._grammar_end, position + len(tokens))

    def run(self, start: int, end: int) -> list[int]:
        """Give the tokens from one position on, and before another, that can be computed in one call."""
        return [self[position] for position in takewhile(self.__contains__, range(start, min(end, self._grammar_end)))]
