"""The texts that wait to become vectors."""

from collections import deque
from functools import partial
from typing import Any

from mlx_lm.models.cache import make_prompt_cache

from app.services.engine.model.adapters import Adapters
from app.services.engine.model.chunk_sizer import ChunkSizer
from app.services.engine.scheduler.embedding import Body, Embedding, body_of
from app.services.engine.scheduler.running_request import RunningRequest


class EmbeddingQueue:
    """Requests for vectors; each has a slice of a step in turn."""

    def __init__(self, model: Any, vocabulary: int, *, adapters: Adapters, chunk_sizer: ChunkSizer) -> None:
        self._model = model
        self._vocabulary = vocabulary
        self._adapters = adapters
        self._chunk_sizer = chunk_sizer
        self._body: Body | None = None  # of the model, looked for when something is embedded first
        self._queue: deque[Embedding] = deque()

    def __len__(self) -> int:
        return len(self._queue)

    def put(self, embedding: Embedding) -> None:
        """Queue a request."""
        self._queue.append(embedding)

    def compute(self, budget: int) -> Embedding:
        """Compute about so many tokens of the first request. It goes to the end then, or out if it is finished.

        Raises NoEmbeddings where the model does not show its hidden states. After an error it is still the first.
        """
        embedding = self._queue[0]
        self._adapters.use([self._adapters.defaults])
        self._body = self._body or body_of(self._model, self._vocabulary)
        while budget > 0 and not embedding.finished:
            with self._chunk_sizer.expect(budget):
                budget -= embedding.compute(self._body, partial(make_prompt_cache, self._model), budget)
        self._queue.rotate(-1)
        if embedding.finished:
            self._queue.pop()
        return embedding

    def take(self) -> Embedding:
        """Take out the first request."""
        return self._queue.popleft()

    def cancel(self, request: RunningRequest) -> None:
        """Drop a request."""
        self._queue = deque(embedding for embedding in self._queue if embedding.request is not request)

    def clear(self) -> list[Embedding]:
        """Drop all requests. Returns them."""
        embeddings = list(self._queue)
        self._queue.clear()
        return embeddings

    def free(self) -> None:
        """Let go of the model."""
        self._model = self._body = None
