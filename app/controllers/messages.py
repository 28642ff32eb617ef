"""Conversations, as Anthropic's clients have them."""

from typing import Annotated, Any, get_args

from litestar import Controller, Request, Response, post
from litestar.di import NamedDependency
from litestar.params import Body

from app.controllers import messages_examples as examples
from app.controllers.answer import fold, header, stream
from app.controllers.openapi import operation
from app.controllers.refusals import GENERATION, IMAGE, body_refusals
from app.dto.anthropic.messages import MessagesRequest
from app.dto.anthropic.replies import (
    BlockDelta,
    BlockStart,
    BlockStop,
    MessageDelta,
    MessageReply,
    MessageStart,
    MessageStop,
    MessageStream,
    MessageTokens,
    Ping,
)
from app.dto.shared.base import RequestLimits
from app.dto.shared.errors import AnthropicErrorReply
from app.request_context import request_id_of
from app.services.errors import CallsNotEnforceable, UnsupportedParameter
from app.services.model_service import ModelService
from app.settings import Settings

_REFUSALS = body_refusals(
    *GENERATION,
    IMAGE,
    CallsNotEnforceable("tool_choice"),
    UnsupportedParameter("service_tier"),
    envelope=AnthropicErrorReply,
)

Events = MessageStart | BlockStart | BlockDelta | BlockStop | MessageDelta | MessageStop | Ping


class MessagesController(Controller):
    """Anthropic's Messages."""

    path = "/v1/messages"
    tags = ["Messages"]
    opt = {"dialect": "Anthropic"}

    @post(
        status_code=200,
        summary="Create a message",
        operation_class=operation(examples.ANSWER, events=examples.EVENTS, pieces=len(get_args(Events))),
        responses=_REFUSALS,
    )
    async def create_message(
        self,
        data: Annotated[MessagesRequest, Body(examples=examples.REQUESTS)],
        request: Request[Any, Any, Any],
        model_service: NamedDependency[ModelService],
        settings: NamedDependency[Settings],
        limits: NamedDependency[RequestLimits],
    ) -> Response[MessageReply | Events]:
        """Answer a conversation, whole or as server-sent events."""
        generation = await model_service.generate(data.to_generation(limits))
        dialect = MessageStream(
            request_id_of(request.scope), hide_thinking=data.hides_thinking, return_timing=data.return_timing
        )
        if data.stream:
            return stream(generation, request, dialect, ping_seconds=settings.sse_ping_interval, ignored=data.ignored)
        await fold(generation, request, [dialect])
        return Response(dialect.message, headers=header(data.ignored))

    @post(
        "/count_tokens",
        status_code=200,
        summary="Count the tokens of a message",
        operation_class=operation({"input_tokens": 15}),
        responses=_REFUSALS,
    )
    async def count_message_tokens(
        self,
        data: Annotated[MessagesRequest, Body(examples=examples.REQUESTS)],
        model_service: NamedDependency[ModelService],
        limits: NamedDependency[RequestLimits],
    ) -> Response[MessageTokens]:
        """Count the tokens of a conversation, as the model would read it."""
        prompt_request = data.to_generation(limits)
        async with model_service.models.using(prompt_request.model) as model:
            count = await model.count(prompt_request)
        return Response(MessageTokens(input_tokens=count), headers=header(data.ignored))
