"""The requests for embeddings that wait or are being computed."""

from collections import deque
from collections.abc import Callable

from app.services.engine.model.chunk_sizer import ChunkSizer
from app.services.engine.model.memory_budget import out_of_memory
from app.services.engine.scheduler.embedding import Embedding, EmbeddingModel
from app.services.engine.scheduler.running_generation import Outbox
from app.services.engine.scheduler.running_request import RunningRequest
from app.services.errors import AppError, OutOfMemory


class EmbeddingQueue:
    """Computes embeddings, a chunk of each request in turn."""

    def __init__(
        self,
        model: EmbeddingModel,
        outbox: Outbox,
        chunk_sizer: ChunkSizer,
        free_memory: Callable[[], None],  # frees what is only stored
    ) -> None:
        self._model = model
        self._outbox = outbox
        self._chunk_sizer = chunk_sizer
        self._free_memory = free_memory
        self._queue: deque[Embedding] = deque()

    def __len__(self) -> int:
        return len(self._queue)

    def put(self, embedding: Embedding) -> None:
        """Queue a request."""
        self._queue.append(embedding)

    def compute(self, budget: int) -> int:
        """Compute about so many tokens of the first request; the next call is for the next request.

        Returns the tokens of the request if it is finished now, else 0. An AppError or a lack of memory ends it.
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
        model = self._model.prepare()
        while budget > 0 and not embedding.is_finished:
            with self._chunk_sizer.expect(budget):
                budget -= embedding.compute(model, budget)

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
        self._model.free()
