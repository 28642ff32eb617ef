"""What the server counts of requests, beside what the engine's meter counts of tokens."""

from collections import Counter
from functools import cached_property
from typing import TYPE_CHECKING

import psutil

from app.services.engine.scheduler.meter import Meter

if TYPE_CHECKING:  # it imports Prometheus' client, which is needed once somebody reads the metrics
    from app.services.exposition import Exposition


class Metrics:
    """Counts requests, and writes all that is counted. Its labels come from the code, never from requests."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self._requests: Counter[tuple[str, str]] = Counter()
        self._process = psutil.Process()

    def count(self, dialect: str, status: int) -> None:
        """Count a request that was answered."""
        self._requests[dialect, str(status)] += 1

    @property
    def started(self) -> int:
        """When the process began, in seconds since 1970."""
        return int(self._process.create_time())

    def text(self) -> bytes:
        """Write everything in Prometheus' text format."""
        return self._exposition.text()

    @cached_property
    def _exposition(self) -> "Exposition":
        from app.services.exposition import Exposition

        return Exposition(self._meter, self._requests, self._process)
