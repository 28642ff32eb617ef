"""An encoder with what comes after its body: a head that ranks, or pooling and dense layers that make a vector."""

from collections.abc import Mapping, Sequence
from typing import Any

import mlx.core as mx
from mlx.nn.layers.activations import gelu, relu, silu
from mlx.nn.layers.base import Module
from mlx.nn.layers.linear import Linear

from app.services.engine.encoders import layout
from app.services.engine.encoders.head import Head
from app.services.engine.encoders.layers import Encoder
from app.services.engine.encoders.pooling import pool
from app.services.generation import Pooling
from app.services.sentence_files import Mode, SentenceFiles


class Dense(Module):
    """A layer that a pooled vector goes through."""

    def __init__(self, inputs: int, outputs: int, *, bias: bool, activation: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.linear = Linear(inputs, outputs, bias=bias)
        self._activation = DENSE_ACTIVATIONS[activation]

    def __call__(self, vectors: mx.array) -> mx.array:
        """Give vectors (rows, outputs) for vectors (rows, inputs)."""
        outputs: mx.array = self._activation(self.linear(vectors))
        return outputs


DENSE_ACTIVATIONS: Mapping[str, Any] = {
    "identity": lambda vectors: vectors,
    "tanh": mx.tanh,
    "relu": relu,
    "gelu": gelu,
    "silu": silu,
    "sigmoid": mx.sigmoid,
}


class EncoderModel(Module):
    """All of the weights."""

    def __init__(self, config: Mapping[str, Any], sentence: SentenceFiles, *, ranks: bool) -> None:
        """Make it with weights of no meaning. Raises LoadFailed for a configuration that cannot be used."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.body: Encoder = layout.make_body(config)
        if ranks:
            self.head = Head(layout.head_config(config))
        self.dense: list[Dense] = []
        self._sentence = sentence
        self._size: int = layout.size(config)

    @property
    def ranks(self) -> bool:
        """Whether it gives a number for a query and a document, and no vectors."""
        return "head" in self

    @property
    def sentence(self) -> SentenceFiles:
        """How texts become vectors, as its files have it."""
        return self._sentence

    @property
    def vocabulary(self) -> int:
        """How many tokens it knows."""
        return int(self.body.words.weight.shape[0])  # type: ignore[attr-defined]

    @property
    def size(self) -> int:
        """The dimensions of a vector."""
        if self.dense:
            return int(self.dense[-1].linear.weight.shape[0])
        return self._size * max(1, len(self._sentence.pooling))

    def read_out(self, hidden: mx.array, is_text: mx.array, is_prompt: mx.array, pooling: Pooling | None) -> mx.array:
        """Give vectors (rows, size), or numbers (rows, 1), of the body's hidden states (rows, length, size)."""
        if self.ranks:
            return self.head(hidden, is_text)
        counted = is_text if self._sentence.include_prompt else mx.logical_and(is_text, mx.logical_not(is_prompt))
        modes: Sequence[Mode] = (pooling,) if pooling else self._sentence.pooling or ("mean",)
        vectors = pool(hidden, counted.astype(mx.float32), modes)
        for dense in self.dense if len(modes) == max(1, len(self._sentence.pooling)) else ():
            vectors = dense(vectors)
        return vectors
