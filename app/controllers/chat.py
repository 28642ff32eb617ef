"""Conversations, as OpenAI clients have them."""

from typing import Annotated, Any

from litestar import Controller, Request, Response, post
from litestar.di import NamedDependency
from litestar.openapi.spec import Example
from litestar.params import Body

from app.controllers import memory
from app.controllers.answer import fold, header, spoken, sse
from app.controllers.openapi import operation
from app.controllers.refusals import body_refusals
from app.controllers.streams import conversation_of
from app.dto.openai.chat import ChatRequest
from app.dto.openai.chat_reply import ChatCompletion, ChatCompletionChunk, ChatStream
from app.dto.shared.base import RequestLimits
from app.dto.tiles.memory import MemoryStream, is_memory
from app.services.active_generations import ActiveGenerations
from app.services.conversation_streams import ConversationStreams
from app.services.errors import ModelLoading, ModelNotLoaded, PromptTooLong, QueueFull
from app.services.memory.agent import MemoryAgent
from app.services.model_service import ModelService
from app.settings import Settings

_REQUESTS = [
    Example(
        summary="A question",
        value={"messages": [{"role": "user", "content": "What is the capital of Norway?"}], "max_tokens": 128},
    ),
    Example(
        summary="A streamed answer with a tool",
        value={
            "messages": [{"role": "user", "content": "What is the weather in Oslo?"}],
            "stream": True,
            "stream_options": {"include_usage": True},
            "tools": [
                {
                    "type": "function",
                    "function": {
                        "name": "get_weather",
                        "description": "Weather of a city",
                        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
                    },
                }
            ],
        },
    ),
    Example(
        summary="A turn of the memory agent",
        value={
            "input": "My name is Ada.",
            "chat_start": True,
            "python_code": "",
            "messages": [{"role": "assistant", "content": ""}, {"role": "user", "content": "My name is Ada."}],
            "stream": True,
        },
    ),
]
_ANSWER = {
    "id": "chatcmpl-7d1f9c",
    "object": "chat.completion",
    "created": 1767225600,
    "model": "tiles-nano",
    "system_fingerprint": "b1-tiles-0.1.0",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "The capital of Norway is Oslo."},
            "finish_reason": "stop",
        }
    ],
    "usage": {
        "prompt_tokens": 15,
        "completion_tokens": 8,
        "total_tokens": 23,
        "prompt_tokens_details": {"cached_tokens": 0},
    },
    "timings": {
        "cache_n": 0,
        "prompt_n": 15,
        "prompt_ms": 21.4,
        "prompt_per_token_ms": 1.427,
        "prompt_per_second": 700.9,
        "predicted_n": 8,
        "predicted_ms": 36.1,
        "predicted_per_token_ms": 5.157,
        "predicted_per_second": 193.9,
    },
    "metrics": {"ttft_ms": 21.9, "total_tokens": 8, "tokens_per_second": 137.9, "total_latency_s": 0.058},
    "tiles": {"finish": "end_token", "cache": {"cached_tokens": 0, "reason": "not_stored", "first_diff": None}},
}
_EVENTS = (
    'data: {"id":"chatcmpl-7d1f9c","object":"chat.completion.chunk","created":1767225600,"model":"tiles-nano",'
    '"system_fingerprint":"b1-tiles-0.1.0","choices":[{"index":0,"delta":{"content":"Oslo"},"finish_reason":null}]}'
    "\n\ndata: [DONE]\n\n"
)
_REFUSALS = body_refusals(
    ModelNotLoaded(),
    PromptTooLong(9000, 8192),
    ModelLoading(),
    QueueFull(256),
)


class ChatController(Controller):
    """Chat completions."""

    tags = ["Chat"]
    opt = {"dialect": "OpenAI"}

    @post(
        ["/v1/chat/completions", "/chat/completions"],
        status_code=200,
        summary="Create a chat completion",
        operation_class=operation(_ANSWER, events=_EVENTS, headers=["X-Conversation-Id"]),
        responses=_REFUSALS,
    )
    async def create_chat_completion(
        self,
        data: Annotated[ChatRequest, Body(examples=_REQUESTS)],
        request: Request[Any, Any, Any],
        model_service: NamedDependency[ModelService],
        memory_agent: NamedDependency[MemoryAgent],
        settings: NamedDependency[Settings],
        limits: NamedDependency[RequestLimits],
        active_generations: NamedDependency[ActiveGenerations],
        conversation_streams: NamedDependency[ConversationStreams],
    ) -> Response[ChatCompletion | ChatCompletionChunk]:
        """Answer a conversation, whole or as server-sent events.

        A stream with the header X-Conversation-Id goes on when its reader hangs up; GET /v1/stream reads it again.
        """
        remembers = is_memory(data)
        conversation = conversation_of(request) if data.stream and not remembers else ""
        if remembers:
            generation = await memory.begin(data, request, memory_agent, limits)
        else:
            beginning = model_service.generate(data.to_generation(limits))
            generation = await conversation_streams.unless_stopped(conversation, beginning)
        if data.stream:
            ping = data.ping_seconds(settings.sse_ping_interval)
            dialect = MemoryStream(data) if remembers else ChatStream(data)
            active_generations.set_id(dialect.id, generation)
            events = spoken(generation, request, dialect, ping_seconds=ping)
            if conversation:
                cancel, note_readers = generation.cancel, generation.note_readers
                events = conversation_streams.begin(conversation, events, cancel, note_readers).read()
            return sse(events, data.ignored)
        said = await fold(generation, request, [data.begun() for _ in range(generation.choices)])
        return Response(ChatCompletion.of(said, data.custom_tools), headers=header(data.ignored))
