"""Responses as the Tiles CLI 0.4.0 to 0.4.6 reads them: chunks of text, and an end mark.

It reads `output[0].content[0].text` of each as more text, `metrics` of the last, and takes what follows `**[Answer]**`
for the reply. Later versions leave all of that to their agent, which reads OpenAI's events.
"""

from collections.abc import Iterator
from typing import Any, ClassVar

import app.services.generation as gen
from app.dto.openai.responses import ResponsesRequest
from app.dto.openai.responses_stream import ResponseStream
from app.dto.shared.base import Dialect
from app.dto.shared.usage import TilesMetrics

_ANSWER = "\n\n**[Answer]**\n\n"


def is_from_cli(request: ResponsesRequest) -> bool:
    """Whether that CLI sends it: nobody else marks the first request of a turn."""
    return request.stream and request.extra("chat_start", bool) is not None


class CliResponseStream(Dialect):
    """Translates events to the CLI's chunks. `responses` folds them to the whole response, as it is stored."""

    end: ClassVar[bytes] = b"data: [DONE]\n\n"

    def __init__(self, responses: ResponseStream) -> None:
        self._responses = responses
        self._thinks = False  # and its answer has not begun

    def feed(self, event: gen.Event) -> Iterator[dict[str, Any]]:
        """Give the chunk of an event, if it has one."""
        self._responses.add(event)
        match event:
            case gen.Reasoning():
                self._thinks = True
                yield self._chunk(event.text)
            case gen.Text():
                heading, self._thinks = _ANSWER if self._thinks else "", False
                yield self._chunk(heading + event.text)
            case gen.Finished():
                # The status tells the CLI to take no more text; of an answer that was cut it has all the same.
                yield self._chunk("", "completed") | {"metrics": TilesMetrics.of(event.timings)}

    def _chunk(self, text: str, status: str = "in_progress") -> dict[str, Any]:
        content = [{"type": "output_text", "text": text}]
        message = {"type": "message", "role": "assistant", "content": content}
        return {"id": self._responses.response.id, "object": "response.chunk", "status": status, "output": [message]}
