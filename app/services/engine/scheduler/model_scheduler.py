"""What the engine thread needs of whatever computes with a loaded model."""

from typing import TYPE_CHECKING, Protocol

from app.services.engine.scheduler.running_request import RunningRequest
from app.services.errors import AppError

if TYPE_CHECKING:  # it imports MLX
    from app.services.engine.scheduler.embedding import Embedding


class ModelScheduler(Protocol):
    """One loaded model at work. On the engine thread, but for `expected` and `flush`."""

    retired: bool  # takes no more requests; goes when it is idle

    @property
    def busy(self) -> bool:
        """Whether there is anything to do."""

    @property
    def expected(self) -> float:
        """Seconds that the step under way may take, as far as the model was measured; 0 where it was not."""

    @property
    def running(self) -> int:
        """Requests that are being computed."""

    @property
    def waiting(self) -> int:
        """Requests that are not begun."""

    def step(self, *, alone: bool = True) -> None:
        """Compute for about as long as others may wait. `alone` says that no other model is at work."""

    def embed(self, embedding: "Embedding") -> None:
        """Queue texts that become vectors."""

    def cancel(self, request: RunningRequest) -> None:
        """Drop a request that nobody waits for."""

    def fail(self, error: AppError) -> None:
        """End every request with an error."""

    def flush(self) -> None:
        """Write to the disk what is to last."""

    def free(self) -> None:
        """Let go of the model and of everything computed with it."""
