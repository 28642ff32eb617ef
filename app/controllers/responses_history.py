"""The conversation before a response: stored ones, and the items that a request refers to."""

import asyncio
from collections.abc import Mapping

from app.dto.openai.responses import ResponsesRequest
from app.dto.openai.responses_items import InputItem, response_of
from app.dto.openai.responses_stored import StoredResponse
from app.services.errors import PreviousResponseNotFound, ResponseNotFound
from app.services.stored_responses import StoredResponses


async def earlier_items(
    responses: StoredResponses, identity: str | None, recent: Mapping[str, StoredResponse] | None = None
) -> list[InputItem]:
    """Give the conversation to continue, also one of `recent`, by id. Raises InvalidRequest where it is not stored."""
    if not identity:  # Tiles' CLI sends an empty one where there is none
        return []
    if recent and identity in recent:
        return recent[identity].conversation()
    stored = await find_response(responses, identity)
    if stored is None:
        raise PreviousResponseNotFound(identity, is_stored=responses.enabled)
    return stored.conversation()


async def resolve_references(
    responses: StoredResponses, data: ResponsesRequest, earlier: list[InputItem]
) -> ResponsesRequest:
    """Replace references by the stored items; one that is not stored stays a reference, which is refused."""
    reference_ids = {item.id for item in data.items if item.type == "item_reference" and item.id}
    if not reference_ids:
        return data
    items_by_id = {item.id: item for item in earlier if item.id in reference_ids}
    for identity in {response_of(item_id) for item_id in reference_ids - items_by_id.keys()} - {None}:
        stored = await find_response(responses, identity or "")
        items_by_id |= {item.id: item for item in (stored.conversation() if stored else ()) if item.id in reference_ids}
    items = [items_by_id.get(item.id or "", item) if item.type == "item_reference" else item for item in data.items]
    return data.model_copy(update={"input": items})


async def find_response(responses: StoredResponses, identity: str) -> StoredResponse | None:
    """Give a stored response, None where there is none."""
    content = await asyncio.to_thread(responses.read, identity)
    return StoredResponse.read(content) if content else None


async def require_response(responses: StoredResponses, identity: str) -> StoredResponse:
    """Give a stored response. Raises ResponseNotFound."""
    stored = await find_response(responses, identity)
    if stored is None:
        raise ResponseNotFound(identity)
    return stored
