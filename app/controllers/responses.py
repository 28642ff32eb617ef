"""Conversations, as OpenAI's Responses have them."""

import asyncio
from typing import Annotated, Any, Literal, get_args

from litestar import Controller, MediaType, Request, Response, WebSocket, delete, get, post, websocket
from litestar.di import NamedDependency
from litestar.params import Body, PathParameter, QueryParameter

from app.controllers import responses_examples as examples
from app.controllers.answer import fold, header, stream
from app.controllers.body_budget import BodyBudget
from app.controllers.openapi import operation
from app.controllers.refusals import GENERATION, IMAGE, body_refusals, query_refusals, refusals
from app.controllers.responses_history import earlier_items, require_response, resolve_references
from app.controllers.responses_socket import ResponsesSocket
from app.dto.openai.responses import ResponsesRequest
from app.dto.openai.responses_compaction_stream import CompactionStream, response_stream
from app.dto.openai.responses_events import (
    ArgumentsDelta,
    ArgumentsDone,
    CompactedReply,
    CompactionCompacting,
    CustomInputDelta,
    CustomInputDone,
    DeletedResponse,
    InputItemList,
    InputTokenCount,
    ItemAdded,
    ItemDone,
    OutputTextDelta,
    OutputTextDone,
    PartAdded,
    PartDone,
    ReasoningTextDelta,
    ReasoningTextDone,
    ResponseCompleted,
    ResponseCreated,
    ResponseFailed,
    ResponseIncomplete,
    ResponseInProgress,
    ResponseReply,
    SummaryPartAdded,
    SummaryPartDone,
    SummaryTextDelta,
    SummaryTextDone,
)
from app.dto.openai.responses_stored import StoredResponse
from app.dto.shared.base import RequestLimits
from app.dto.tiles.cli_responses import CliResponseStream, is_from_cli
from app.services.errors import (
    CallsNotEnforceable,
    InvalidRequest,
    ItemNotFound,
    NoSummary,
    PreviousResponseNotFound,
    ResponseNotFound,
    UnsupportedParameter,
)
from app.services.model_service import ModelService
from app.services.stored_responses import StoredResponses
from app.settings import Settings

_UNKNOWN = ResponseNotFound("resp_0c5f")
_NOT_A_STREAM = UnsupportedParameter("stream", "is for responses in the background, which are not supported")
_NOT_IN_BACKGROUND = InvalidRequest("Only a response in the background can be cancelled; hang up to end any other")
_REFUSED = (
    *GENERATION,
    IMAGE,
    CallsNotEnforceable("tool_choice"),
    UnsupportedParameter("background"),
    PreviousResponseNotFound("resp_0c5f"),
    ItemNotFound("msg_0c5f", "input.0"),
)
_REFUSALS = body_refusals(*_REFUSED)
_REFUSALS_OR_FAILURES = body_refusals(*_REFUSED, NoSummary())

Events = (
    ResponseCreated
    | ResponseInProgress
    | ItemAdded
    | PartAdded
    | OutputTextDelta
    | OutputTextDone
    | ReasoningTextDelta
    | ReasoningTextDone
    | SummaryPartAdded
    | SummaryTextDelta
    | SummaryTextDone
    | SummaryPartDone
    | PartDone
    | CompactionCompacting
    | ArgumentsDelta
    | ArgumentsDone
    | CustomInputDelta
    | CustomInputDone
    | ItemDone
    | ResponseCompleted
    | ResponseIncomplete
    | ResponseFailed
)


ResponseId = Annotated[str, PathParameter(description="id of a stored response")]


class ResponsesController(Controller):
    """OpenAI's Responses."""

    tags = ["Responses"]
    opt = {"dialect": "OpenAI"}

    @post(
        ["/v1/responses", "/responses"],
        status_code=200,
        summary="Create a response",
        operation_class=operation(examples.ANSWER, events=examples.EVENTS, pieces=len(get_args(Events))),
        responses=_REFUSALS_OR_FAILURES,
    )
    async def create_response(
        self,
        data: Annotated[ResponsesRequest, Body(examples=examples.REQUESTS)],
        request: Request[Any, Any, Any],
        model_service: NamedDependency[ModelService],
        stored_responses: NamedDependency[StoredResponses],
        settings: NamedDependency[Settings],
        limits: NamedDependency[RequestLimits],
    ) -> Response[ResponseReply | Events]:
        """Answer a conversation, whole or as server-sent events. It is stored here unless `store` is false."""
        from_cli = is_from_cli(data)  # it brings the whole conversation, and what it goes on with besides
        earlier = [] if from_cli else await earlier_items(stored_responses, data.previous_response_id)
        data = await resolve_references(stored_responses, data, earlier)
        generation = await model_service.generate(data.to_generation(limits, earlier), note_prompt=True)
        dialect = response_stream(data, store=data.store and stored_responses.enabled)

        async def keep() -> None:
            if dialect.response.store:
                stored = StoredResponse.of(earlier, data.items, dialect.response)
                await asyncio.to_thread(stored_responses.save, dialect.response.id, stored.encode())

        if data.stream:
            ping = settings.sse_ping_interval
            form = CliResponseStream(dialect) if from_cli else dialect
            return stream(generation, request, form, ping_seconds=ping, ignored=data.ignored, before_end=keep)
        await fold(generation, request, [dialect])
        await keep()
        return Response(dialect.response, headers=header(data.ignored))

    @websocket(["/v1/responses", "/responses"])
    async def open_socket(
        self,
        socket: WebSocket[Any, Any, Any],
        model_service: NamedDependency[ModelService],
        stored_responses: NamedDependency[StoredResponses],
        settings: NamedDependency[Settings],
        limits: NamedDependency[RequestLimits],
        body_budget: NamedDependency[BodyBudget],
    ) -> None:
        """Answer one request after the other over a WebSocket."""
        await ResponsesSocket(socket, model_service, stored_responses, settings, limits, body_budget).serve()

    @post(
        ["/v1/responses/compact", "/responses/compact"],
        status_code=200,
        summary="Compact a conversation",
        operation_class=operation(examples.COMPACTED),
        responses=_REFUSALS_OR_FAILURES,
    )
    async def compact(
        self,
        data: Annotated[ResponsesRequest, Body(examples=examples.REQUESTS[:1])],
        request: Request[Any, Any, Any],
        model_service: NamedDependency[ModelService],
        stored_responses: NamedDependency[StoredResponses],
        limits: NamedDependency[RequestLimits],
    ) -> Response[CompactedReply]:
        """Have the model summarize a conversation, and give what it can go on from: the output, or its id."""
        earlier = await earlier_items(stored_responses, data.previous_response_id)
        data = (await resolve_references(stored_responses, data, earlier)).compacting()
        dialect = CompactionStream(data)
        await fold(await model_service.generate(data.to_generation(limits, earlier)), request, [dialect])
        compacted = dialect.compacted([*earlier, *data.items])
        if data.store:
            stored = StoredResponse.of((), (), compacted)
            await asyncio.to_thread(stored_responses.save, compacted.id, stored.encode())
        return Response(compacted, headers=header(data.ignored))

    @post(
        ["/v1/responses/input_tokens", "/responses/input_tokens"],
        status_code=200,
        summary="Count the tokens of a response",
        operation_class=operation({"object": "response.input_tokens", "input_tokens": 15}),
        responses=_REFUSALS,
    )
    async def count_response_tokens(
        self,
        data: Annotated[ResponsesRequest, Body(examples=examples.REQUESTS)],
        model_service: NamedDependency[ModelService],
        stored_responses: NamedDependency[StoredResponses],
        limits: NamedDependency[RequestLimits],
    ) -> Response[InputTokenCount]:
        """Count the tokens of a conversation, as the model would read it."""
        earlier = await earlier_items(stored_responses, data.previous_response_id)
        data = await resolve_references(stored_responses, data, earlier)
        prompt_request = data.to_generation(limits, earlier)
        async with model_service.models.using(prompt_request.model) as model:
            count = await model.count(prompt_request)
        return Response(InputTokenCount(input_tokens=count), headers=header(data.ignored))

    @get(
        "/v1/responses/{response_id:str}",
        summary="Retrieve a response",
        operation_class=operation(examples.ANSWER),
        responses=query_refusals(_UNKNOWN, _NOT_A_STREAM),
    )
    async def read_response(
        self,
        response_id: ResponseId,
        stored_responses: NamedDependency[StoredResponses],
        stream: Annotated[
            bool, QueryParameter(description="has to be false: stored responses are not streamed")
        ] = False,
    ) -> Response[ResponseReply]:
        """Give a stored response."""
        if stream:
            raise _NOT_A_STREAM
        stored = await require_response(stored_responses, response_id)
        return Response(bytes(stored.response), media_type=MediaType.JSON)  # type: ignore[arg-type]

    @delete(
        "/v1/responses/{response_id:str}",
        status_code=200,
        summary="Delete a response",
        operation_class=operation({"id": "resp_7d1f9c", "object": "response", "deleted": True}),
        responses=refusals(_UNKNOWN),
    )
    async def delete_response(
        self, response_id: ResponseId, stored_responses: NamedDependency[StoredResponses]
    ) -> DeletedResponse:
        """Delete a stored response."""
        if not await asyncio.to_thread(stored_responses.delete, response_id):
            raise ResponseNotFound(response_id)
        return DeletedResponse(id=response_id)

    @get(
        "/v1/responses/{response_id:str}/input_items",
        summary="List the input items of a response",
        operation_class=operation(examples.ITEMS),
        responses=query_refusals(_UNKNOWN),
    )
    async def list_input_items(
        self,
        response_id: ResponseId,
        stored_responses: NamedDependency[StoredResponses],
        limit: Annotated[int, QueryParameter(ge=1, le=100, description="most items of a page")] = 20,
        order: Annotated[Literal["asc", "desc"], QueryParameter(description="asc: the oldest item first")] = "desc",
        after: Annotated[str | None, QueryParameter(description="id of the last item of the page before")] = None,
    ) -> InputItemList:
        """List the conversation before a stored response."""
        stored = await require_response(stored_responses, response_id)
        return stored.page(limit=limit, newest_first=order == "desc", after=after)

    @post(
        "/v1/responses/{response_id:str}/cancel",
        status_code=200,
        summary="Cancel a response",
        operation_class=operation(examples.ANSWER),
        responses=refusals(_NOT_IN_BACKGROUND, _UNKNOWN),
    )
    async def cancel_response(
        self, response_id: ResponseId, stored_responses: NamedDependency[StoredResponses]
    ) -> ResponseReply:
        """Refuse to cancel: only responses in the background can be, and there are none. Hang up instead."""
        await require_response(stored_responses, response_id)
        raise _NOT_IN_BACKGROUND
