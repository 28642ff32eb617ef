"""Caches that cannot be trimmed: checkpoints at the ends of messages are reused, and cost little."""

from pathlib import Path
from typing import Any

import pytest

from app.services.engine.cache import prefix_store
from app.services.engine.cache.layers import is_trimmable, nbytes
from app.services.engine.cache.prefix_cache import PrefixCache
from app.services.engine.cache.prefix_store import PrefixStore
from app.services.engine.cache.prefixes import message_ends
from app.services.engine.sampling.params import SamplingParams
from app.services.engine.scheduler.row import Row
from app.services.engine.scheduler.scheduler import Scheduler
from tests.engine.workshop import HYBRID, Workshop, finish, prompts

OPEN, CLOSE = 1, 2
CONTROLS = frozenset({OPEN, CLOSE})
TEXTS = prompts(12, 120)


def message(index: int) -> list[int]:
    return [OPEN, *TEXTS[index], *TEXTS[index - 1][:40], CLOSE]


def chat(*indices: int) -> list[int]:
    """A conversation of these messages, with the beginning of the answer."""
    return [token for index in indices for token in message(index)] + [OPEN, 600]


@pytest.fixture(scope="module", params=["gemma3_text", "mamba2", HYBRID])
def workshop(request: Any, tiny: Path) -> Workshop:
    return Workshop(request.param, tiny)


def ask(workshop: Workshop, scheduler: Scheduler, prompt: list[int]) -> Row:
    """Answer, and see that what was cached changes nothing."""
    row = workshop.row(prompt, SamplingParams(), 6)
    finish(scheduler, [row])
    assert row.answer == workshop.alone(prompt, SamplingParams(), 6)
    return row


def test_an_edited_last_message_and_a_growing_chat_reuse_the_beginning(workshop: Workshop) -> None:
    scheduler = workshop.scheduler(cache_bytes=2**30, controls=CONTROLS)
    assert ask(workshop, scheduler, chat(0, 1, 2)).cached_tokens == 0
    edited = ask(workshop, scheduler, chat(0, 1, 3))
    assert edited.cached_tokens == len(message(0)) + len(message(1))
    assert ask(workshop, scheduler, [*chat(0, 1, 2)[:-2], OPEN, 601]).cached_tokens == len(chat(0, 1, 2)) - 2, (
        "without thoughts"
    )
    grown = ask(workshop, scheduler, [*chat(0, 1, 3), *edited.answer, CLOSE, *chat(4)])
    assert grown.cached_tokens == len(chat(0, 1, 3)) + len(edited.answer) - 1
    again = ask(workshop, scheduler, [*chat(0, 1, 3), *edited.answer, CLOSE, *chat(5)])
    assert again.cached_tokens == grown.cached_tokens
    assert ask(workshop, scheduler, chat(0, 6)).cached_tokens == len(message(0))


def test_checkpoints_survive_a_restart(workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefix_store, "_SETTLE_SECONDS", 0.0)
    for memory in (2**30, 0):
        folder = tmp_path / str(memory)
        cached = []
        for last in (2, 3):
            prefixes = PrefixCache(memory, PrefixStore(folder, "model", 2**30))
            scheduler = workshop.scheduler(prefixes=prefixes, controls=CONTROLS)
            cached.append(ask(workshop, scheduler, chat(0, 1, last)).cached_tokens)
            prefixes.close()
        assert cached == [0, len(message(0)) + len(message(1))]


def test_a_checkpoint_holds_only_layers_that_cannot_be_trimmed(workshop: Workshop) -> None:
    scheduler = workshop.scheduler(cache_bytes=2**30, controls=CONTROLS)
    ask(workshop, scheduler, chat(0, 1, 2, 3, 4))
    (entry,) = scheduler.prefixes._entries
    assert len(entry.checkpoints) == 4
    whole = sum(nbytes([layer]) for layer in entry.layers if not is_trimmable(layer))
    for layers in entry.checkpoints.values():
        assert 0 < nbytes(layers) <= whole
    ask(workshop, scheduler, chat(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11))
    assert max(len(entry.checkpoints) for entry in scheduler.prefixes._entries) <= 8


def test_message_ends_are_the_first_and_the_last_few_and_never_close_together() -> None:
    text = [OPEN, *[9] * 50, CLOSE]
    assert message_ends([*text * 9, OPEN, 9], 0, CONTROLS) == [51 + 1, 52 * 7, 52 * 8, 52 * 9]
    assert message_ends([*text * 2, OPEN, 9], 52, CONTROLS) == [104]
    assert message_ends([OPEN, CLOSE] * 20, 0, CONTROLS) == [39]
    assert message_ends([9] * 100, 0, CONTROLS) == []


def test_a_title_does_not_cost_the_conversation_that_it_is_about(workshop: Workshop) -> None:
    scheduler = workshop.scheduler(cache_bytes=2**30, controls=CONTROLS)
    first = ask(workshop, scheduler, chat(0, 1, 2))
    turn = [*chat(0, 1, 2), *first.answer, CLOSE, *chat(3)]
    second = ask(workshop, scheduler, turn)
    scheduler.prefixes._max_bytes = scheduler.prefixes.nbytes
    ask(workshop, scheduler, chat(7))  # a title, which fits only where the conversation goes
    third = ask(workshop, scheduler, [*turn, *second.answer, CLOSE, *chat(5)])
    assert third.cached_tokens == len(turn) + len(second.answer) - 1
