"""One loaded encoder at work: requests take turns, a slice of each."""

from app.services.engine.encoders.group import EncoderParts
from app.services.engine.encoders.model import EncoderModel
from app.services.engine.model.chunk_sizer import ChunkSizer
from app.services.engine.model.loading import memory, release
from app.services.engine.scheduler.embedding import Embedding
from app.services.engine.scheduler.embedding_queue import EmbeddingQueue
from app.services.engine.scheduler.meter import Meter
from app.services.engine.scheduler.model_scheduler import ModelScheduler
from app.services.engine.scheduler.running_generation import Outbox
from app.services.engine.scheduler.running_request import RunningRequest
from app.services.errors import AppError

_SLICE_BESIDE_OTHERS, _SLICE_ALONE = 0.12, 0.5  # seconds


class _Parts:
    """What the queue has of the model."""

    def __init__(self, parts: EncoderParts) -> None:
        self._parts: EncoderParts | None = parts

    def prepare(self) -> EncoderParts | None:
        return self._parts

    def free(self) -> None:
        self._parts = None


class EncoderScheduler(ModelScheduler):
    """Runs on the engine thread."""

    def __init__(self, model: EncoderModel, outbox: Outbox, meter: Meter | None = None) -> None:
        self.retired = False
        self._meter = meter or Meter()
        self._chunk_sizer = ChunkSizer()
        self._queue = EmbeddingQueue(_Parts(EncoderParts(model, self._chunk_sizer)), outbox, self._chunk_sizer, release)

    @property
    def busy(self) -> bool:
        """Whether there is anything to do."""
        return bool(self._queue)

    @property
    def expected(self) -> float:
        """Seconds that the slice under way should take."""
        return self._chunk_sizer.expected

    @property
    def running(self) -> int:
        """Requests that are being computed: all of them take turns."""
        return len(self._queue)

    @property
    def waiting(self) -> int:
        """None waits for another's end."""
        return 0

    def step(self, *, alone: bool = True) -> None:
        """Compute a slice of the first request."""
        if self._queue:
            budget = self._chunk_sizer.tokens(_SLICE_ALONE if alone else _SLICE_BESIDE_OTHERS)
            self._meter.count_embedding(self._queue.compute(budget))
            self._meter.memory = memory()

    def embed(self, embedding: Embedding) -> None:
        """Queue a request."""
        self._queue.put(embedding)

    def warm_up(self, embedding: Embedding) -> None:
        """Compute a request without a reader, which is not counted."""
        meter, self._meter = self._meter, Meter()
        self._queue.put(embedding)
        while self.busy:
            self.step()
        self._meter = meter
        release()

    def cancel(self, request: RunningRequest) -> None:
        """Drop a request."""
        self._queue.cancel(request)

    def fail(self, error: AppError) -> None:
        """End every request with an error."""
        self._queue.fail(error)

    def flush(self) -> None:
        """Nothing lasts."""

    def free(self) -> None:
        """Let go of the model."""
        self._queue.free()
