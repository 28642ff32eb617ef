"""Metrics for Prometheus."""

from litestar import Controller, Response, get
from litestar.di import NamedDependency

from app.controllers.openapi import operation
from app.controllers.refusals import refusals
from app.services.metrics import Metrics

_TYPE = "text/plain; version=0.0.4"  # Litestar adds the charset to what is text
_EXAMPLE = (
    "# HELP llamacpp:tokens_predicted_total Tokens of answers that are over\n"
    "# TYPE llamacpp:tokens_predicted_total counter\n"
    "llamacpp:tokens_predicted_total 128.0\n"
)


class MetricsController(Controller):
    """Metrics."""

    tags = ["Operations"]
    opt = {"dialect": "Health"}

    @get(
        "/metrics",
        media_type=_TYPE,
        summary="Read the metrics",
        operation_class=operation(_EXAMPLE),
        responses=refusals(),
    )
    async def read_metrics(self, metrics: NamedDependency[Metrics]) -> Response[bytes]:
        """Give counts of requests and tokens, the queue, the cache, latencies and memory in Prometheus' text format."""
        return Response(metrics.text(), media_type=_TYPE, headers={"Process-Start-Time-Unix": str(metrics.started)})
