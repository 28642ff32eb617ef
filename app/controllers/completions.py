"""Prompts that are continued as they are, as OpenAI's and llama.cpp's clients have them."""

from typing import Annotated, Any

from litestar import Controller, Request, Response, post
from litestar.di import NamedDependency
from litestar.openapi.spec import Example
from litestar.params import Body

from app.controllers.answer import collect_all, header, stream
from app.controllers.openapi import operation
from app.controllers.refusals import body_refusals
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
from app.services.errors import ModelLoading, ModelNotLoaded, NoInfill, PromptTooLong, QueueFull
from app.services.model_service import ModelService
from app.settings import Settings

_TIMINGS = {
    "cache_n": 0,
    "prompt_n": 10,
    "prompt_ms": 21.4,
    "prompt_per_token_ms": 2.14,
    "prompt_per_second": 467.3,
    "predicted_n": 8,
    "predicted_ms": 36.1,
    "predicted_per_token_ms": 5.157,
    "predicted_per_second": 193.9,
}
_HEAD = {
    "id": "cmpl-7d1f9c",
    "object": "text_completion",
    "created": 1767225600,
    "model": "tiles-nano",
    "system_fingerprint": "b1-tiles-0.1.0",
}
_USAGE = {
    "prompt_tokens": 10,
    "completion_tokens": 8,
    "total_tokens": 18,
    "prompt_tokens_details": {"cached_tokens": 0},
}
_TEXT = " jumps over the lazy dog."
_ANSWER = _HEAD | {
    "choices": [{"text": _TEXT, "index": 0, "logprobs": None, "finish_reason": "stop"}],
    "usage": _USAGE,
    "timings": _TIMINGS,
}
_EVENTS = (
    'data: {"id":"cmpl-7d1f9c","object":"text_completion","created":1767225600,"model":"tiles-nano",'
    '"system_fingerprint":"b1-tiles-0.1.0","choices":[{"text":" jumps","index":0,"logprobs":null,'
    '"finish_reason":null}]}\n\ndata: [DONE]\n\n'
)
_NATIVE_ANSWER = {
    "index": 0,
    "content": _TEXT,
    "tokens": [],
    "id_slot": -1,
    "stop": True,
    "model": "tiles-nano",
    "tokens_predicted": 8,
    "tokens_evaluated": 10,
    "generation_settings": {"temperature": 0.8, "top_k": 40, "n_predict": 16, "stop": []},
    "prompt": "The quick brown fox",
    "has_new_line": False,
    "truncated": False,
    "stop_type": "eos",
    "stopping_word": "",
    "tokens_cached": 17,
    "timings": _TIMINGS,
}
_NATIVE_EVENTS = (
    'data: {"index":0,"content":" jumps","tokens":[],"stop":false,"id_slot":-1,"tokens_predicted":1,'
    '"tokens_evaluated":10}\n\n'
)
_LATER = (
    ModelNotLoaded(),
    PromptTooLong(9000, 8192),
    ModelLoading(),
    QueueFull(256),
)
_NO_INFILL = NoInfill()
_REQUESTS = [
    Example(summary="A prompt", value={"prompt": "The quick brown fox", "max_tokens": 16}),
    Example(summary="Two prompts, streamed", value={"prompt": ["The quick", "Once"], "max_tokens": 16, "stream": True}),
    Example(summary="Token ids", value={"prompt": [355, 75, 330], "max_tokens": 16, "temperature": 0}),
]
_NATIVE_REQUESTS = [
    Example(summary="A prompt", value={"prompt": "The quick brown fox", "n_predict": 16}),
    Example(
        summary="Text and token ids, and a part of the answer",
        value={
            "prompt": [355, 75, " brown fox"],
            "n_predict": 16,
            "response_fields": ["content", "timings/predicted_n"],
        },
    ),
]
_INFILL_REQUEST = [
    Example(value={"input_prefix": "def add(a, b):\n    return ", "input_suffix": "\n", "n_predict": 16})
]


SelectedFields = dict[str, Any]  # an answer's fields that `response_fields` names


class CompletionController(Controller):
    """Text completions."""

    tags = ["Completions"]
    opt = {"dialect": "OpenAI"}

    @post(
        "/v1/completions",
        status_code=200,
        summary="Create a completion",
        operation_class=operation(_ANSWER, events=_EVENTS),
        responses=body_refusals(*_LATER, _NO_INFILL),
    )
    async def create_completion(
        self,
        data: Annotated[CompletionRequest, Body(examples=_REQUESTS)],
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
        answer = TextCompletion.of(await collect_all(generation, request), data)
        return Response(answer, headers=header(data.ignored))


class NativeController(Controller):
    """llama.cpp's own completions."""

    tags = ["Completions"]
    opt = {"dialect": "llama.cpp"}

    @post(
        ["/completion", "/completions"],
        status_code=200,
        summary="Create a completion as llama.cpp does",
        operation_class=operation(_NATIVE_ANSWER, events=_NATIVE_EVENTS),
        responses=body_refusals(*_LATER),
    )
    async def create_native_completion(
        self,
        data: Annotated[NativeRequest, Body(examples=_NATIVE_REQUESTS)],
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
        operation_class=operation(_NATIVE_ANSWER, events=_NATIVE_EVENTS),
        responses=body_refusals(*_LATER, _NO_INFILL),
    )
    async def fill_in_the_middle(
        self,
        data: Annotated[InfillRequest, Body(examples=_INFILL_REQUEST)],
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
    models: ModelService,
    settings: Settings,
    limits: RequestLimits,
) -> Response[Any]:
    generation = await models.generate(*data.to_generations(limits))
    if data.stream:
        ping = data.ping_seconds(settings.sse_ping_interval)
        dialect = NativeStream(data, generation.choices)
        return stream(generation, request, dialect, ping_seconds=ping, ignored=data.ignored)
    answer = native_answer(await collect_all(generation, request), data)
    return Response(answer, headers=header(data.ignored))
