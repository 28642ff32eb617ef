"""Streamed answers that outlive their readers, for the Web UI: to be found, read again, and stopped."""

from typing import Annotated, Any

from litestar import Controller, Request, Response, delete, get, post
from litestar.di import NamedDependency
from litestar.openapi.spec import Example
from litestar.params import Body, QueryParameter

from app.controllers.answer import sse
from app.controllers.openapi import operation
from app.controllers.refusals import body_refusals, refusals
from app.dto.llama.streams import StreamLookup, StreamSession
from app.services.conversation_streams import ConversationStreams
from app.services.errors import InvalidRequest, OffsetLost, StreamNotFound, UnprocessableBody

_LONGEST_ID = 512
_ID = "8c5b2c1e-3a49-4f0e-9d56-0f6f1f1f2a77"
_LOOKUP = [Example(value={"conversation_ids": [_ID]})]
_SESSION = {
    "conversation_id": _ID,
    "is_done": False,
    "total_bytes": 3148,
    "started_at": 1767225600,
    "completed_at": 0,
}
_UNKNOWN = StreamNotFound()
_LOST = OffsetLost(1024)
_NO_ID = UnprocessableBody("conv_id: Missing required query parameter", param="conv_id")
_EVENTS = 'data: {"id":"chatcmpl-7d1f9c","choices":[{"index":0,"delta":{"content":"Oslo"}}]}\n\ndata: [DONE]\n\n'

ConversationId = Annotated[str, QueryParameter(description="id of the conversation, as sent in X-Conversation-Id")]


def conversation_of(request: Request[Any, Any, Any]) -> str:
    """Read which conversation a request belongs to, empty where its answer ends with its reader."""
    identity: str = request.headers.get("x-conversation-id", "").strip()
    if len(identity) > _LONGEST_ID:
        raise InvalidRequest(f"X-Conversation-Id is longer than {_LONGEST_ID} characters", param="X-Conversation-Id")
    return identity


class StreamsController(Controller):
    """Streams of chat completions that came with an X-Conversation-Id."""

    tags = ["Streams"]
    opt = {"dialect": "Web UI"}

    @get(
        "/v1/stream",
        media_type="text/event-stream",
        summary="Read a stream again",
        operation_class=operation(_EVENTS),
        responses=refusals(_UNKNOWN, _LOST, _NO_ID),
    )
    async def read_stream(
        self,
        conv_id: ConversationId,
        conversation_streams: NamedDependency[ConversationStreams],
        offset: Annotated[
            int, QueryParameter(name="from", ge=0, description="how many bytes from its beginning to leave out")
        ] = 0,
    ) -> Response[Any]:
        """Send the last streamed answer of a conversation again, byte for byte, and go on with it while it is made."""
        stream = conversation_streams.find(conv_id)
        if stream is None:
            raise _UNKNOWN
        return sse(stream.read(offset))

    @delete(
        "/v1/stream",
        status_code=204,
        summary="Stop a stream",
        operation_class=operation(None),
        responses=refusals(_NO_ID),
    )
    async def stop_stream(
        self, conv_id: ConversationId, conversation_streams: NamedDependency[ConversationStreams]
    ) -> Response[None]:
        """Stop the answer of a conversation, if one is under way, and forget what was sent of it."""
        conversation_streams.stop(conv_id)
        return Response(None, headers={"Content-Type": "application/json"})  # as llama-server has it

    @post(
        "/v1/streams/lookup",
        status_code=200,
        summary="Find the streams of conversations",
        operation_class=operation([_SESSION]),
        responses=body_refusals(),
    )
    async def find_streams(
        self,
        data: Annotated[StreamLookup, Body(examples=_LOOKUP)],
        conversation_streams: NamedDependency[ConversationStreams],
    ) -> list[StreamSession]:
        """List which of these conversations have a streamed answer that can be read again."""
        return [StreamSession.of(stream) for stream in conversation_streams.find_all(data.conversation_ids)]
