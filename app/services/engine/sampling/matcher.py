"""Walks an answer through a grammar: which tokens may come next, and which have to."""

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from copy import copy
from itertools import accumulate

from llguidance import LLMatcher

from app.services.engine.sampling.bitmask import Mask, next_tokens
from app.services.engine.sampling.vocabulary import Vocabulary

MOST_FORCED = 64  # tokens that are taken at once; a grammar may go on for ever without a choice
_LOOKED_AT = 4  # tokens at the end of a forced text that llguidance has looked at itself


class Matcher:
    """A grammar's state within one answer. `first` is the matcher that it begins with, which stays as it is.

    Text that a grammar forces comes in the tokens in which the tokenizer writes it, up to where one token could hold
    the end of it and the beginning of what the model may choose: there it may choose how to write it, as in free text.
    llguidance sees such tokens too, where they hold no more than four of the others.
    """

    def __init__(self, first: LLMatcher, vocabulary: Vocabulary) -> None:
        self._first = first
        self.vocabulary = vocabulary
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

    @property
    def is_accepting(self) -> bool:
        """Whether the answer may end here."""
        return bool(self._matcher.is_accepting())

    def begin_with(self, tokens: list[int]) -> bool:
        """Move the beginning behind some tokens. Returns False where the grammar does not allow them."""
        first = self._first.deep_copy()
        if first.validate_tokens(tokens) < len(tokens) or not first.consume_tokens(tokens):
            return False
        self._first = first
        self.restart()
        return True

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
        allowed = next_tokens(self._matcher, self.vocabulary.size)
        tokens = self._forced_tokens()
        if tokens and not self._certain(tokens):
            text = self._matcher.compute_ff_bytes()
            longer = dict(self.vocabulary.extensions(text))
            rests = set(self._possible(text, tokens, longer.values()))
            allowed[list(self.vocabulary.prefixes(text))] = True
            allowed[[token for token, rest in longer.items() if rest in rests]] = True
        return allowed

    def forced_tokens(self) -> list[int]:
        """Give the tokens that have to come next, as the tokenizer writes their text; none where there is a choice."""
        return self._certain(self._forced_tokens())[:MOST_FORCED]

    def consume(self, token: int) -> bool:
        """Advance by a token. Returns False where the grammar does not allow it, or cannot tell."""
        self._tokens.append(token)
        if self._matcher.consume_token(token):
            return True
        # Where a grammar forces tokens without end, looking for them has broken it.
        self._may_force = False
        self._matcher = self._first.deep_copy()
        return bool(self._matcher.consume_tokens(self._tokens))

    def _forced_tokens(self) -> list[int]:
        return list(self._matcher.compute_ff_tokens()) if self._may_force else []

    def _certain(self, tokens: list[int]) -> list[int]:
        """Leave out the last of forced tokens where one could come that holds the end of their text, and more."""
        if not tokens:
            return []
        text, ends = self._matcher.compute_ff_bytes(), [0, *accumulate(map(self.vocabulary.length, tokens))]
        # What llguidance has looked at ends the text. Where it left tokens out there, it is not known how many.
        limit = ends[-1] if len(text) > ends[-1] else ends[max(0, len(tokens) - _LOOKED_AT)]
        for start in self.vocabulary.joins(text):
            if start >= limit:
                break
            if any(self._possible(text, tokens, (rest for _, rest in self.vocabulary.extensions(text[start:])))):
                return tokens[: bisect_right(ends, start) - 1]
        return tokens

    def _possible(self, text: bytes, tokens: list[int], rests: Iterable[bytes]) -> Iterator[bytes]:
        """Yield those of some texts that may follow a forced text, of which the tokens are the beginning."""
        tail = text[sum(map(self.vocabulary.length, tokens)) :]
        after = self._matcher.deep_copy()
        if after.consume_tokens(tokens):
            for rest in rests:
                more = self.vocabulary.tokenize(tail + rest)
                if after.validate_tokens(more) == len(more):
                    yield rest
