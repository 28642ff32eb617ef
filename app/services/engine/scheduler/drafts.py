"""Draft tokens of a row: which there are, what is drawn behind them, and what that means for the row."""

from collections.abc import Sequence
from itertools import takewhile
from typing import cast

import mlx.core as mx
import numpy as np

from app.services.engine.sampling.bitmask import Mask
from app.services.engine.sampling.call_constraint import CallConstraint
from app.services.engine.sampling.sampler import Sampler
from app.services.engine.scheduler.row import Row


def walk(row: Row, draft: Sequence[int]) -> list[Mask]:
    """Give what the row's grammar allows before each token of a draft and behind it, up to one that it does not allow.

    So there is one more than draft tokens are of use; none at all where no grammar binds the next token.
    """
    if row.constraint is None or not row.is_bound:
        return []
    constraint = row.constraint.fork()
    masks = [constraint.mask()]
    for token in draft:
        if not masks[-1][token] or not constraint.is_bound or constraint.failed:
            break
        constraint.accept(token)
        masks.append(constraint.mask() if constraint.is_bound else np.ones_like(masks[-1]))
    return masks


def propose(row: Row, following: mx.array, *, is_read: bool, can_trim: bool) -> list[int]:
    """Draft what a row says next, where that can be taken back and nothing depends on each single step.

    `following` (1,) is its next token, and `is_read` whether the answer has it already, or it is the prompt's.
    """
    if row.proposer is None or row.params.post_sampling:
        return []
    if any(position >= row.drawn_tokens for position in row.forced_tokens):
        return []
    if not can_trim and isinstance(row.constraint, CallConstraint):
        return []  # a call may begin within a draft, which has to be taken back once it is read
    if not row.proposer.is_ready(row.answer):
        return []
    tokens, tokens_left = row.prefill.tokens + row.answer[row.resumed_tokens :], row.max_tokens - row.drawn_tokens
    if is_read:
        return _text(row.proposer.propose(tokens, tokens_left))
    if row.proposer.needs_last_token:
        return _text(row.proposer.propose([*tokens, cast("int", following.item())], tokens_left))
    # The next token is drawn, but not read yet: the draft begins with it.
    draft = _text(row.proposer.propose(tokens, tokens_left))
    if not draft or cast("int", following.item()) == draft[0]:
        return draft[1:]
    row.proposer.update(len(draft), 0)
    return []


def _text(draft: Sequence[int]) -> list[int]:
    """Give a draft up to where it comes to an image of the prompt, whose tokens have negative names."""
    return list(takewhile(lambda token: token >= 0, draft))


def draw_each(row: Row, logits: mx.array, fed: Sequence[int], vocabulary: int, *, fresh: bool) -> list[int]:
    """Draw after each of the tokens that were fed, with the penalties and the noise of its position.

    `logits` are (fed, vocabulary). `fresh`: the first token that was fed is the last of the prompt.
    """
    before, drafted = row.answer[: row.computed_tokens], [*fed][1 if fresh else 0 :]
    counted = [[*before, *drafted[:index]] for index in range(len(drafted))]
    if fresh:
        counted.insert(0, before)
    positions = [row.drawn_tokens + index for index in range(len(fed))]
    sampler = Sampler([row.params] * len(fed), counted, positions, vocabulary, [row.prompt] * len(fed))
    last = [vocabulary, *drafted] if fresh else drafted  # the last token of the prompt is counted already
    return cast("list[int]", sampler(logits, mx.array(last, dtype=mx.uint32)).tolist())


def note_draft(row: Row, drafted: int, accepted: int, *, fresh: bool) -> None:
    """Note a step that fed draft tokens as well, of which so many were accepted."""
    row.note_step(fresh=fresh)
    row.note_certain(accepted)
    row.draft_tokens += drafted
    row.accepted_tokens += accepted
