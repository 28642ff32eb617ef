"""Speculative decoding: a proposer gives draft tokens, and the model verifies them in one step."""

from collections.abc import Sequence
from typing import Protocol

_FIRST_LENGTH = 4  # draft tokens
_SHORTEST_PAUSE = 4  # steps


class Proposer(Protocol):
    """Proposes draft tokens for one row."""

    @property
    def needs_last_token(self) -> bool:
        """Whether to read the last token, if it is drawn but not read yet, before `propose` is called."""

    def is_ready(self, answer: Sequence[int]) -> bool:
        """Whether to ask for draft tokens behind an answer."""

    def propose(self, tokens: Sequence[int], limit: int) -> list[int]:
        """Give up to `limit` draft tokens that may follow the tokens of a prompt and its answer."""

    def update(self, draft_tokens: int, accepted_tokens: int) -> None:
        """Note how many of the draft tokens were accepted."""


class ChainedProposer:
    """Several proposers for one row: the first with a proposal counts."""

    def __init__(self, proposers: Sequence[Proposer]) -> None:
        self._proposers = proposers
        self._last = proposers[0]  # the one whose draft tokens were used

    @property
    def needs_last_token(self) -> bool:
        """Whether any of them needs it."""
        return any(proposer.needs_last_token for proposer in self._proposers)

    def is_ready(self, answer: Sequence[int]) -> bool:
        """Whether any of them is; each hears of the answer."""
        ready = [proposer.is_ready(answer) for proposer in self._proposers]
        return any(ready)

    def propose(self, tokens: Sequence[int], limit: int) -> list[int]:
        """Give the draft tokens of the first proposer that has any."""
        for proposer in self._proposers:
            if draft := proposer.propose(tokens, limit):
                self._last = proposer
                return draft
        return []

    def update(self, draft_tokens: int, accepted_tokens: int) -> None:
        """Update the proposer whose draft tokens they were."""
        self._last.update(draft_tokens, accepted_tokens)


class DraftLength:
    """How many tokens to propose: more while they are accepted, none for some steps after one with none accepted."""

    def __init__(self, longest: int, longest_pause: int = _SHORTEST_PAUSE) -> None:
        self.tokens = min(_FIRST_LENGTH, longest)
        self.pause = 0  # steps left
        self._longest = longest
        self._longest_pause = longest_pause
        self._next_pause = _SHORTEST_PAUSE

    def skip_step(self) -> bool:
        """Whether to propose nothing in this step; counts the pause down."""
        skip = self.pause > 0
        self.pause -= skip
        return skip

    def update(self, draft_tokens: int, accepted_tokens: int) -> None:
        """Note how many of the draft tokens were accepted. Each pause in a row is twice as long, up to the longest."""
        if accepted_tokens == 0:
            self.tokens = min(_FIRST_LENGTH, self._longest)
            self.pause, self._next_pause = self._next_pause, min(self._longest_pause, 2 * self._next_pause)
            return
        all_accepted = accepted_tokens == draft_tokens
        self.tokens = min(self._longest, 2 * self.tokens) if all_accepted else max(2, accepted_tokens + 1)
        self._next_pause = _SHORTEST_PAUSE
