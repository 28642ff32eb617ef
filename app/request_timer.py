"""Where one request's time went, kept, and sent as a trace, when its answer is over: as what it used is counted."""

import time
from collections.abc import Mapping

from app.request_context import LogFields
from app.services.recent_timings import RecentTimings, TimedRequest
from app.services.stages import Stages
from app.services.traces import Traces


class RequestTimer:
    """Keeps the stages of each answer of a request once. A WebSocket has one after the other."""

    def __init__(
        self, recent: RecentTimings, traces: Traces | None, request_id: str, route: str, headers: Mapping[str, str]
    ) -> None:
        self._recent = recent
        self._traces = traces
        self._headers = headers  # of the request, their names in lower case
        self._request_id = request_id
        self._route = route
        self._last: Stages | None = None

    def end_answer(self, log_fields: LogFields) -> None:
        """Keep the stages of an answer that is over, unless they were kept before."""
        stages = log_fields.stages
        if stages is None or stages is self._last:
            return
        self._last = stages
        end = time.perf_counter()
        timed = TimedRequest(
            id=self._request_id,
            end=time.time(),
            route=self._route,
            model=str(log_fields.get("model", "")),
            finish=str(log_fields.get("finish", "")),
            prompt_tokens=int(log_fields.get("prompt_tokens", 0)),
            cached_tokens=int(log_fields.get("cached_tokens", 0)),
            completion_tokens=int(log_fields.get("completion_tokens", 0)),
            timing=stages.timing(end),
        )
        self._recent.add(timed)
        if self._traces is not None:
            self._traces.record(timed, stages, end, self._headers)
