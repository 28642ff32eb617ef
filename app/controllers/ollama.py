"""Ollama's routes, for programs that know nothing else."""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Annotated, Any

from litestar import Controller, Request, Response, delete, get, post
from litestar.di import NamedDependency
from litestar.params import Body

from app.controllers import ollama_examples as examples
from app.controllers.answer import LINES, collect, header, result_of, stream, unless_gone
from app.controllers.models import outline
from app.controllers.openapi import operation
from app.controllers.refusals import EMBEDDING, GENERATION, IMAGE, UNKNOWN_MODEL, body_refusals, refusals
from app.dto.ollama.answer import OllamaAnswer, OllamaStream
from app.dto.ollama.chat import OllamaChatAnswer, OllamaChatChunk, OllamaChatRequest, OllamaChatStream
from app.dto.ollama.embeddings import (
    OllamaEmbedded,
    OllamaEmbedding,
    OllamaEmbeddingsRequest,
    OllamaEmbedRequest,
)
from app.dto.ollama.generate import (
    OllamaGenerateAnswer,
    OllamaGenerateChunk,
    OllamaGenerateRequest,
    OllamaGenerateStream,
)
from app.dto.ollama.models import OllamaFacts, OllamaModel, OllamaModels, OllamaVersion, RunningModels, ShowRequest
from app.dto.ollama.request import OllamaGenerating, OllamaRequest
from app.dto.shared.base import RequestLimits
from app.dto.shared.errors import OllamaErrorReply
from app.services.errors import (
    FeatureNotSupported,
    InvalidRequest,
    ModelLoading,
    ModelNotLoaded,
    NoInfill,
    UnsupportedParameter,
)
from app.services.facts import ModelFacts
from app.services.generation import Completion, Generation
from app.services.model_folder import ModelFolder
from app.services.model_service import ModelService
from app.services.model_state import ModelState
from app.settings import Settings

_STAYS = InvalidRequest("The only model stays in memory; with --models-dir models can be unloaded", param="keep_alive")
_NO_DOWNLOADS = FeatureNotSupported(
    "Ollama's routes download, make and delete no models here; `tiles-server pull` downloads"
)
_REFUSALS = body_refusals(*GENERATION, IMAGE, _STAYS, UnsupportedParameter("template"), envelope=OllamaErrorReply)
_EMBEDDING_REFUSALS = body_refusals(*EMBEDDING, envelope=OllamaErrorReply)
_UNSUPPORTED = refusals(_NO_DOWNLOADS, envelope=OllamaErrorReply)


class OllamaController(Controller):
    """Ollama's API, without what makes and fetches models."""

    path = "/api"
    tags = ["Ollama"]
    opt = {"dialect": "Ollama"}

    @post(
        "/chat",
        status_code=200,
        summary="Chat as Ollama does",
        operation_class=operation(examples.CHAT, events=examples.CHAT_LINES, event_type=LINES),
        responses=_REFUSALS,
    )
    async def chat(
        self,
        data: Annotated[OllamaChatRequest, Body(examples=examples.CHAT_REQUESTS)],
        request: Request[Any, Any, Any],
        model_service: NamedDependency[ModelService],
        settings: NamedDependency[Settings],
        limits: NamedDependency[RequestLimits],
    ) -> Response[OllamaChatAnswer | OllamaChatChunk]:
        """Answer a conversation: as lines of JSON unless `stream` is false.

        Without messages the model is loaded or, where `keep_alive` is 0 and there are several, unloaded.
        """
        if data.is_empty:
            name = await _load_or_unload(data, request, model_service, settings)
            return Response(OllamaChatAnswer.empty(name, unloaded=data.unloads))
        generation = await model_service.generate(data.to_generation(limits))
        return await _respond(generation, data, request, settings, OllamaChatStream(), OllamaChatAnswer.of)

    @post(
        "/generate",
        status_code=200,
        summary="Answer a prompt as Ollama does",
        operation_class=operation(examples.GENERATED, events=examples.GENERATED_LINES, event_type=LINES),
        responses=body_refusals(
            *GENERATION, _STAYS, UnsupportedParameter("template"), NoInfill(), envelope=OllamaErrorReply
        ),
    )
    async def generate(
        self,
        data: Annotated[OllamaGenerateRequest, Body(examples=examples.GENERATE_REQUESTS)],
        request: Request[Any, Any, Any],
        model_service: NamedDependency[ModelService],
        settings: NamedDependency[Settings],
        limits: NamedDependency[RequestLimits],
    ) -> Response[OllamaGenerateAnswer | OllamaGenerateChunk]:
        """Answer a prompt, or continue it where `raw` is set: as lines of JSON unless `stream` is false.

        Without a prompt the model is loaded or, where `keep_alive` is 0 and there are several, unloaded.
        """
        if data.is_empty:
            name = await _load_or_unload(data, request, model_service, settings)
            return Response(OllamaGenerateAnswer.empty(name, unloaded=data.unloads))
        generation = await model_service.generate(data.to_generation(limits))
        return await _respond(generation, data, request, settings, OllamaGenerateStream(), OllamaGenerateAnswer.of)

    @post(
        "/embed",
        status_code=200,
        summary="Create embeddings as Ollama does",
        operation_class=operation(examples.EMBEDDED),
        responses=_EMBEDDING_REFUSALS,
    )
    async def embed(
        self,
        data: Annotated[OllamaEmbedRequest, Body(examples=examples.EMBED_REQUESTS)],
        request: Request[Any, Any, Any],
        model_service: NamedDependency[ModelService],
    ) -> Response[OllamaEmbedded]:
        """Turn texts into vectors of length 1."""
        began = time.perf_counter()
        embedded = await result_of(model_service.embed(data.to_embedding()), request) if data.texts else None
        reply = OllamaEmbedded.of(embedded, data.model_name, time.perf_counter() - began)
        return Response(reply, headers=header(data.ignored))

    @post(
        "/embeddings",
        status_code=200,
        summary="Create an embedding as Ollama once did",
        operation_class=operation(examples.EMBEDDING),
        responses=_EMBEDDING_REFUSALS,
    )
    async def embed_prompt(
        self,
        data: Annotated[OllamaEmbeddingsRequest, Body(examples=examples.EMBEDDINGS_REQUESTS)],
        request: Request[Any, Any, Any],
        model_service: NamedDependency[ModelService],
    ) -> Response[OllamaEmbedding]:
        """Turn a text into a vector, in the old form."""
        embedded = await result_of(model_service.embed(data.to_embedding()), request) if data.prompt else None
        return Response(OllamaEmbedding.of(embedded), headers=header(data.ignored))

    @get(
        "/tags",
        summary="List the models as Ollama does",
        operation_class=operation(examples.TAGS),
        responses=refusals(ModelLoading(), envelope=OllamaErrorReply),
    )
    async def list_tags(self, model_service: NamedDependency[ModelService]) -> OllamaModels:
        """List the loaded model; with --models-dir all that can be loaded."""
        states = await model_service.models.states()
        known_facts = await asyncio.to_thread(lambda: [_facts(state) for state in states])
        return OllamaModels(models=[OllamaModel.of(*pair) for pair in zip(states, known_facts, strict=True)])

    @get(
        "/ps",
        summary="List the models in memory",
        operation_class=operation(examples.RUNNING),
        responses=refusals(ModelLoading(), envelope=OllamaErrorReply),
    )
    async def list_running(
        self, model_service: NamedDependency[ModelService], settings: NamedDependency[Settings]
    ) -> RunningModels:
        """List the models in memory, and when they leave it."""
        return RunningModels.of(await model_service.models.states(), settings.sleep_idle_seconds)

    @post(
        "/show",
        status_code=200,
        summary="Describe a model as Ollama does",
        operation_class=operation(examples.SHOWN),
        responses=body_refusals(ModelLoading(), UNKNOWN_MODEL, envelope=OllamaErrorReply),
    )
    async def show(
        self,
        data: Annotated[ShowRequest, Body(examples=examples.SHOW_REQUESTS)],
        model_service: NamedDependency[ModelService],
    ) -> OllamaFacts:
        """Describe a model: what it can do is known while it is loaded, the rest stands in its files."""
        state = await model_service.models.state(data.model_name)
        return OllamaFacts.of(state, await asyncio.to_thread(_facts, state))

    @get(
        "/version",
        summary="Read the version of the API",
        operation_class=operation(examples.VERSION),
        responses=refusals(envelope=OllamaErrorReply),
    )
    async def read_version(self) -> OllamaVersion:
        """Say which version of Ollama has this API."""
        return OllamaVersion()

    @post(
        ["/pull", "/push", "/create", "/copy"],
        status_code=501,
        summary="Fetch or make a model",
        operation_class=operation(None),
        responses=_UNSUPPORTED,
    )
    async def make_model(self) -> OllamaErrorReply:
        """Refuse: `tiles-server pull` downloads models, not HTTP."""
        raise _NO_DOWNLOADS

    @delete(
        "/delete",
        status_code=501,
        summary="Delete a model as Ollama does",
        operation_class=operation(None),
        responses=_UNSUPPORTED,
    )
    async def delete_model(self) -> OllamaErrorReply:
        """Refuse: models are not deleted through HTTP."""
        raise _NO_DOWNLOADS


async def _respond(
    generation: Generation,
    data: OllamaGenerating,
    request: Request[Any, Any, Any],
    settings: Settings,
    dialect: OllamaStream,
    of: Callable[[Completion], OllamaAnswer],
) -> Response[Any]:
    """Send an answer as lines of JSON, or whole."""
    if data.stream:
        return stream(generation, request, dialect, ping_seconds=settings.sse_ping_interval, ignored=data.ignored)
    (answer,) = await collect(generation, request)
    return Response(of(answer), headers=header(data.ignored))


async def _load_or_unload(
    data: OllamaRequest, request: Request[Any, Any, Any], service: ModelService, settings: Settings
) -> str:
    """Load the model of a request that asks for nothing, or unload it. Gives its name; raises AppError."""
    if not data.unloads:

        async def load() -> str:
            async with service.models.using(data.model_name) as model:
                return model.facts.id

        return await unless_gone(load(), request)
    if settings.models_dir is None:
        raise _STAYS
    with suppress(ModelNotLoaded):
        await service.models.unload(data.model_name)
    return data.model_name


def _facts(state: ModelState) -> ModelFacts | ModelFolder | None:
    """Give what is known of a model, from its files where it is not loaded. Reads the disk."""
    return state.facts or outline(state)
