"""Whether the server lives and can answer."""

from litestar import Controller, Response, get
from litestar.di import NamedDependency
from msgspec import UNSET

from app.controllers.openapi import operation
from app.controllers.refusals import GROUP_LOST, STUCK, refusals
from app.dto.llama.health import Health, Pong
from app.dto.shared.errors import ErrorReply
from app.services.errors import ModelLoading
from app.services.model_service import ModelService

_HEALTHY = {"status": "ok", "tiles": True, "model_loaded": True, "model": "tiles-nano"}


class HealthController(Controller):
    """Health."""

    tags = ["Operations"]
    opt = {"dialect": "Health"}

    @get(
        "/ping",
        summary="Check that the server is there",
        operation_class=operation({"message": "pong"}),
        responses=refusals(),
    )
    async def ping_server(self) -> Pong:
        """Answer at once, also while a model loads."""
        return Pong()

    @get(
        ["/health", "/v1/health"],
        summary="Check whether the server can answer",
        operation_class=operation(_HEALTHY),
        responses=refusals(ModelLoading(), STUCK, GROUP_LOST),
    )
    async def read_health(self, model_service: NamedDependency[ModelService]) -> Response[Health]:
        """Say what is loaded: 503 while a model loads or the engine is stuck, else 200."""
        facts, loading = model_service.models.facts, model_service.models.loading
        health = Health(
            status="loading model" if loading else "ok",
            model_loaded=facts is not None,
            model=facts.id if facts else None,
            last_error=model_service.last_error or UNSET,
        )
        if (stuck := model_service.stuck) is not None:
            health.status, health.error = "stuck", ErrorReply.of(stuck).error
            return Response(health, status_code=503, headers={"Retry-After": str(stuck.retry_after)})
        if loading is None:
            return Response(health)
        if (group := model_service.group) is not None:
            health.waits_for = group.waits_for or UNSET
        wait = ModelLoading(retry_after=loading.seconds_left())
        health.progress, health.error = round(loading.progress, 3), ErrorReply.of(wait).error
        return Response(health, status_code=503, headers={"Retry-After": str(wait.retry_after)})
