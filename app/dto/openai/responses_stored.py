"""A stored response: the conversation before it, and the response itself."""

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from pydantic import ValidationError

from app.dto.openai.responses_events import CompactedReply, InputItemList, ResponseReply
from app.dto.openai.responses_items import InputItem, input_of

_VERSION = 1


class StoredResponse(msgspec.Struct):
    """The content of one file."""

    version: int
    input: list[dict[str, Any]]  # all of the conversation before the response
    response: msgspec.Raw

    @classmethod
    def of(
        cls, earlier: Iterable[InputItem], items: Iterable[InputItem], response: ResponseReply | CompactedReply
    ) -> "StoredResponse":
        """Build it from the conversation and its response."""
        conversation = [item.to_stored() for item in (*earlier, *items)]
        return cls(_VERSION, conversation, msgspec.Raw(msgspec.json.encode(response)))

    @classmethod
    def read(cls, content: bytes) -> "StoredResponse | None":
        """Read a file's content, None for what is torn or of another version."""
        try:
            stored = msgspec.json.decode(content, type=cls)
            return stored if stored.version == _VERSION and stored.conversation() else None
        except (msgspec.DecodeError, ValidationError):
            return None

    def encode(self) -> bytes:
        """Encode the file."""
        return msgspec.json.encode(self)

    def conversation(self) -> list[InputItem]:
        """Give the conversation with the response."""
        output = msgspec.json.decode(self.response, type=_Output).output
        return input_of([*self.input, *output])

    def page(self, *, limit: int, newest_first: bool, after: str | None) -> InputItemList:
        """Give a page of the conversation before the response."""
        items = self.input[::-1] if newest_first else self.input
        ids = [item.get("id") for item in items]
        begin = ids.index(after) + 1 if after in ids else 0
        return _list(items[begin : begin + limit], more=begin + limit < len(items))


class _Output(msgspec.Struct):
    output: list[dict[str, Any]]


def _list(items: Sequence[dict[str, Any]], *, more: bool) -> InputItemList:
    return InputItemList(
        data=list(items),
        first_id=items[0].get("id") if items else None,
        last_id=items[-1].get("id") if items else None,
        has_more=more,
    )
