"""Walks an answer through a grammar: which tokens may come next, and which have to."""

from copy import copy

from llguidance import LLMatcher

from app.services.engine.sampling.bitmask import Mask, next_tokens

MOST_FORCED = 64  # tokens that are taken at once; a grammar may go on for ever without a choice


class Matcher:
    """A grammar's state within one answer. `first` is the matcher that it begins with, which stays as it is."""

    def __init__(self, first: LLMatcher, vocabulary: int) -> None:
        self._first = first
        self._vocabulary = vocabulary
        self._may_force = True
        self.restart()

    @property
    def is_stopped(self) -> bool:
        """Whether nothing may follow."""
        return bool(self._matcher.is_stopped())

    @property
    def is_error(self) -> bool:
        """Whether it cannot tell any more what may follow."""
        return bool(self._matcher.is_error())

    def fork(self) -> "Matcher":
        """Copy it where it is, to try tokens."""
        other = copy(self)
        other._matcher, other._tokens = self._matcher.deep_copy(), list(self._tokens)
        return other

    def restart(self) -> None:
        """Go back to the beginning."""
        self._matcher = self._first.deep_copy()
        self._tokens: list[int] = []

    def mask(self) -> Mask:
        """Compute which tokens may come next, (vocabulary,) bool."""
        return next_tokens(self._matcher, self._vocabulary)

    def forced_tokens(self) -> list[int]:
        """Give the tokens that have to come next, as the tokenizer writes their text; none where there is a choice."""
        return self._matcher.compute_ff_tokens()[:MOST_FORCED] if self._may_force else []

    def consume(self, token: int) -> bool:
        """Advance by a token. Returns False where the grammar does not allow it, or cannot tell."""
        self._tokens.append(token)
        if self._matcher.consume_token(token):
            return True
        # Where a grammar forces tokens without end, looking for them has broken it.
        self._may_force = False
        self._matcher = self._first.deep_copy()
        return bool(self._matcher.consume_tokens(self._tokens))
