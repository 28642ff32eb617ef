"""How much of a row's prompt is computed."""

import time
from dataclasses import dataclass, field, replace

import mlx.core as mx

from app.services.engine.cache.layers import Checkpoints, Layers, make_checkpoint
from app.services.generation import CacheUse


@dataclass(slots=True)
class PrefillState:
    """What is computed of a row before its first token is drawn.

    The answers to one prompt share it as one value, so that no field can be forgotten.
    """

    tokens: list[int]  # the prompt, and as much of the answer as there was when memory ran out
    layers: Layers | None = None  # None while the row is in a batch
    length: int = 0  # tokens that are in the layers
    checkpoints: Checkpoints = field(default_factory=dict)
    next_checkpoints: list[int] = field(default_factory=list)  # where they are still to be made, ascending
    reserved_tokens: int = 0  # tokens for which memory is reserved, those of the answer too
    cache_use: CacheUse = CacheUse(0, "not_stored")
    other_model: bool = False  # another model answered this conversation last
    start_time: float = field(default_factory=time.perf_counter)  # when the row was admitted, in seconds

    @property
    def tokens_left(self) -> int:
        """Tokens that are still to be computed."""
        return len(self.tokens) - self.length

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
            checkpoint = make_checkpoint(self.layers)
            mx.eval([layer.state for layer in checkpoint])
            self.checkpoints[self.next_checkpoints.pop(0)] = checkpoint

    def note_cache_use(self, use: CacheUse) -> None:
        """Note what the prefix cache had of the prompt when the row was admitted."""
        self.cache_use = use
        self.start_time = time.perf_counter()

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
        use = CacheUse(self.length, "whole")
        return replace(self, layers=None, checkpoints=dict(self.checkpoints), next_checkpoints=[], cache_use=use)

    def restarted(self, tokens: list[int]) -> "PrefillState":
        """Give the state in which nothing of these tokens is computed."""
        return replace(self, tokens=tokens, layers=None, length=0, checkpoints={}, next_checkpoints=[])
