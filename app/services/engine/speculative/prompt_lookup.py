"""Prompt lookup: proposes the tokens that followed the answer's last n-gram earlier in the prompt or the answer."""

from collections.abc import Sequence

from app.services.engine.speculative.proposer import DraftLength

_NGRAM_SIZES = (4, 3, 2)  # tokens that have to match, tried in this order


class PromptLookupProposer:
    """Proposes for one row from what its prompt and its answer repeat."""

    needs_last_token = False  # proposals are rare, and reading the token would slow down every step

    def __init__(self, max_draft_tokens: int) -> None:
        self._draft_length = DraftLength(max_draft_tokens)
        self._tokens: list[int] = []
        self._positions: dict[tuple[int, ...], int] = {}  # n-gram to where its last occurrence ends

    def propose(self, tokens: Sequence[int], limit: int) -> list[int]:
        """Give up to `limit` draft tokens that may follow the tokens of a prompt and its answer."""
        self._index(tokens)
        if self._draft_length.skip_step():
            return []
        size = self._draft_length.tokens
        for ngram_size in _NGRAM_SIZES:
            position = self._positions.get(tuple(self._tokens[-ngram_size:]))
            if position is not None and position < len(self._tokens):
                following = self._tokens[position : position + size]  # repeated where fewer than that follow
                return [following[step % len(following)] for step in range(min(size, limit))]
        return []

    def update(self, draft_tokens: int, accepted_tokens: int) -> None:
        """Note how many of the draft tokens were accepted."""
        self._draft_length.update(draft_tokens, accepted_tokens)

    def _index(self, tokens: Sequence[int]) -> None:
        """Add the n-grams of new tokens, all but the last ones, which nothing follows yet."""
        start = len(self._tokens)
        self._tokens = list(tokens)
        for position in range(max(start, 1), len(self._tokens)):
            for ngram_size in _NGRAM_SIZES:
                if position >= ngram_size:
                    self._positions[tuple(self._tokens[position - ngram_size : position])] = position
