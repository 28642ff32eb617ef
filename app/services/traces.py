"""Answers as traces of OpenTelemetry, in the words of its conventions for generative AI. An extra, off by default.

Its packages are imported where traces are asked for only. Nothing of prompts or answers is in them.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from app import __version__
from app.services.recent_timings import TimedRequest
from app.services.stages import Stages

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter

_CHATS = frozenset({"/v1/chat/completions", "/chat/completions", "/v1/messages", "/v1/responses", "/api/chat"})
_FLUSH_MS = 3000  # for the last traces, at the end of the server


class Traces:
    """A span for each answer, with one for each of its stages. On the event loop; they are sent on a thread."""

    def __init__(self, exporter: "SpanExporter") -> None:
        from opentelemetry.sdk.resources import SERVICE_NAME, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        resource = Resource.create()  # of the variables of OpenTelemetry
        if str(resource.attributes.get(SERVICE_NAME, "")).startswith("unknown_service"):
            resource = resource.merge(Resource({SERVICE_NAME: "tiles-server"}))
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("tiles-server", __version__)
        self._propagator = TraceContextTextMapPropagator()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Send what there is at the end."""
        try:
            yield
        finally:
            await asyncio.to_thread(self.close)

    def close(self) -> None:
        """Send what is left, for a moment at most."""
        self._provider.force_flush(_FLUSH_MS)
        self._provider.shutdown()

    def record(self, request: TimedRequest, stages: Stages, end: float, headers: Mapping[str, str]) -> None:
        """Make the spans of an answer that is over; `end` is on the clock of its stages.

        They belong to the trace that `traceparent` names, W3C's header, and are left out if that is not sampled.
        """
        from opentelemetry import trace

        epoch = time.time() - time.perf_counter()  # of that clock, in Unix seconds
        moments = {name: _nanoseconds(moment + epoch) for name, moment in stages.moments(end).items()}
        begins, ends = list(moments.values()), [*list(moments.values())[1:], _nanoseconds(end + epoch)]
        parent = self._propagator.extract({name: headers[name] for name in _HEADERS if name in headers})
        attributes = _attributes(request)
        span = self._tracer.start_span(
            f"{attributes['gen_ai.operation.name']} {request.model}",
            parent,
            kind=trace.SpanKind.SERVER,
            attributes=attributes,
            start_time=begins[0],
        )
        within = trace.set_span_in_context(span, parent)
        for name, start, stop in zip(moments, begins, ends, strict=True):
            if start < stop:
                self._tracer.start_span(name, within, start_time=start).end(stop)
        span.end(ends[-1])


_HEADERS = ("traceparent", "tracestate")


def over_http(endpoint: str) -> Traces:
    """Give traces that go to an endpoint of OTLP over HTTP."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    return Traces(OTLPSpanExporter(endpoint=endpoint))


def _attributes(request: TimedRequest) -> dict[str, Any]:
    return {
        "gen_ai.operation.name": "chat" if request.route in _CHATS else "text_completion",
        "gen_ai.provider.name": "tiles",
        "gen_ai.request.model": request.model,
        "gen_ai.response.model": request.model,
        "gen_ai.response.finish_reasons": (request.finish,),
        "gen_ai.usage.input_tokens": request.prompt_tokens,
        "gen_ai.usage.cache_read.input_tokens": request.cached_tokens,
        "gen_ai.usage.output_tokens": request.completion_tokens,
        "url.path": request.route,
        "tiles.request_id": request.id,
        "tiles.grammar_ms": request.timing.grammar_ms,
    }


def _nanoseconds(seconds: float) -> int:
    return round(seconds * 1e9)
