"""Streams that can be read again: which ones there are."""

from typing import Annotated

from msgspec import Meta
from pydantic import Field

from app.dto.shared.base import Body, Reply
from app.services.conversation_streams import ConversationStream


class StreamLookup(Body):
    """The conversations whose streams a client looks for."""

    conversation_ids: list[str] = Field(
        description="ids of conversations, as sent in X-Conversation-Id",
        examples=[["8c5b2c1e-3a49-4f0e-9d56-0f6f1f1f2a77"]],
    )


class StreamSession(Reply, kw_only=True):
    """The last streamed answer of a conversation."""

    conversation_id: Annotated[str, Meta(description="id of the conversation, as sent in X-Conversation-Id")]
    is_done: Annotated[bool, Meta(description="whether the answer has ended")]
    total_bytes: Annotated[int, Meta(description="bytes of the stream so far")]
    started_at: Annotated[int, Meta(description="when the answer began, in Unix seconds")]
    completed_at: Annotated[int, Meta(description="when the answer ended, in Unix seconds; 0 while it is under way")]

    @classmethod
    def of(cls, stream: ConversationStream) -> "StreamSession":
        """Describe it."""
        return cls(
            conversation_id=stream.conversation,
            is_done=stream.ended_at is not None,
            total_bytes=stream.sent,
            started_at=int(stream.started_at),
            completed_at=int(stream.ended_at or 0),
        )
