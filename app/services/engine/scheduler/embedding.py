"""Texts that become vectors: their last hidden states, pooled, a part of the work at a time."""

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import mlx.core as mx
import numpy as np

from app.services.engine.cache.layers import Layers
from app.services.engine.model.blas import threads
from app.services.engine.model.language_model import LanguageModel
from app.services.engine.scheduler.running_request import RunningEmbedding
from app.services.engine.scheduler.steering import Steering
from app.services.errors import NoEmbeddings
from app.services.generation import Embedded, Pooling

_MOST_ROWS, _MOST_TOKENS = 32, 8192  # of a group, whose caches are in memory together


class Group(Protocol):
    """Some inputs of a request, of about one length, which are computed together."""

    @property
    def is_finished(self) -> bool:
        """Whether their vectors are computed."""

    def compute(self, model: Any, budget: int) -> int:
        """Compute about so many tokens with what the queue has of the model. Returns how many it was, padding too."""

    def vectors(self) -> Mapping[int, Any]:
        """Give the vectors, by index of the input."""


class EmbeddingModel(Protocol):
    """A model as the queue has it."""

    def prepare(self) -> Any:
        """Give what groups compute with, before each slice. Raises AppError for a model that cannot embed."""

    def free(self) -> None:
        """Let go of the model."""


class Embedding:
    """The vectors of one request in the making. On the engine thread."""

    def __init__(
        self,
        request: RunningEmbedding | None,
        model: str,
        lengths: Sequence[int],  # tokens of each input
        make_group: Callable[[Sequence[int]], Group],  # of the inputs with these indices
        *,
        most_tokens: int = _MOST_TOKENS,  # of a group, padding too, unless it has one input
        dimensions: int | None = None,  # that each vector is cut to
    ) -> None:
        self.request = request
        self._model = model
        self._lengths = lengths
        self._dimensions = dimensions
        self._groups = deque(map(make_group, _groups_of(lengths, most_tokens)))
        self._vectors: dict[int, Any] = {}  # by index of the input

    @property
    def is_finished(self) -> bool:
        """Whether every vector is computed."""
        return not self._groups

    @property
    def tokens(self) -> int:
        """Tokens of all inputs."""
        return sum(self._lengths)

    def compute(self, model: Any, budget: int) -> int:
        """Compute about so many tokens with what the queue has of the model. Returns how many it was, padding too."""
        group = self._groups[0]
        with threads.all():
            spent = group.compute(model, budget)
        if group.is_finished:
            self._vectors |= group.vectors()
            self._groups.popleft()
        return spent

    def result(self) -> Embedded:
        """Give the vectors in the order of the inputs."""
        vectors = np.stack([self._vectors[index] for index in range(len(self._lengths))])
        return Embedded(self._model, self.tokens, vectors[:, : self._dimensions])


class Causal:
    """Gives a model of mlx-lm's once it is known that it gives vectors."""

    def __init__(self, model: LanguageModel, vocabulary: int, steering: Steering) -> None:
        self._model = model
        self._vocabulary = vocabulary
        self._steering = steering
        self._is_checked = False  # at the first request

    def prepare(self) -> LanguageModel:
        """Set the adapters to what counts where a request says nothing. Raises NoEmbeddings."""
        self._steering.use_texts(self._steering.adapters.defaults)
        if not self._is_checked:
            check_hidden(self._model, self._vocabulary)
            self._is_checked = True
        return self._model

    def free(self) -> None:
        """Let go of the model."""
        del self._model


class CausalGroup:
    """Inputs of a causal model, padded on the right: they do not see what follows. Computed some tokens at a time."""

    def __init__(self, inputs: Sequence[Sequence[int]], pooling: Pooling, indices: Sequence[int]) -> None:
        self._indices = indices
        lengths = np.array([len(inputs[index]) for index in indices])
        longest = int(lengths.max())
        self._tokens = np.zeros((len(indices), longest), dtype=np.int32)
        for row, index in enumerate(indices):
            self._tokens[row, : lengths[row]] = inputs[index]
        position = np.arange(longest)[None]
        only = {"cls": 0, "last": lengths[:, None] - 1}.get(pooling)  # the token that counts alone
        counted = position < lengths[:, None] if only is None else position == only
        self._counted = counted  # (rows, longest)
        self._weights = (counted / counted.sum(axis=1, keepdims=True)).astype(np.float32)
        self._is_max = pooling == "max"
        self._layers: Layers | None = None
        self._pooled: mx.array | None = None  # (rows, size)
        self._computed = 0

    @property
    def is_finished(self) -> bool:
        """Whether their vectors are computed."""
        return bool(self._computed == self._tokens.shape[1])

    def compute(self, model: LanguageModel, budget: int) -> int:
        """Compute about so many tokens, of every input as many. Returns how many it was, padding too."""
        self._layers = self._layers or model.new_layers()
        rows, longest = self._tokens.shape
        end = min(longest, self._computed + max(1, budget // rows))
        hidden = model.hidden(self._layers, mx.array(self._tokens[:, self._computed : end])).astype(mx.float32)
        part = self._pool(hidden, self._computed, end)
        if self._pooled is not None:
            part = mx.maximum(self._pooled, part) if self._is_max else self._pooled + part
        self._pooled = part
        mx.eval(self._pooled)
        self._layers.evaluate()
        spent, self._computed = rows * (end - self._computed), end
        return spent

    def _pool(self, hidden: mx.array, start: int, end: int) -> mx.array:
        if self._is_max:
            counted = mx.array(self._counted[:, start:end, None])
            return mx.where(counted, hidden, mx.finfo(mx.float32).min).max(axis=1)
        pooled: mx.array = (mx.array(self._weights[:, None, start:end]) @ hidden)[:, 0]
        return pooled

    def vectors(self) -> dict[int, Any]:
        """Give the vectors, by index of the input."""
        return dict(zip(self._indices, np.array(self._pooled), strict=True))


def check_hidden(model: LanguageModel, vocabulary: int) -> None:
    """Try whether a model gives hidden states; nothing is computed. Raises NoEmbeddings."""
    try:
        hidden = model.hidden(model.new_layers(), mx.array([[0, 1]])) if model.body else None
    except (TypeError, ValueError, AttributeError, IndexError, KeyError):  # it is called in another way
        raise NoEmbeddings from None
    if not isinstance(hidden, mx.array) or hidden.ndim != 3 or hidden.shape[1] != 2:
        raise NoEmbeddings
    if hidden.shape[2] == vocabulary:  # logits
        raise NoEmbeddings


def _groups_of(lengths: Sequence[int], most_tokens: int) -> Iterator[list[int]]:
    """Group the indices of inputs so that little is padding and a group fits into memory."""
    group: list[int] = []
    for index in sorted(range(len(lengths)), key=lengths.__getitem__):
        longest = lengths[index]
        padded = longest * (len(group) + 1)
        if group and (len(group) == _MOST_ROWS or padded > most_tokens or longest > 2 * lengths[group[0]] + 16):
            yield group
            group = []
        group.append(index)
    if group:
        yield group
