"""The models that can answer."""

from litestar import Controller, delete, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath

from app.controllers.openapi import operation, refusals
from app.dto.errors import ErrorReply
from app.dto.models import ModelList, ModelRow
from app.services.errors import NotFound, Unavailable
from app.services.model_service import ModelService

_ROW = {
    "id": "tiles-nano",
    "object": "model",
    "created": 1767225600,
    "owned_by": "tiles",
    "in_cache": True,
    "path": "/home/ada/.tiles/server/models/tiles-nano",
    "status": {"value": "loaded"},
    "aliases": [],
    "tags": [],
    "meta": {
        "vocab_type": 2,
        "n_vocab": 768,
        "n_ctx": 8192,
        "n_ctx_train": 8192,
        "n_embd": 64,
        "n_params": 262144,
        "size": 1048576,
        "ftype": "float32",
    },
}
_LOADING = Unavailable("Loading model", code="loading")
_UNKNOWN = NotFound("There is no model 'x' here; there is 'tiles-nano'", param="model", code="model_not_found")
_DOWNLOADS = NotFound("This server downloads and deletes no models; `tiles-server pull` does", code="feature_disabled")


class ModelsController(Controller):
    """What is served."""

    tags = ["Models"]

    @get(
        ["/v1/models", "/models"],
        operation_class=operation({"object": "list", "data": [_ROW], "models": []}),
        responses=refusals(_LOADING),
    )
    async def list_models(self, model_service: NamedDependency[ModelService]) -> ModelList:
        """List what is served; nothing while nothing is loaded."""
        model_service.require_no_load()
        return ModelList.of(model_service.facts)

    @post("/models", status_code=404, operation_class=operation(None), responses=refusals(_DOWNLOADS))
    async def download_model(self) -> ErrorReply:
        """Say that models are not downloaded through HTTP."""
        raise _DOWNLOADS

    @delete("/models", status_code=404, operation_class=operation(None), responses=refusals(_DOWNLOADS))
    async def delete_model(self) -> ErrorReply:
        """Say that models are not deleted through HTTP."""
        raise _DOWNLOADS

    @get("/v1/models/{model_id:path}", operation_class=operation(_ROW), responses=refusals(_LOADING, _UNKNOWN))
    async def read_model(self, model_id: FromPath[str], model_service: NamedDependency[ModelService]) -> ModelRow:
        """Describe one model."""
        model_service.require_no_load()
        wanted, facts = model_id.removeprefix("/"), model_service.facts
        if facts is None or facts.id != wanted:
            there = f"there is '{facts.id}'" if facts else "nothing is loaded"
            raise NotFound(f"There is no model '{wanted[:200]}' here; {there}", param="model", code="model_not_found")
        return ModelRow.of(facts)
