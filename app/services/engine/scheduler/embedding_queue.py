"""The requests for embeddings that wait or are being computed."""

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

from mlx_lm.models.cache import make_prompt_cache

from app.services.engine.model.adapters import Adapters
from app.services.engine.model.chunk_sizer import ChunkSizer
from app.services.engine.model.memory_budget import out_of_memory
from app.services.engine.scheduler.embedding import Body, Embedding, body_of
from app.services.engine.scheduler.running_generation import Outbox
from app.services.engine.scheduler.running_request import RunningRequest
from app.services.errors import AppError, OutOfMemory


class EmbeddingQueue:
    """Computes embeddings, a chunk of each request in turn."""

    def __init__(
        self,
        model: Any,
        vocabulary: int,
        outbox: Outbox,
        adapters: Adapters,
        chunk_sizer: ChunkSizer,
        free_memory: Callable[[], None],
    ) -> None:
        self._model = model
        self._vocabulary = vocabulary
        self._outbox = outbox
        self._adapters = adapters
        self._chunk_sizer = chunk_sizer
        self._free_memory = free_memory  # frees what is only stored
        self._body: Body | None = None  # of the model, found at the first request
        self._queue: deque[Embedding] = deque()

    def __len__(self) -> int:
        return len(self._queue)

    def put(self, embedding: Embedding) -> None:
        """Queue a request."""
        self._queue.append(embedding)

    def compute(self, budget: int) -> int:
        """Compute about so many tokens of the first request; the next call is for the next request.

        Returns the tokens of the request if it is finished now, else 0. NoEmbeddings or a lack of memory ends it.
        """
        embedding = self._queue[0]
        try:
            self._compute(embedding, budget)
        except Exception as error:
            if not isinstance(error, AppError) and not out_of_memory(error):
                raise
            self._queue.popleft()
            self._refuse(embedding, error)
            return 0
        self._queue.rotate(-1)
        if not embedding.is_finished:
            return 0
        self._queue.pop()
        self._outbox.put(embedding.request, [embedding.result()])
        return embedding.tokens

    def _compute(self, embedding: Embedding, budget: int) -> None:
        self._adapters.use([self._adapters.defaults])
        self._body = self._body or body_of(self._model, self._vocabulary)
        while budget > 0 and not embedding.is_finished:
            with self._chunk_sizer.expect(budget):
                budget -= embedding.compute(self._body, partial(make_prompt_cache, self._model), budget)

    def _refuse(self, embedding: Embedding, error: Exception) -> None:
        if not isinstance(error, AppError):
            self._free_memory()
            error = OutOfMemory("There was not enough memory for these texts")
        self._outbox.put(embedding.request, [error])

    def cancel(self, request: RunningRequest) -> None:
        """Drop a request."""
        self._queue = deque(embedding for embedding in self._queue if embedding.request is not request)

    def fail(self, error: AppError) -> None:
        """End every request with an error."""
        for embedding in self._queue:
            self._outbox.put(embedding.request, [error])
        self._queue.clear()

    def free(self) -> None:
        """Let go of the model."""
        self._model = self._body = None
