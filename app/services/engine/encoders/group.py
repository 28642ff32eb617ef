"""Texts of about one length that an encoder reads together, some of its layers at a time."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import mlx.core as mx
import numpy as np

from app.services.engine.encoders.layers import Masks
from app.services.engine.encoders.model import EncoderModel
from app.services.engine.encoders.tokenizer import EncoderInput
from app.services.engine.model.chunk_sizer import ChunkSizer
from app.services.generation import Pooling

MOST_TOKENS = 2048  # of a group, padding too, unless it has one input: a layer of them is computed in one go


class EncoderParts(NamedTuple):
    """What the vectors of an encoder are computed with."""

    model: EncoderModel
    chunk_sizer: ChunkSizer  # measured by each slice


class EncoderGroup:
    """Inputs padded on the right, which attention does not see.

    A text is read as a whole, so work is cut between the layers: a slice is as many of them as the budget has time for.
    """

    def __init__(self, inputs: Sequence[EncoderInput], pooling: Pooling | None, indices: Sequence[int]) -> None:
        self._indices = indices
        self._pooling = pooling
        group = [inputs[index] for index in indices]
        position = np.arange(max(map(len, group)))[None]
        self._tokens = np.zeros((len(group), position.shape[1]), dtype=np.int32)
        for row, one in enumerate(group):
            self._tokens[row, : len(one)] = one.tokens
        lengths = np.array([[len(one)] for one in group])
        self._types = ((position >= np.array([[one.second] for one in group])) & (position < lengths)).astype(np.int32)
        self._is_text = position < lengths
        self._is_prompt = position < np.array([[one.prompt] for one in group])
        self._hidden: mx.array | None = None  # (rows, length, size), after the layers that are computed
        self._masks: Masks = {}
        self._layers = 0  # that are computed
        self._vectors: mx.array | None = None

    @property
    def is_finished(self) -> bool:
        """Whether their vectors are computed."""
        return self._vectors is not None

    def compute(self, model: EncoderParts, budget: int) -> int:
        """Compute some layers, worth about so many tokens. Returns of how many it was the worth, padding too."""
        body = model.model.body
        cost = self._tokens.size / max(1, len(body.layers))  # tokens, of one layer
        layers = body.layers[self._layers : self._layers + max(1, int(budget / cost))]
        spent = max(1, round(cost * len(layers)))
        with model.chunk_sizer.measure(spent):
            if self._hidden is None:
                self._masks = body.masks(mx.array(self._is_text))
                self._hidden = body.embed(mx.array(self._tokens), mx.array(self._types))
            for layer in layers:
                self._hidden = layer(self._hidden, self._masks)
            self._layers += len(layers)
            if self._layers >= len(body.layers):
                self._read_out(model.model, body.finish(self._hidden))
            mx.eval(self._vectors if self._vectors is not None else self._hidden)
        return spent

    def _read_out(self, model: EncoderModel, hidden: mx.array) -> None:
        is_text, is_prompt = mx.array(self._is_text), mx.array(self._is_prompt)
        self._vectors = model.read_out(hidden, is_text, is_prompt, self._pooling).astype(mx.float32)
        self._hidden, self._masks = None, {}

    def vectors(self) -> dict[int, Any]:
        """Give the vectors, by index of the input."""
        return dict(zip(self._indices, np.array(self._vectors), strict=True))
