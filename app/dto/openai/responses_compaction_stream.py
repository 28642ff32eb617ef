"""OpenAI's Responses: from events to the one item of a response that is a summary of the conversation."""

from collections.abc import Iterable, Iterator
from dataclasses import replace

import msgspec

import app.services.generation as gen
from app.dto.openai.responses import ResponsesRequest
from app.dto.openai.responses_events import CompactedReply, CompactionCompacting, ItemAdded, ItemDone, ResponseEvent
from app.dto.openai.responses_items import CompactionItem, InputItem, output_item_id
from app.dto.openai.responses_stream import ResponseStream
from app.dto.shared.logprobs import ContentLogprob
from app.dto.shared.sealed import seal
from app.services.errors import NoSummary


class CompactionStream(ResponseStream):
    """Translates events to OpenAI's; the text becomes the item, and the reasoning is left out."""

    def __init__(self, request: ResponsesRequest, *, store: bool = False) -> None:
        super().__init__(request, store=store)
        self._item = CompactionItem(id=output_item_id("compaction", self.response.id, 0), encrypted_content="")
        self._summary = ""

    def compacted(self, items: Iterable[InputItem]) -> CompactedReply:
        """Give what the conversation goes on from, once the summary is whole."""
        messages = [item.to_stored() for item in items if item.outlasts_summary]
        output = [*messages, msgspec.to_builtins(self._item)]
        return CompactedReply(
            id=self.response.id, created_at=self.response.created_at, output=output, usage=self.response.usage
        )

    def _say(self, event: gen.Text, _: list[ContentLogprob]) -> Iterator[ResponseEvent]:
        if not self._summary.strip() and event.text.strip():
            yield ItemAdded(output_index=0, item=msgspec.structs.replace(self._item))
            yield CompactionCompacting(item_id=self._item.id, output_index=0)
        self._summary += event.text

    def _think(self, _: gen.Reasoning) -> Iterator[ResponseEvent]:
        yield from ()

    def _finish(self, event: gen.Finished) -> Iterator[ResponseEvent]:
        if not self._summary.strip():
            raise NoSummary
        self._item.encrypted_content = seal(self._summary.strip())
        self.response.output.append(self._item)
        yield ItemDone(output_index=0, item=self._item)
        is_bound = self._request.max_output_tokens not in (None, -1)
        yield from super()._finish(event if is_bound else replace(event, reason="stop"))


def response_stream(request: ResponsesRequest, *, store: bool) -> ResponseStream:
    """Give the stream of an answer, or of a summary."""
    return (CompactionStream if request.compacts else ResponseStream)(request, store=store)
