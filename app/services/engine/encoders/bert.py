"""BERT and what is built like it: RoBERTa, XLM-RoBERTa, CamemBERT, DistilBERT, MPNet."""

from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import numpy as np
from mlx.nn.layers.base import Module
from mlx.nn.layers.embedding import Embedding
from mlx.nn.layers.linear import Linear
from mlx.nn.layers.normalization import LayerNorm

from app.services.engine.encoders.layers import ACTIVATIONS, Masks, attend, padding_mask

_BUCKETS, _FURTHEST = 32, 128  # of MPNet's distances between tokens


@dataclass(frozen=True, slots=True)
class BertConfig:
    """Its numbers."""

    size: int
    layers: int
    heads: int
    inner: int  # of the feed-forward part
    vocabulary: int
    positions: int
    types: int  # of texts; 0 where the model does not tell them apart
    first_position: int  # the number of the first token's
    activation: str
    epsilon: float
    has_distances: bool  # attention depends on how far tokens are apart, as in MPNet


class BertLayer(Module):
    """Attention and a feed-forward part, each normalized after what it is added to."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.query = Linear(config.size, config.size)
        self.key = Linear(config.size, config.size)
        self.value = Linear(config.size, config.size)
        self.out = Linear(config.size, config.size)
        self.attention_norm = LayerNorm(config.size, config.epsilon)
        self.up = Linear(config.size, config.inner)
        self.down = Linear(config.inner, config.size)
        self.norm = LayerNorm(config.size, config.epsilon)
        self._heads = config.heads
        self._activation = ACTIVATIONS[config.activation]

    def __call__(self, hidden: mx.array, masks: Masks) -> mx.array:
        """Give the hidden states (rows, length, size) after this layer."""
        attention = attend(self.query(hidden), self.key(hidden), self.value(hidden), self._heads, masks["all"])
        hidden = self.attention_norm(hidden + self.out(attention))
        after: mx.array = self.norm(hidden + self.down(self._activation(self.up(hidden))))
        return after


class Bert(Module):
    """The body."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.words = Embedding(config.vocabulary, config.size)
        self.positions = Embedding(config.positions, config.size)
        if config.types:
            self.types = Embedding(config.types, config.size)
        if config.has_distances:
            self.distances = Embedding(_BUCKETS, config.heads)
        self.norm = LayerNorm(config.size, config.epsilon)
        self.layers = [BertLayer(config) for _ in range(config.layers)]
        self._config = config

    def masks(self, is_text: mx.array) -> Masks:
        """Give what hides the padding, and in MPNet says how far tokens are apart."""
        mask = padding_mask(is_text)
        if self._config.has_distances:
            mask = mask + self.distances(mx.array(_buckets(is_text.shape[1]))).transpose(2, 0, 1)[None]
        return {"all": mask}

    def embed(self, tokens: mx.array, types: mx.array) -> mx.array:
        """Give what the first layer takes, of token ids and the numbers of their texts, both (rows, length)."""
        hidden = self.words(tokens) + self.positions(mx.arange(tokens.shape[1]) + self._config.first_position)
        if self._config.types:
            hidden = hidden + self.types(mx.minimum(types, self._config.types - 1))
        normalized: mx.array = self.norm(hidden)
        return normalized

    def finish(self, hidden: mx.array) -> mx.array:
        """Give them as they are."""
        return hidden


def _buckets(length: int) -> Any:
    """Give the number of each distance between tokens (length, length): exact up to 7, then ever coarser, by sign."""
    distance = np.arange(length)[None] - np.arange(length)[:, None]
    half, exact = _BUCKETS // 2, _BUCKETS // 4
    far = np.maximum(np.abs(distance), 1)
    coarse = exact + (np.log(far / exact) / np.log(_FURTHEST / exact) * (half - exact)).astype(np.int32)
    bucket = np.where(np.abs(distance) < exact, np.abs(distance), np.minimum(coarse, half - 1))
    return (bucket + np.where(distance > 0, half, 0)).astype(np.int32)
