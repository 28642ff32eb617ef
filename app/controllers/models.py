"""The models that can answer."""

import asyncio
from typing import Annotated, Any

from litestar import Controller, Request, delete, get, post
from litestar.di import NamedDependency
from litestar.params import PathParameter, QueryParameter

from app.controllers.openapi import operation
from app.controllers.refusals import UNKNOWN_MODEL, query_refusals, refusals
from app.dto.anthropic.models import AnthropicModel, AnthropicModelPage
from app.dto.llama.models import ModelList, ModelRow
from app.dto.shared.errors import ErrorReply, is_anthropics
from app.services import catalog
from app.services.errors import AppError, FeatureDisabled, FeatureNotSupported, ModelLoading
from app.services.model_folder import ModelFolder
from app.services.model_service import ModelService
from app.services.model_state import ModelState
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
    "capabilities": ["completion", "embedding", "rerank", "tools"],
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
_ANTHROPICS: dict[str, Any] = {
    "type": "model",
    "id": "tiles-nano",
    "display_name": "tiles-nano",
    "created_at": "2026-01-01T00:00:00Z",
    "lifecycle": "active",
    "deprecated_at": None,
    "retires_at": None,
    "line": None,
    "max_input_tokens": 8192,
    "max_tokens": 8192,
    "capabilities": None,
}
_PAGE = {"data": [_ANTHROPICS], "has_more": False, "first_id": "tiles-nano", "last_id": "tiles-nano"}
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
        operation_class=operation(
            {"object": "list", "data": [_ROW], "models": []},
            headers=["anthropic-version"],
            others={"with anthropic-version": _PAGE},
        ),
        responses=query_refusals(ModelLoading()),
    )
    async def list_models(
        self,
        request: Request[Any, Any, Any],
        model_service: NamedDependency[ModelService],
        settings: NamedDependency[Settings],
        limit: Annotated[
            int, QueryParameter(ge=1, le=1000, description="with anthropic-version: most models of a page")
        ] = 20,
        after_id: Annotated[
            str | None, QueryParameter(description="with anthropic-version: id that the page comes after")
        ] = None,
        before_id: Annotated[
            str | None, QueryParameter(description="with anthropic-version: id that the page comes before")
        ] = None,
    ) -> ModelList | AnthropicModelPage:
        """List the loaded model; with --models-dir all that can be loaded, and their status.

        With the header anthropic-version the list is as Anthropic has it, in pages, ordered by id.
        """
        states = await model_service.models.states()
        if is_anthropics(request.scope["path"], request.headers):
            return AnthropicModelPage.of(states, limit=limit, after_id=after_id, before_id=before_id)
        files = await asyncio.to_thread(lambda: [outline(state) for state in states])
        return ModelList.of(states, files, several=settings.models_dir is not None)

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
        operation_class=operation(_ROW, headers=["anthropic-version"], others={"with anthropic-version": _ANTHROPICS}),
        responses=refusals(ModelLoading(), UNKNOWN_MODEL),
    )
    async def read_model(
        self,
        model_id: Annotated[str, PathParameter(description="id of the model")],
        request: Request[Any, Any, Any],
        model_service: NamedDependency[ModelService],
    ) -> ModelRow | AnthropicModel:
        """Give the status of a model, and its numbers while it is loaded."""
        state = await model_service.models.state(model_id.removeprefix("/"))
        if is_anthropics(request.scope["path"], request.headers):
            return AnthropicModel.of(state)
        return ModelRow.of(state, await asyncio.to_thread(outline, state))


def outline(state: ModelState) -> ModelFolder | None:
    """Give what the files of a model say of it, if it is not loaded. Reads the disk."""
    return None if state.facts else catalog.outline(state.path, state.id, state.created)


def _no_downloads(settings: Settings) -> AppError:
    return _DOWNLOADS if settings.models_dir is None else _DOWNLOADS_NOT
