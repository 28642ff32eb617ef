"""The places of the batch, by number: who is in each, and what was there last."""

from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from typing import Any

from app.services.engine.cache.layers import Layers
from app.services.engine.cache.prefix_cache import PrefixCache
from app.services.engine.scheduler.row import Row
from app.services.errors import InvalidRequest, SlotBusy, SlotEmpty
from app.services.facts import SlotFacts


@dataclass(slots=True)
class _Place:
    facts: SlotFacts  # as it was left
    row: Row | None = None  # that is in it
    tokens: list[int] = field(default_factory=list)  # that its last row, or a file, left in the prefix cache

    def leave(self) -> None:
        if self.row is not None:
            row, self.row = self.row, None
            self.hold([] if any(row.scales) else row.layer_tokens)  # what adapters made is not told apart in a file

    def hold(self, tokens: list[int]) -> None:
        self.tokens = tokens
        self.facts = replace(self.facts, prompt_tokens=len(tokens))


class Slots:
    """Rows have the same place from their admission to their end. Lives on the engine thread."""

    def __init__(self, count: int, prefixes: PrefixCache, running: Callable[[], Collection[Row]]) -> None:
        self._count = count
        self._prefixes = prefixes
        self._running = running
        self.clear()

    def clear(self) -> None:
        """Forget what was in the places."""
        self._places = [_Place(SlotFacts(number)) for number in range(self._count)]
        self._tasks = 0

    def seat(self) -> None:
        """Give each of the running rows a place that has none; rows that run no more leave theirs."""
        rows = self._running()
        running = set(rows)
        for place in self._places:
            if place.row not in running:
                place.leave()
        seated = {place.row for place in self._places}
        for row in rows:
            if row not in seated:
                self._take(row)

    def facts(self) -> list[SlotFacts]:
        """Say what is in each place of the batch."""
        self.seat()
        return [place.facts if place.row is None else _at_work(place.facts, place.row) for place in self._places]

    def layers(self, slot: int) -> tuple[Any, Layers]:
        """Give copies of the tokens and layers that an idle place left. Raises SlotEmpty if nothing is kept."""
        if (cached := self._prefixes.get_whole(self._free(slot).tokens)) is None:
            raise SlotEmpty(slot)
        return cached.tokens, cached.layers

    def fill(self, slot: int, read: Callable[[], tuple[list[int], Layers, int]]) -> tuple[int, int]:
        """Put what is read into the prefix cache, and note it of an idle place. Returns tokens and bytes."""
        place = self._free(slot)
        tokens, layers, size = read()
        self._prefixes.put(tokens, layers)
        place.hold(tokens)
        return len(tokens), size

    def erase(self, slot: int) -> int:
        """Forget what an idle place left, and the conversation that it belongs to. Returns the tokens."""
        place = self._free(slot)
        tokens = place.tokens
        self._prefixes.forget(tokens)
        place.hold([])
        return len(tokens)

    def _take(self, row: Row) -> None:
        free = [place for place in self._places if place.row is None]
        wanted = [place for place in free if place.facts.id == row.slot]
        for place in (wanted or free)[:1]:
            self._tasks += 1
            place.row = row
            place.facts = replace(place.facts, task=self._tasks, settings=row.settings, limit=row.max_tokens)

    def _free(self, slot: int) -> _Place:
        """Give an idle place. Raises InvalidRequest for one that is taken or does not exist."""
        self.seat()
        if not 0 <= slot < len(self._places):
            raise InvalidRequest(f"There is no slot {slot}; there are {len(self._places)}", param="id_slot")
        if self._places[slot].row is not None:
            raise SlotBusy(slot)
        return self._places[slot]


def _at_work(facts: SlotFacts, row: Row) -> SlotFacts:
    return replace(
        facts,
        processing=True,
        prompt_tokens=len(row.prompt),
        prompt_done=max(0, min(row.prefill.length, len(row.prompt)) - row.cached_tokens),
        cached=row.cached_tokens,
        decoded=len(row.answer),
    )
