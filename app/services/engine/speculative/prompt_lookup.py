"""Prompt lookup: proposes the tokens that followed the answer's last n-gram earlier in the prompt or the answer."""

from collections.abc import Sequence

import numpy as np

from app.services.engine.speculative.proposer import DraftLength

_NGRAM_SIZES = (4, 3, 2)  # tokens that have to match, tried in this order
_COPIED = 8  # tokens that have occurred before, and in this order: the answer seems to copy
_STILL_COPIED = 4  # the same where draft tokens were accepted last
_LONGEST_PAUSE = 64  # steps
MOST_COPIED = 16  # draft tokens at once


class PromptLookupProposer:
    """Proposes for one row from what its prompt and its answer repeat."""

    needs_last_token = False  # proposals are rare, and reading the token would slow down every step

    def __init__(self, max_draft_tokens: int) -> None:
        self._draft_length = DraftLength(max_draft_tokens)
        self._tokens: list[int] = []
        self._positions: dict[tuple[int, ...], int] = {}  # n-gram to where its last occurrence ends

    def is_ready(self, answer: Sequence[int]) -> bool:
        """Whether to ask for draft tokens behind an answer."""
        return True

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


class CopyProposer:
    """Proposes for one row what followed its last tokens before, once these are enough to say that it copies.

    Text that copies nothing costs one search a token, and no draft tokens.
    """

    needs_last_token = False

    def __init__(self, prompt: Sequence[int], max_draft_tokens: int = MOST_COPIED) -> None:
        self._draft_length = DraftLength(max_draft_tokens, _LONGEST_PAUSE)
        self._tokens = np.array(prompt, dtype=np.int32)  # of prompt and answer, with room for more
        self._length = self._prompt = len(prompt)
        self._position = 0  # behind the last occurrence of the last tokens; 0 where there is none
        self._copies = False  # whether draft tokens were accepted last

    def is_ready(self, answer: Sequence[int]) -> bool:
        """Whether to ask for draft tokens behind an answer: whether it copies."""
        self._append(answer[self._length - self._prompt :])
        self._position = 0 if self._draft_length.skip_step() else self._find(_STILL_COPIED if self._copies else _COPIED)
        return self._position > 0

    def propose(self, tokens: Sequence[int], limit: int) -> list[int]:
        """Give up to `limit` draft tokens that may follow."""
        if not self._position:
            return []
        size = self._draft_length.tokens
        following = self._tokens[self._position : min(self._position + size, self._length)].tolist()
        return [following[step % len(following)] for step in range(min(size, limit))]

    def update(self, draft_tokens: int, accepted_tokens: int) -> None:
        """Note how many of the draft tokens were accepted."""
        self._draft_length.update(draft_tokens, accepted_tokens)
        self._copies = accepted_tokens > 0

    def _append(self, tokens: Sequence[int]) -> None:
        end = self._length + len(tokens)
        if end > len(self._tokens):
            self._tokens = np.concatenate([self._tokens, np.zeros(end, dtype=np.int32)])
        self._tokens[self._length : end] = tokens
        self._length = end

    def _find(self, size: int) -> int:
        """Give the position behind the last earlier occurrence of so many of the last tokens; 0 where there is none."""
        tokens, end = self._tokens, self._length
        if end <= size:
            return 0
        positions = np.flatnonzero(tokens[size - 1 : end - 1] == tokens[end - 1]) + size
        for back in range(2, size + 1):
            if not positions.size:
                return 0
            positions = positions[tokens[positions - back] == tokens[end - back]]
        return int(positions[-1]) if positions.size else 0
