"""Caches that cannot be trimmed: checkpoints in a prompt are reused, and cost little."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.services.engine.cache import prefix_store
from app.services.engine.cache.layers import is_trimmable
from app.services.engine.cache.prefix_cache import PrefixCache
from app.services.engine.cache.prefix_store import PrefixStore
from app.services.engine.cache.prefixes import checkpoint_positions, message_ends
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
    whole = sum(layer.nbytes for layer in entry.layers.caches if not is_trimmable(layer))
    for layers in entry.checkpoints.values():
        assert 0 < layers.nbytes <= whole
    ask(workshop, scheduler, chat(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11))
    assert max(len(entry.checkpoints) for entry in scheduler.prefixes._entries) <= 8


def test_what_branches_off_far_back_computes_little_more_than_what_follows(workshop: Workshop) -> None:
    """Also behind many more messages than there are checkpoints: each of them has a turn of its own here."""
    scheduler = workshop.scheduler(cache_bytes=2**30, controls=CONTROLS)
    turns = [[*message(index % 12), OPEN, 600 + index, CLOSE] for index in range(24)]
    for length in range(1, len(turns) + 1):
        finish(scheduler, [workshop.row([token for turn in turns[:length] for token in turn], SamplingParams(), 1)])
    whole = sum(map(len, turns))
    for back in (2, 5, 10, 20):
        branch = [token for turn in turns[:-back] for token in turn]
        prefix = scheduler.prefixes.get([*branch, 700])
        assert prefix is not None
        assert whole - len(prefix.tokens) <= 2.5 * (whole - len(branch)), (back, len(prefix.tokens), len(branch))


def test_message_ends_are_the_first_and_the_last_few_and_never_close_together() -> None:
    text = [OPEN, *[9] * 50, CLOSE]
    assert message_ends([*text * 9, OPEN, 9], 0, CONTROLS) == [51 + 1, 52 * 7, 52 * 8, 52 * 9]
    assert message_ends([*text * 2, OPEN, 9], 52, CONTROLS) == [104]
    assert message_ends([OPEN, CLOSE] * 20, 0, CONTROLS) == [39]
    assert message_ends([9] * 100, 0, CONTROLS) == []


def test_a_long_text_without_messages_is_computed_once(workshop: Workshop, tmp_path: Path) -> None:
    """Far beyond the window; after a restart too, with memory for it and without."""
    text = [token for prompt in TEXTS for token in prompt]
    assert len(text) > 400
    for memory in (2**30, 0):
        cached = []
        for _ in range(2):
            prefixes = PrefixCache(memory, PrefixStore(tmp_path / str(memory), "model", 2**30))
            scheduler = workshop.scheduler(prefixes=prefixes, controls=CONTROLS)
            cached.append(ask(workshop, scheduler, text).cached_tokens)
            if memory:
                cached.append(ask(workshop, scheduler, text).cached_tokens)
            prefixes.close()
        end = len(text) - 1
        assert cached == ([0, end, end, end] if memory else [0, end])


def test_the_third_text_that_begins_alike_reuses_the_beginning(workshop: Workshop) -> None:
    """The first did not know where others would differ, and the second has seen it."""
    document = [token for prompt in TEXTS[:8] for token in prompt]
    scheduler = workshop.scheduler(cache_bytes=2**30, controls=CONTROLS)
    endings = ([700, *TEXTS[9]], [701, *TEXTS[10]], [702, *TEXTS[11]], [703])
    cached = [ask(workshop, scheduler, [*document, *ending]).cached_tokens for ending in endings]
    assert cached == [0, 0, len(document), len(document)]


@settings(max_examples=8, deadline=None)
@given(draw=st.data())
def test_whatever_was_asked_before_a_text_is_answered_the_same(workshop: Workshop, draw: st.DataObject) -> None:
    """Texts that share beginnings of any length with each other, some with messages; asked twice all is cached."""
    scheduler = workshop.scheduler(cache_bytes=2**30, controls=CONTROLS)
    text = [*TEXTS[2], *message(3), *TEXTS[4], *TEXTS[6], *TEXTS[8]]
    for _ in range(4):
        length = draw.draw(st.integers(1, len(text)))
        text = [*text[:length], *draw.draw(st.sampled_from(([], TEXTS[5], TEXTS[7], message(9))))]
        ask(workshop, scheduler, text)
        again = ask(workshop, scheduler, text).cached_tokens
        assert len(text) - again <= 65


def test_checkpoints_are_where_prompts_differ_and_at_the_end_of_a_long_text() -> None:
    text = [OPEN, *[9] * 50, CLOSE]
    assert checkpoint_positions([9] * 200, 0, CONTROLS) == [199]
    assert checkpoint_positions([9] * 200, 0, CONTROLS, 100) == [100, 199]
    assert checkpoint_positions([9] * 200, 90, CONTROLS, 100) == [199]
    assert checkpoint_positions([9] * 200, 0, CONTROLS, 200) == [199]
    assert checkpoint_positions([9] * 65, 0, CONTROLS) == []
    assert checkpoint_positions([*text * 2, OPEN, 9], 0, CONTROLS, 104) == [52, 104]
    assert checkpoint_positions([*text * 2, *[9] * 80], 0, CONTROLS, 100) == [52, 100, 103, 183]


def test_a_title_does_not_cost_the_conversation_that_it_is_about(workshop: Workshop) -> None:
    scheduler = workshop.scheduler(cache_bytes=2**30, controls=CONTROLS)
    first = ask(workshop, scheduler, chat(0, 1, 2))
    turn = [*chat(0, 1, 2), *first.answer, CLOSE, *chat(3)]
    second = ask(workshop, scheduler, turn)
    scheduler.prefixes._max_bytes = scheduler.prefixes.nbytes
    ask(workshop, scheduler, chat(7))  # a title, which fits only where the conversation goes
    third = ask(workshop, scheduler, [*turn, *second.answer, CLOSE, *chat(5)])
    assert third.cached_tokens == len(turn) + len(second.answer) - 1
