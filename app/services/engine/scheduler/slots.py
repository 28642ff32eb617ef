"""The slots of the batch, by index: which row is in each, and what the one before left."""

from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from typing import Any

from app.services.engine.cache.layers import Layers
from app.services.engine.cache.prefix_cache import PrefixCache
from app.services.engine.scheduler.row import Row
from app.services.errors import InvalidRequest, SlotBusy, SlotEmpty
from app.services.facts import SlotFacts


@dataclass(slots=True)
class _Slot:
    facts: SlotFacts  # as of when its last row came or left
    row: Row | None = None  # that is in it
    tokens: list[int] = field(default_factory=list)  # that its last row, or a file, left in the prefix cache

    def release(self) -> None:
        if self.row is not None:
            row, self.row = self.row, None
            self.set_tokens([] if any(row.scales) else row.layer_tokens)  # a file does not tell adapters apart

    def set_tokens(self, tokens: list[int]) -> None:
        self.tokens = tokens
        self.facts = replace(self.facts, prompt_tokens=len(tokens))


class Slots:
    """A row has the same slot from its admission to its end. Lives on the engine thread."""

    def __init__(self, count: int, prefixes: PrefixCache, running: Callable[[], Collection[Row]]) -> None:
        self._count = count
        self._prefixes = prefixes
        self._running = running
        self.clear()

    def clear(self) -> None:
        """Forget what was in the slots."""
        self._slots = [_Slot(SlotFacts(index)) for index in range(self._count)]
        self._tasks = 0

    def assign(self) -> None:
        """Give each of the running rows a slot that has none; rows that run no more leave theirs."""
        rows = self._running()
        running = set(rows)
        for slot in self._slots:
            if slot.row not in running:
                slot.release()
        in_slots = {slot.row for slot in self._slots}
        for row in rows:
            if row not in in_slots:
                self._assign_one(row)

    def facts(self) -> list[SlotFacts]:
        """Say what is in each slot."""
        self.assign()
        return [slot.facts if slot.row is None else _facts_of_row(slot.facts, slot.row) for slot in self._slots]

    def layers(self, index: int) -> tuple[Any, Layers]:
        """Give copies of the tokens and layers that the last row of an idle slot left. Raises SlotEmpty."""
        if (cached := self._prefixes.get_whole(self._idle_slot(index).tokens)) is None:
            raise SlotEmpty(index)
        return cached.tokens, cached.layers

    def fill(self, index: int, read: Callable[[], tuple[list[int], Layers, int]]) -> tuple[int, int]:
        """Put what is read into the prefix cache, and note it of an idle slot. Returns tokens and bytes."""
        slot = self._idle_slot(index)
        tokens, layers, size = read()
        self._prefixes.put(tokens, layers)
        slot.set_tokens(tokens)
        return len(tokens), size

    def erase(self, index: int) -> int:
        """Forget what an idle slot holds, and the conversation that it belongs to. Returns the tokens."""
        slot = self._idle_slot(index)
        tokens = slot.tokens
        self._prefixes.forget(tokens)
        slot.set_tokens([])
        return len(tokens)

    def _assign_one(self, row: Row) -> None:
        idle = [slot for slot in self._slots if slot.row is None]
        preferred = [slot for slot in idle if slot.facts.id == row.slot]
        for slot in (preferred or idle)[:1]:
            self._tasks += 1
            slot.row = row
            slot.facts = replace(slot.facts, task=self._tasks, settings=row.settings, limit=row.max_tokens)

    def _idle_slot(self, index: int) -> _Slot:
        """Give an idle slot. Raises InvalidRequest for an index that does not exist, SlotBusy."""
        self.assign()
        if not 0 <= index < len(self._slots):
            raise InvalidRequest(f"There is no slot {index}; there are {len(self._slots)}", param="id_slot")
        if self._slots[index].row is not None:
            raise SlotBusy(index)
        return self._slots[index]


def _facts_of_row(facts: SlotFacts, row: Row) -> SlotFacts:
    return replace(
        facts,
        processing=True,
        prompt_tokens=len(row.prompt),
        prompt_done=max(0, min(row.prefill.length, len(row.prompt)) - row.cached_tokens),
        cached=row.cached_tokens,
        decoded=len(row.answer),
    )
