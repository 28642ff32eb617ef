"""Where the time of the last requests went. It is in memory only, and nothing of prompts or answers is in it."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from app.services.errors import NotFound
from app.services.stages import RequestTiming

MOST = 256  # requests that are remembered


@dataclass(frozen=True, slots=True)
class TimedRequest:
    """A request whose answer is over."""

    id: str
    end: float  # Unix seconds
    route: str
    model: str
    finish: str  # why the answer ended
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    timing: RequestTiming  # of several answers, of the one that was ready last


class RecentTimings:
    """The last ones. On the event loop."""

    def __init__(self, most: int = MOST) -> None:
        self._requests: deque[TimedRequest] = deque(maxlen=most)

    def add(self, request: TimedRequest) -> None:
        """Remember one, in the place of the oldest if there are too many."""
        self._requests.append(request)

    def latest(self, count: int) -> Sequence[TimedRequest]:
        """Give the last ones, the latest first."""
        return list(reversed(self._requests))[:count]

    def find(self, request_id: str) -> TimedRequest:
        """Give the latest one with an id, which clients choose. Raises NotFound."""
        for request in reversed(self._requests):
            if request.id == request_id:
                return request
        raise NotFound(f"Of the last {self._requests.maxlen} answers none has the request id '{request_id[:128]}'")
