"""The models that can answer."""

from typing import Annotated

from litestar import Controller, delete, get, post
from litestar.di import NamedDependency
from litestar.params import PathParameter

from app.controllers.openapi import operation
from app.controllers.refusals import UNKNOWN_MODEL, refusals
from app.dto.llama.models import ModelList, ModelRow
from app.dto.shared.errors import ErrorReply
from app.services.errors import AppError, FeatureDisabled, FeatureNotSupported, ModelLoading
from app.services.model_service import ModelService
from app.settings import Settings

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
    "architecture": {"input_modalities": ["text"], "output_modalities": ["text"]},
    "meta": {
        "vocab_type": 2,
        "n_vocab": 768,
        "n_ctx": 8192,
        "n_ctx_train": 8192,
        "n_ctx_source": "max_position_embeddings in config.json",
        "n_embd": 64,
        "n_params": 262144,
        "size": 1048576,
        "ftype": "float32",
    },
}
_PULL = "This server downloads and deletes no models; `tiles-server pull` does"
_DOWNLOADS = FeatureDisabled(_PULL)
_DOWNLOADS_NOT = FeatureNotSupported(_PULL)


class ModelsController(Controller):
    """What is served."""

    tags = ["Models"]
    opt = {"dialect": "Models"}

    @get(
        ["/v1/models", "/models"],
        summary="List the models",
        operation_class=operation({"object": "list", "data": [_ROW], "models": []}),
        responses=refusals(ModelLoading()),
    )
    async def list_models(
        self, model_service: NamedDependency[ModelService], settings: NamedDependency[Settings]
    ) -> ModelList:
        """List the loaded model; with --models-dir all that can be loaded, and their status."""
        return ModelList.of(await model_service.models.states(), several=settings.models_dir is not None)

    @post(
        "/models",
        status_code=501,
        summary="Download a model",
        operation_class=operation(None),
        responses=refusals(_DOWNLOADS, _DOWNLOADS_NOT),
    )
    async def download_model(self, settings: NamedDependency[Settings]) -> ErrorReply:
        """Refuse: `tiles-server pull` downloads models, not HTTP."""
        raise _no_downloads(settings)

    @delete(
        "/models",
        status_code=501,
        summary="Delete a model",
        operation_class=operation(None),
        responses=refusals(_DOWNLOADS, _DOWNLOADS_NOT),
    )
    async def delete_model(self, settings: NamedDependency[Settings]) -> ErrorReply:
        """Refuse: models are not deleted through HTTP."""
        raise _no_downloads(settings)

    @get(
        "/v1/models/{model_id:path}",
        summary="Describe a model",
        operation_class=operation(_ROW),
        responses=refusals(ModelLoading(), UNKNOWN_MODEL),
    )
    async def read_model(
        self,
        model_id: Annotated[str, PathParameter(description="id of the model")],
        model_service: NamedDependency[ModelService],
    ) -> ModelRow:
        """Give the status of a model, and its numbers while it is loaded."""
        return ModelRow.of(await model_service.models.state(model_id.removeprefix("/")))


def _no_downloads(settings: Settings) -> AppError:
    return _DOWNLOADS if settings.models_dir is None else _DOWNLOADS_NOT
