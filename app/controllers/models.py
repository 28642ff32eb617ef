"""The models that can answer, and those that come from the Hugging Face hub and go again."""

import asyncio
from typing import Annotated, Any

from litestar import Controller, Request, delete, get, post
from litestar.di import NamedDependency
from litestar.openapi.spec import Example
from litestar.params import Body, PathParameter, QueryParameter

from app.controllers.openapi import operation
from app.controllers.refusals import UNKNOWN_MODEL, body_refusals, query_refusals, refusals
from app.dto.anthropic.models import AnthropicModel, AnthropicModelPage
from app.dto.llama.downloads import DeleteRequest, DownloadReply, DownloadRequest, HubModels
from app.dto.llama.models import ModelList, ModelRow
from app.dto.shared.errors import is_anthropics
from app.dto.tiles.session import Success
from app.services import catalog
from app.services.downloads.service import Downloads
from app.services.errors import (
    DeletionNotConfirmed,
    DiskFull,
    DownloadFailed,
    DownloadForbidden,
    DownloadsForbidden,
    InvalidRequest,
    ModelInUse,
    ModelLoading,
    ModelNotFound,
    QueueFull,
)
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


_REPO = "mlx-community/Qwen3-4B-4bit"
_REQUEST = [Example(value={"model": _REPO})]
_MATCH = {"id": _REPO, "downloads": 21843, "likes": 31, "gated": False}
_OFF = DownloadsForbidden("This server was started with --no-downloads")
_FAILED = DownloadFailed("Hugging Face answered 500 for org/name; try again later.")
_NOT_ON_HUB = ModelNotFound("Hugging Face has no model org/name, or it is private: then `hf auth login` first.")
_BEGINNING = (
    InvalidRequest("'name' is no repo id: give org/name, or org/name:QUANT for a GGUF file", param="model"),
    _NOT_ON_HUB,
    _OFF,
    DownloadForbidden("org/name is gated: accept its terms at huggingface.co/org/name, then `hf auth login`."),
    _FAILED,
    DiskFull("org/name needs 2.3 GB more, and /home/ada/.cache/huggingface/hub has only 1.1 GB free."),
    QueueFull(16),
)


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
        downloads: NamedDependency[Downloads],
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
        if several := settings.models_dir is not None:
            states = downloads.among(states)
        files = await asyncio.to_thread(lambda: [outline(state) for state in states])
        return ModelList.of(states, files, several=several)

    @post(
        "/models",
        status_code=200,
        summary="Download a model",
        operation_class=operation({"success": True, "id": _REPO}),
        responses=body_refusals(*_BEGINNING),
    )
    async def download_model(
        self, data: Annotated[DownloadRequest, Body(examples=_REQUEST)], downloads: NamedDependency[Downloads]
    ) -> DownloadReply:
        """Begin to download a model, which `/models/sse` and `/models` follow; `/models/unload` stops it.

        One is downloaded at a time, others wait. One that was stopped or broken off goes on from there.
        """
        return DownloadReply(id=await downloads.begin(data.model))

    @delete(
        "/models",
        status_code=200,
        summary="Delete a model",
        operation_class=operation({"success": True}, headers=["X-Confirm-Delete"]),
        responses=body_refusals(
            DeletionNotConfirmed(),
            ModelInUse("org/name is loaded: unload it first"),
            ModelLoading(),
            ModelNotFound("model 'org/name' not found: /home/ada/models has none that was downloaded"),
            _OFF,
            _FAILED,
        ),
    )
    async def delete_model(
        self,
        request: Request[Any, Any, Any],
        downloads: NamedDependency[Downloads],
        model: Annotated[str | None, QueryParameter(description="name of the model, instead of the body's")] = None,
        data: Annotated[DeleteRequest | None, Body(examples=_REQUEST)] = None,
    ) -> Success:
        """Delete a model that was downloaded. It is named twice: in the body and in the header X-Confirm-Delete.

        One that is being downloaded is stopped, without a confirmation.
        """
        body = data.model if data else None
        name = model or body or ""
        await downloads.remove(name, body=body, header=request.headers.get("x-confirm-delete"))
        return Success.of(None)

    @get(
        "/models/search",
        summary="Look for models to download",
        operation_class=operation({"object": "list", "data": [_MATCH]}),
        responses=query_refusals(_OFF, _FAILED),
    )
    async def search_models(
        self,
        downloads: NamedDependency[Downloads],
        q: Annotated[str, QueryParameter(min_length=1, max_length=200, description="words of the model's name")],
        limit: Annotated[int, QueryParameter(ge=1, le=50, description="most models to give")] = 20,
    ) -> HubModels:
        """Give models of the hub with MLX or GGUF weights, by their names."""
        return HubModels.of(await downloads.search(q, limit))

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
    return None if state.facts or state.files else catalog.outline(state.path, state.id, state.created)
