"""Memory mode, in the words of a chat completion: the Tiles CLI's fields, and errors that it understands."""

from dataclasses import replace

from app.dto.openai.chat import ChatRequest
from app.dto.openai.chat_reply import ChatCompletionChunk, ChatStream, ChunkChoice, Delta
from app.dto.shared.base import Reply, RequestLimits
from app.dto.shared.errors import ErrorReply
from app.services.errors import AppError, InvalidRequest
from app.services.memory.request import DEFAULT_MAX_TOKENS, MemoryRequest


def is_memory(chat: ChatRequest) -> bool:
    """Whether a chat is meant for the memory agent, which reads and writes notes."""
    return chat.input is not None or bool(chat.python_code)


def to_memory(chat: ChatRequest, limits: RequestLimits) -> MemoryRequest:
    """Translate a chat to a step of the memory agent. Raises InvalidRequest for what does not go with it."""
    if chat.input is None:
        raise InvalidRequest("'python_code' belongs to memory mode, which 'input' begins", param="python_code")
    request = chat.to_generation(limits)
    if chat.tools or chat.n != 1:
        param = "tools" if chat.tools else "n"
        raise InvalidRequest(f"'{param}' does not go with memory mode", param=param)
    if request.continue_final_message:
        raise InvalidRequest("in memory mode the last message is the user's", param="messages")
    replies = [message.content for message in request.messages if message.role == "assistant"]
    limited = any(value is not None for value in (chat.n_predict, chat.max_completion_tokens, chat.max_tokens))
    return MemoryRequest(
        message=chat.input,
        reply=replies[-1] if replies else "",
        begins=not chat.python_code if chat.chat_start is None else chat.chat_start,
        code=chat.python_code,
        generation=replace(
            request,
            messages=(),
            max_tokens=request.max_tokens if limited else DEFAULT_MAX_TOKENS,
            split_reasoning=False,
        ),
    )


class MemoryStream(ChatStream):
    """Translates events to chunks, and a late failure too: the Tiles CLI knows no other event."""

    def failure(self, error: AppError) -> Reply | None:
        """Give the last chunk of an answer that failed."""
        return ChatCompletionChunk(
            id=self.id,
            created=self._created,
            model=self._model,
            choices=[ChunkChoice(delta=Delta(), finish_reason="error")],
            error=ErrorReply.of(error).error,
        )
