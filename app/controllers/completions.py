"""Prompts that are continued as they are, as OpenAI's and llama.cpp's clients have them."""

from typing import Annotated, Any

from litestar import Controller, Request, Response, post
from litestar.di import NamedDependency
from litestar.params import Body

from app.controllers import completions_examples as examples
from app.controllers.answer import collect, header, stream
from app.controllers.openapi import operation
from app.controllers.refusals import GENERATION, IMAGE, body_refusals
from app.dto.llama.completion import (
    InfillRequest,
    NativeChunk,
    NativeCompletion,
    NativeRequest,
    NativeStream,
    native_answer,
)
from app.dto.openai.completion import CompletionRequest, CompletionStream, TextCompletion, TextCompletionChunk
from app.dto.shared.base import RequestLimits
from app.services.errors import NoInfill, UnsupportedParameter
from app.services.model_service import ModelService
from app.settings import Settings

_UNSUPPORTED = UnsupportedParameter("mirostat")


SelectedFields = dict[str, Any]  # an answer's fields that `response_fields` names


class CompletionController(Controller):
    """Text completions."""

    tags = ["Completions"]
    opt = {"dialect": "OpenAI"}

    @post(
        "/v1/completions",
        status_code=200,
        summary="Create a completion",
        operation_class=operation(examples.ANSWER, events=examples.EVENTS),
        responses=body_refusals(*GENERATION, _UNSUPPORTED, IMAGE, NoInfill()),
    )
    async def create_completion(
        self,
        data: Annotated[CompletionRequest, Body(examples=examples.REQUESTS)],
        request: Request[Any, Any, Any],
        model_service: NamedDependency[ModelService],
        settings: NamedDependency[Settings],
        limits: NamedDependency[RequestLimits],
    ) -> Response[TextCompletion | TextCompletionChunk]:
        """Continue one prompt or several, whole or as server-sent events. No chat template is used."""
        generation = await model_service.generate(*data.to_generations(limits))
        if data.stream:
            ping = data.ping_seconds(settings.sse_ping_interval)
            dialect = CompletionStream(data, generation.choices)
            return stream(generation, request, dialect, ping_seconds=ping, ignored=data.ignored)
        answer = TextCompletion.of(await collect(generation, request), data)
        return Response(answer, headers=header(data.ignored))


class NativeController(Controller):
    """llama.cpp's own completions."""

    tags = ["Completions"]
    opt = {"dialect": "llama.cpp"}

    @post(
        ["/completion", "/completions"],
        status_code=200,
        summary="Create a completion as llama.cpp does",
        operation_class=operation(examples.NATIVE_ANSWER, events=examples.NATIVE_EVENTS),
        responses=body_refusals(*GENERATION, _UNSUPPORTED, IMAGE),
    )
    async def create_native_completion(
        self,
        data: Annotated[NativeRequest, Body(examples=examples.NATIVE_REQUESTS)],
        request: Request[Any, Any, Any],
        model_service: NamedDependency[ModelService],
        settings: NamedDependency[Settings],
        limits: NamedDependency[RequestLimits],
    ) -> Response[NativeCompletion | SelectedFields | list[NativeCompletion | SelectedFields] | NativeChunk]:
        """Continue one prompt or several as llama.cpp does; several are answered by a list."""
        return await _answer(data, request, model_service, settings, limits)

    @post(
        "/infill",
        status_code=200,
        summary="Fill in the middle of code",
        operation_class=operation(examples.NATIVE_ANSWER, events=examples.NATIVE_EVENTS),
        responses=body_refusals(*GENERATION, _UNSUPPORTED, NoInfill()),
    )
    async def fill_in_the_middle(
        self,
        data: Annotated[InfillRequest, Body(examples=examples.INFILL_REQUESTS)],
        request: Request[Any, Any, Any],
        model_service: NamedDependency[ModelService],
        settings: NamedDependency[Settings],
        limits: NamedDependency[RequestLimits],
    ) -> Response[NativeCompletion | SelectedFields | NativeChunk]:
        """Write what stands between two pieces of code, where the model has fill-in-the-middle tokens."""
        return await _answer(data, request, model_service, settings, limits)


async def _answer(
    data: NativeRequest | InfillRequest,
    request: Request[Any, Any, Any],
    service: ModelService,
    settings: Settings,
    limits: RequestLimits,
) -> Response[Any]:
    generation = await service.generate(*data.to_generations(limits))
    if data.stream:
        ping = data.ping_seconds(settings.sse_ping_interval)
        dialect = NativeStream(data, generation.choices)
        return stream(generation, request, dialect, ping_seconds=ping, ignored=data.ignored)
    answer = native_answer(await collect(generation, request), data)
    return Response(answer, headers=header(data.ignored))
