"""How a request's bytes become a validated body, with every way that can go wrong said as a 4xx.

This is the only reader of bodies. What a body holds is counted while it comes, before an object is made of it, and what
takes more than some milliseconds is done beside the event loop.
"""

import asyncio
import codecs
from collections.abc import AsyncIterator, Callable
from functools import cache, partial
from typing import Annotated, Any

import msgspec
from litestar import Request
from litestar.handlers import HTTPRouteHandler
from litestar.types import Empty
from pydantic import BaseModel, FailFast, TypeAdapter, ValidationError

from app.controllers.answer import ClientGone
from app.controllers.body_budget import BodyBudget, cost
from app.controllers.content_encoding import inflate
from app.controllers.errors import invalid_body
from app.controllers.half_characters import replace_halves
from app.controllers.json_size import JsonSize
from app.dto.shared.base import RequestBody, RequestLimits
from app.services.errors import BodyTooLarge, InvalidJson, RequestTimeout, TooDeep, UnsupportedEncoding
from app.settings import Settings

_SECONDS = 60.0  # that a body may take longer
_SLOWEST = 2**16  # than at so many bytes a second
_PIECE = 2**16  # bytes that are counted in one go
_YIELD_EVERY = 2**20  # bytes after which the event loop does other work
_SMALL = (2**18, 4096)  # bytes and values that take so little time that a thread would take longer
_EMPTY_OBJECT = b"{}"  # stands for bytes that are no longer needed
_OTHER_UNICODE = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
    b"{\0": "UTF-16",
    b"\0{": "UTF-16",
}  # by how a body begins


def json_request(settings: Settings, limits: RequestLimits, budget: BodyBudget) -> type[Request[Any, Any, Any]]:
    """Make the application's request class; its JSON holds and nests no more than the settings say."""
    large_bodies = asyncio.Semaphore(1)  # their objects are made one after the other

    class JsonRequest(Request[Any, Any, Any]):
        """A request whose body is JSON whatever its Content-Type says, as curl users send it."""

        _is_large = False
        _plain: Any = Empty

        async def stream(self) -> Any:
            """Give the bytes of the body as they come, inflated. Raises AppError, ClientGone."""
            encoding = self.headers.get("content-encoding", "")
            async for piece in inflate(_receive(self, settings.max_body), encoding, settings.max_body):
                yield piece

        async def body(self) -> bytes:
            """Read the body. Raises AppError for one that is too much, ClientGone when it breaks off."""
            state = self._connection_state
            if state.body is Empty:
                try:
                    async with asyncio.timeout(_SECONDS) as deadline:
                        state.body = await self._read(deadline)
                except TimeoutError:
                    raise RequestTimeout("The body came too slowly") from None
            return state.body

        async def json(self) -> Any:
            """Give what the route's handler takes: a validated body, or plain JSON. Raises AppError, ClientGone."""
            state = self._connection_state
            if state.json is Empty:
                plain, adapter = await self.plain(), _adapter(self.route_handler)
                self._plain = Empty  # as long as the answer takes, nobody else needs it
                valid = partial(validate, plain, adapter, limits) if adapter else None
                state.json = plain if valid is None else await self._offload(valid)
                if isinstance(state.json, RequestBody):
                    await self._find_ignored(state.json)
            return state.json

        async def plain(self) -> Any:
            """Give the JSON as it came. Raises AppError, ClientGone."""
            if self._plain is Empty:
                array = bool(self.route_handler.opt.get("takes_list"))
                self._plain = await self._offload(partial(decode, await self.body(), array=array))
                self._connection_state.body = _EMPTY_OBJECT
            return self._plain

        async def _find_ignored(self, body: RequestBody) -> None:
            """Find what of a body has no effect, beside the event loop where that takes a while."""
            if self._is_large or body.binding.has_schemas:
                await asyncio.to_thread(getattr, body, "ignored")

        async def _offload(self, work: Callable[[], Any]) -> Any:
            """Do what takes long for a large body on a thread, for one of them at a time."""
            if not self._is_large:
                return work()
            async with large_bodies:
                return await asyncio.to_thread(work)

        async def _read(self, deadline: asyncio.Timeout) -> bytes:
            latest = asyncio.get_running_loop().time() + _SECONDS
            size = JsonSize(settings.max_values, settings.max_nesting)
            body = bytearray()
            yields = 0
            async for data in self.stream():
                for start in range(0, len(data), _PIECE):
                    size.feed(data[start : start + _PIECE])
                body += data
                deadline.reschedule(latest + len(body) / _SLOWEST)
                self._is_large = len(body) > _SMALL[0] or size.values > _SMALL[1]
                if self._is_large:
                    budget.take(self.scope, cost(len(body), size.values))
                if len(body) // _YIELD_EVERY > yields:
                    yields = len(body) // _YIELD_EVERY
                    await asyncio.sleep(0)
            return bytes(body)

    return JsonRequest


async def _receive(request: Request[Any, Any, Any], most_bytes: int) -> AsyncIterator[bytes]:
    """Give the bytes of a request as they arrive. Raises BodyTooLarge, ClientGone."""
    if (request.content_length or 0) > most_bytes:
        raise BodyTooLarge(most_bytes)
    length, more = 0, True
    while more:
        event: Any = await request.receive()
        if event["type"] == "http.disconnect":
            raise ClientGone
        data = event.get("body", b"")
        length += len(data)
        if length > most_bytes:
            raise BodyTooLarge(most_bytes)
        if data:
            yield data
        more = event.get("more_body", False)


@cache
def _adapter(handler: HTTPRouteHandler) -> TypeAdapter[Any] | None:
    """What validates a handler's body, or the list that it is; None where the handler takes none."""
    field = handler.parsed_data_field
    for annotation in (field.annotation, *(inner.annotation for inner in field.inner_types)) if field else ():
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            is_list = bool(handler.opt.get("takes_list"))
            return TypeAdapter(Annotated[list[annotation], FailFast()] if is_list else annotation)  # type: ignore[valid-type]
    return None


def validate(plain: Any, adapter: TypeAdapter[Any], limits: RequestLimits) -> Any:
    """Make a body of JSON. Raises UnprocessableBody, which names the fields that are wrong."""
    try:
        return adapter.validate_python(plain, strict=True, context=limits)
    except ValidationError as error:
        raise invalid_body(error.errors(include_url=False, include_context=False, include_input=False)) from None


def decode(body: bytes, *, array: bool = False) -> Any:
    """Decode a JSON object, or an array; half a character becomes U+FFFD.

    Raises UnprocessableBody for anything else, for what is no JSON, and for NaN; UnsupportedEncoding for
    what is UTF-16 or UTF-32.
    """
    try:
        value = msgspec.json.decode(body.removeprefix(codecs.BOM_UTF8))
    except RecursionError:
        raise TooDeep("The body nests too deep") from None
    except UnicodeDecodeError:
        raise _not_utf8(body) from None
    except msgspec.DecodeError as error:
        _refuse_other_unicode(body)
        if (repaired := replace_halves(body)) != body:
            return decode(repaired, array=array)
        raise InvalidJson(f"The body is not valid JSON: {error}") from None
    if not isinstance(value, list if array else dict):
        name = "array" if array else "object"
        raise InvalidJson(f"The body has to be a JSON {name}")
    return value


def _not_utf8(body: bytes) -> InvalidJson:
    """Name the position in the body: msgspec counts from the beginning of the string."""
    try:
        body.decode()
        position = 0
    except UnicodeDecodeError as error:
        position = error.start
    return InvalidJson(f"The body is not valid UTF-8 at byte {position}; JSON is sent as UTF-8")


def _refuse_other_unicode(body: bytes) -> None:
    for prefix, name in _OTHER_UNICODE.items():
        if body.startswith(prefix):
            raise UnsupportedEncoding(name)
