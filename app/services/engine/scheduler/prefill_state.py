"""How far the prompt of a row is computed."""

import time
from dataclasses import dataclass, field, replace

import mlx.core as mx

from app.services.engine.cache.layers import Checkpoints, Layers, make_checkpoint
from app.services.generation import CacheUse


@dataclass(slots=True)
class PrefillState:
    """What is computed before the first token is drawn.

    It is one value, so that the answers to one prompt can take it from each other whole.
    """

    tokens: list[int]  # to be computed: the prompt, and as much of an answer as there was when memory ran out
    layers: Layers | None = None  # of the row while it is in no batch
    length: int = 0  # of the tokens, those in the layers
    checkpoints: Checkpoints = field(default_factory=dict)
    message_ends: list[int] = field(default_factory=list)  # where checkpoints are still to be made, in ascending order
    reserved_tokens: int = 0  # tokens that memory is set aside for, with those of the answer
    cache_use: CacheUse = CacheUse(0, "not_stored")
    other_model: bool = False  # whether another model answered this conversation last
    start_time: float = field(default_factory=time.perf_counter)  # when the request left the queue, in seconds

    @property
    def tokens_left(self) -> int:
        """Tokens that are still to be computed."""
        return len(self.tokens) - self.length

    def next_tokens(self, most: int) -> list[int]:
        """Give the tokens to compute next: at most so many, and not beyond the next end of a message."""
        end = min([self.length + most, *self.message_ends[:1]])
        return self.tokens[self.length : end]

    def advance(self, tokens: int) -> None:
        """Note that so many more tokens are in the layers. Where a message ends, a checkpoint is made.

        It is what a later prompt could not get back from the whole.
        """
        self.length += tokens
        if self.layers is not None and self.message_ends[:1] == [self.length]:
            checkpoint = make_checkpoint(self.layers)
            mx.eval([layer.state for layer in checkpoint])
            self.checkpoints[self.message_ends.pop(0)] = checkpoint

    def note_cache_use(self, use: CacheUse) -> None:
        """Note what the prefix cache had of the prompt, now that the request has left the queue."""
        self.cache_use = use
        self.start_time = time.perf_counter()

    def take_layers(self) -> Layers:
        """Hand the layers over; there are none then."""
        layers, self.layers = self.layers, None
        assert layers is not None
        return layers

    def drop_layers(self) -> None:
        """Let go of all arrays."""
        self.layers, self.checkpoints = None, {}

    def for_sibling(self) -> "PrefillState":
        """Give the state of another answer to this prompt, for which all that is computed came from here."""
        use = CacheUse(self.length, "whole")
        return replace(self, layers=None, checkpoints=dict(self.checkpoints), message_ends=[], cache_use=use)

    def restarted(self, tokens: list[int]) -> "PrefillState":
        """Give the state in which nothing is computed, and these tokens are to be."""
        return replace(self, tokens=tokens, layers=None, length=0, checkpoints={}, message_ends=[])
