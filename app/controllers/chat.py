"""Conversations, as OpenAI clients have them."""

from typing import Annotated, Any

from litestar import Controller, Request, Response, post
from litestar.di import NamedDependency
from litestar.params import Body

from app.controllers import chat_examples as examples
from app.controllers import memory
from app.controllers.answer import encode_stream, fold, header, sse
from app.controllers.openapi import operation
from app.controllers.refusals import GENERATION, IMAGE, body_refusals
from app.controllers.streams import conversation_of
from app.dto.openai.chat import ChatRequest
from app.dto.openai.chat_reply import ChatCompletion, ChatCompletionChunk, ChatStream
from app.dto.shared.base import RequestLimits
from app.dto.tiles.memory import MemoryStream, is_memory
from app.services.active_generations import ActiveGenerations
from app.services.conversation_streams import ConversationStreams
from app.services.errors import AnswerStopped, BrowserPage, CallsNotEnforceable, NoMemoryFolder, UnsupportedParameter
from app.services.memory.agent import MemoryAgent
from app.services.model_service import ModelService
from app.settings import Settings

_REFUSALS = body_refusals(
    *GENERATION,
    IMAGE,
    CallsNotEnforceable("tool_choice"),
    UnsupportedParameter("audio"),
    AnswerStopped(),
    NoMemoryFolder(),
    BrowserPage(),
)


class ChatController(Controller):
    """Chat completions."""

    tags = ["Chat"]
    opt = {"dialect": "OpenAI"}

    @post(
        ["/v1/chat/completions", "/chat/completions"],
        status_code=200,
        summary="Create a chat completion",
        operation_class=operation(examples.ANSWER, events=examples.EVENTS, headers=["X-Conversation-Id"]),
        responses=_REFUSALS,
    )
    async def create_chat_completion(
        self,
        data: Annotated[ChatRequest, Body(examples=examples.REQUESTS)],
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
        conversation, dialect = "", ChatStream(data)
        if is_memory(data):
            dialect = MemoryStream(data)
            generation = await memory.begin(data, request, memory_agent, limits)
        else:
            conversation = conversation_of(request) if data.stream else ""
            pending = model_service.generate(data.to_generation(limits))
            generation = await conversation_streams.unless_stopped(conversation, pending)
        if not data.stream:
            answers = await fold(generation, request, [data.answer_prefix() for _ in range(generation.choices)])
            reply = ChatCompletion.of(answers, data.custom_tools, timing=data.return_timing)
            return Response(reply, headers=header(data.ignored))
        active_generations.set_id(dialect.id, generation)
        events = encode_stream(generation, request, dialect, ping_seconds=data.ping_seconds(settings.sse_ping_interval))
        if conversation:
            cancel, note_readers = generation.cancel, generation.note_readers
            events = conversation_streams.begin(conversation, events, cancel, note_readers).read()
        return sse(events, data.ignored)
