"""ModernBERT: rotary positions, gated layers, and attention that mostly sees a window."""

from dataclasses import dataclass

import mlx.core as mx
from mlx.nn.layers.base import Module
from mlx.nn.layers.embedding import Embedding
from mlx.nn.layers.linear import Linear
from mlx.nn.layers.normalization import LayerNorm

from app.services.engine.encoders.layers import ACTIVATIONS, Masks, attend_heads, join, padding_mask


@dataclass(frozen=True, slots=True)
class ModernBertConfig:
    """Its numbers."""

    size: int
    heads: int
    inner: int
    vocabulary: int
    windowed: tuple[bool, ...]  # of each layer, whether it sees a window alone
    window: int  # tokens to either side
    base: float  # of rotary positions
    window_base: float  # of those in layers with a window
    activation: str
    epsilon: float
    norm_bias: bool
    attention_bias: bool
    inner_bias: bool


class ModernBertLayer(Module):
    """Attention and a gated feed-forward part, each normalized before."""

    def __init__(self, config: ModernBertConfig, index: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        if index:  # the first takes what is normalized already
            self.attention_norm = LayerNorm(config.size, config.epsilon, bias=config.norm_bias)
        self.projection = Linear(config.size, 3 * config.size, bias=config.attention_bias)
        self.out = Linear(config.size, config.size, bias=config.attention_bias)
        self.norm = LayerNorm(config.size, config.epsilon, bias=config.norm_bias)
        self.up = Linear(config.size, 2 * config.inner, bias=config.inner_bias)
        self.down = Linear(config.inner, config.size, bias=config.inner_bias)
        self._heads = config.heads
        self._activation = ACTIVATIONS[config.activation]
        self._kind = "window" if config.windowed[index] else "all"
        self._base = config.window_base if config.windowed[index] else config.base

    def __call__(self, hidden: mx.array, masks: Masks) -> mx.array:
        """Give the hidden states (rows, length, size) after this layer."""
        hidden = hidden + self._attention(self.attention_norm(hidden) if "attention_norm" in self else hidden, masks)
        inner, gate = mx.split(self.up(self.norm(hidden)), 2, axis=-1)
        return hidden + self.down(self._activation(inner) * gate)

    def _attention(self, hidden: mx.array, masks: Masks) -> mx.array:
        rows, length, size = hidden.shape
        width = size // self._heads
        parts = self.projection(hidden).reshape(rows, length, 3, self._heads, width).transpose(2, 0, 3, 1, 4)
        queries, keys = (
            mx.fast.rope(part, width, traditional=False, base=self._base, scale=1.0, offset=0) for part in parts[:2]
        )
        return self.out(join(attend_heads(queries, keys, parts[2], masks[self._kind])))


class ModernBert(Module):
    """The body."""

    def __init__(self, config: ModernBertConfig) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.words = Embedding(config.vocabulary, config.size)
        self.first_norm = LayerNorm(config.size, config.epsilon, bias=config.norm_bias)
        self.layers = [ModernBertLayer(config, index) for index in range(len(config.windowed))]
        self.norm = LayerNorm(config.size, config.epsilon, bias=config.norm_bias)
        self._window = config.window

    def masks(self, is_text: mx.array) -> Masks:
        """Give what hides the padding, and what hides what is outside of the window too."""
        mask, position = padding_mask(is_text), mx.arange(is_text.shape[1])
        is_far = mx.abs(position[:, None] - position[None]) > self._window
        return {"all": mask, "window": mx.where(is_far[None, None], mx.finfo(mx.float32).min, mask)}

    def embed(self, tokens: mx.array, types: mx.array) -> mx.array:
        """Give what the first layer takes; it does not tell texts apart by anything but their tokens."""
        hidden: mx.array = self.first_norm(self.words(tokens))
        return hidden

    def finish(self, hidden: mx.array) -> mx.array:
        """Normalize what the last layer gave."""
        normalized: mx.array = self.norm(hidden)
        return normalized
