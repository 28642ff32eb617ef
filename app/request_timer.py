"""Where one request's time went, kept when its answer is over, as what it used is counted."""

import time

from app.request_context import LogFields
from app.services.recent_timings import RecentTimings, TimedRequest
from app.services.stages import Stages


class RequestTimer:
    """Keeps the stages of each answer of a request once. A WebSocket has one after the other."""

    def __init__(self, recent: RecentTimings, request_id: str, route: str) -> None:
        self._recent = recent
        self._request_id = request_id
        self._route = route
        self._last: Stages | None = None

    def end_answer(self, log_fields: LogFields) -> None:
        """Keep the stages of an answer that is over, unless they were kept before."""
        stages = log_fields.stages
        if stages is None or stages is self._last:
            return
        self._last = stages
        timed = TimedRequest(
            id=self._request_id,
            end=time.time(),
            route=self._route,
            model=str(log_fields.get("model", "")),
            finish=str(log_fields.get("finish", "")),
            prompt_tokens=int(log_fields.get("prompt_tokens", 0)),
            cached_tokens=int(log_fields.get("cached_tokens", 0)),
            completion_tokens=int(log_fields.get("completion_tokens", 0)),
            timing=stages.timing(time.perf_counter()),
        )
        self._recent.add(timed)
