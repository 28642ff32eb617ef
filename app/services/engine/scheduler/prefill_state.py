"""How much of a row's prompt is computed."""

import time
from bisect import insort
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from app.services.engine.cache.layers import Checkpoints, Layers
from app.services.engine.cache.prefixes import CHECKPOINT_DISTANCE
from app.services.generation import CacheUse, PromptChange


class Lead(NamedTuple):
    """A prompt that is being computed, and how many of its tokens another one begins with, which waits for them."""

    state: "PrefillState"
    length: int


@dataclass(slots=True, eq=False)
class PrefillState:
    """What is computed of a row before its first token is drawn.

    The answers to one prompt share it as one value, so that no field can be forgotten.
    """

    # The prompt, and as much of the answer as there was when memory ran out. Images have their keys in their places,
    # which are negative, so that every comparison tells them apart.
    tokens: list[int]
    layers: Layers | None = None  # None while the row is in a batch
    length: int = 0  # tokens that are in the layers
    checkpoints: Checkpoints = field(default_factory=dict)
    next_checkpoints: list[int] = field(default_factory=list)  # where they are still to be made, ascending
    lead: Lead | None = None  # what it waits for
    reserved_tokens: int = 0  # tokens for which memory is reserved, those of the answer too
    cache_use: CacheUse = CacheUse(0, "not_stored")
    other_model: bool = False  # another model answered this conversation last
    change: PromptChange | None = None  # of the prompt since the nearest one before it
    start_time: float = field(default_factory=time.perf_counter)  # when the row was admitted, in seconds
    # When it was first admitted, looked up in the cache, and computed; 0.0 before.
    admitted_at: float = 0.0
    looked_up_at: float = 0.0
    computed_at: float = 0.0

    @property
    def tokens_left(self) -> int:
        """Tokens that are still to be computed."""
        return len(self.tokens) - self.length

    def note_look_up(self, began: float) -> None:
        """Note that the row was admitted then, and that by now it is known what is cached."""
        if not self.admitted_at:
            self.admitted_at, self.looked_up_at = began, time.perf_counter()

    def note_computed(self) -> None:
        """Note that the prompt is computed."""
        if not self.computed_at:
            self.computed_at = time.perf_counter()

    def plan_checkpoint(self, position: int) -> None:
        """Have a checkpoint made at a position, unless there is one a few tokens before."""
        earlier = [other for other in (*self.checkpoints, *self.next_checkpoints) if other <= position]
        if position - max([self.length, *earlier]) >= CHECKPOINT_DISTANCE:
            insort(self.next_checkpoints, position)

    def fork(self) -> None:
        """Go on from a copy of what the lead has computed. Its arrays are copied on write."""
        assert self.lead is not None
        lead, self.lead = self.lead.state, None
        assert lead.layers is not None
        self._go_on(lead.layers.copy(), lead)

    def take_over(self, gone: "PrefillState") -> None:
        """Go on in the place of the lead, which is gone, with all that it has computed."""
        assert self.lead is not None
        length, above = self.lead.length, gone.lead
        self.lead = Lead(above.state, min(length, above.length)) if above else None
        if gone.layers is not None and gone.length > self.length:
            self._go_on(gone.take_layers(), gone)

    def _go_on(self, layers: Layers, lead: "PrefillState") -> None:
        self.layers, self.length, self.checkpoints = layers, lead.length, dict(lead.checkpoints)
        self.next_checkpoints = [position for position in self.next_checkpoints if position > self.length]
        self.note_shared(self.length, self.length)

    def next_tokens(self, most: int) -> list[int]:
        """Give the tokens to compute next: at most so many, and not beyond the next checkpoint."""
        end = min([self.length + most, *self.next_checkpoints[:1]])
        return self.tokens[self.length : end]

    def advance(self, tokens: int) -> None:
        """Note that so many more tokens are in the layers. Make a checkpoint where one is due.

        A later prompt can begin there, which it could not with layers that cannot be trimmed.
        """
        self.length += tokens
        if self.layers is not None and self.next_checkpoints[:1] == [self.length]:
            checkpoint = self.layers.checkpoint()
            checkpoint.evaluate()
            self.checkpoints[self.next_checkpoints.pop(0)] = checkpoint

    def note_cache_use(self, use: CacheUse) -> None:
        """Note what the prefix cache had of the prompt when the row was admitted."""
        self.cache_use = replace(use, change=self.change)
        self.start_time = time.perf_counter()

    def note_shared(self, tokens: int, first_diff: int) -> None:
        """Note that so many tokens come from a row that runs, whose prompt differs after `first_diff`."""
        is_whole = tokens >= len(self.tokens) - 1
        self.note_cache_use(CacheUse(tokens, "whole") if is_whole else CacheUse(tokens, "first_diff", first_diff))

    def take_layers(self) -> Layers:
        """Give the layers away."""
        layers, self.layers = self.layers, None
        assert layers is not None
        return layers

    def drop_layers(self) -> None:
        """Free all arrays."""
        self.layers, self.checkpoints = None, {}

    def for_sibling(self) -> "PrefillState":
        """Give the state for another answer to this prompt: all that is computed counts as cached."""
        use = CacheUse(self.length, "whole", change=self.change)
        return replace(self, layers=None, checkpoints=dict(self.checkpoints), next_checkpoints=[], cache_use=use)

    def restarted(self, tokens: list[int]) -> "PrefillState":
        """Give the state in which nothing of these tokens is computed."""
        return replace(self, tokens=tokens, layers=None, length=0, checkpoints={}, next_checkpoints=[], lead=None)
