"""Prompts that begin alike while they are computed: one row leads, the others follow and go on from a copy of it."""

from collections.abc import Iterable

import numpy as np

from app.services.engine.cache.prefixes import common_prefix_length
from app.services.engine.scheduler.prefill_state import Lead, PrefillState
from app.services.engine.scheduler.row import Row

MIN_SHARED = 256  # tokens that a row has to be spared for it to wait, or for another's layers to be copied


def shared_length(row: Row, other: Row, least: int) -> int:
    """How many tokens two prompts begin with alike, the last one of each left out; 0 if fewer than `least`.

    The same tokens with other scales of adapters are not alike.
    """
    tokens, others = row.prefill.tokens, other.prefill.tokens
    end = min(len(tokens), len(others)) - 1
    if end < least or row.scales != other.scales or tokens[least - 1] != others[least - 1]:
        return 0
    length = common_prefix_length(*(np.asarray(each[:end], dtype=np.int32) for each in (tokens, others)))
    length = row.images.before(length)
    return length if length >= least else 0


def find_lead(row: Row, queue: Iterable[Row]) -> Lead | None:
    """Find the prompt of a queue that a row should wait for, if there is one that spares it enough.

    The longest shared prefix counts, then which is computed first. A row never waits for more tokens than it would
    compute itself. One whose memory ran out is computed by itself.
    """
    state = row.prefill
    best: Lead | None = None
    for other in queue if not row.failures else ():
        length = shared_length(row, other, state.length + MIN_SHARED)
        if not length or other.failures or length - other.prefill.length < MIN_SHARED:
            continue
        wait = _tokens_until(other.prefill, length)
        if wait <= length - state.length and (best is None or (length, -wait) > (best.length, -_tokens_until(*best))):
            best = Lead(other.prefill, length)
    return best


def _tokens_until(state: PrefillState, length: int) -> int:
    """Tokens that are computed, one after the other, until so many of a prompt are."""
    wait, start = (_tokens_until(*state.lead), state.lead.length) if state.lead else (0, state.length)
    return wait + max(0, length - start)
