"""Responses over a WebSocket: one request after the other, each answered by the events of its stream."""

import asyncio
import time
from contextlib import aclosing, suppress
from typing import Any

import msgspec
import structlog
from litestar import WebSocket
from litestar.exceptions import WebSocketDisconnect
from pydantic import TypeAdapter

from app.controllers.answer import batches
from app.controllers.body import decode, validate
from app.controllers.body_budget import BodyBudget, cost
from app.controllers.json_size import JsonSize
from app.controllers.responses_history import earlier_items, resolve_references
from app.dto.openai.responses import ResponsesRequest
from app.dto.openai.responses_compaction_stream import response_stream
from app.dto.openai.responses_events import ResponseCompleted, ResponseCreated, SocketError
from app.dto.openai.responses_stored import StoredResponse
from app.dto.shared.base import Reply, RequestLimits
from app.request_context import end_answer, log_fields_of
from app.services.caller import arrival
from app.services.errors import AppError, InvalidRequest, ServerError
from app.services.model_service import ModelService
from app.services.stored_responses import StoredResponses
from app.services.tiles.prefill import prefill
from app.settings import Settings

log = structlog.get_logger()

_MOST_WAITING = 4  # requests behind the one that is answered; who sends more is hung up on
_PIECE = 2**16  # bytes of a message that are counted in one go
_LARGE = 2**18  # bytes of a message that is read on a thread
_POLICY = 1008  # the code with which a socket is closed on who breaks its rules
_ENVELOPE = ("type", "stream", "stream_id", "generate")  # of a request, beside the fields of its body
_SILENT = frozenset({"response.processed"})  # events that say something of an answer which nobody needs to know
_ADAPTER = TypeAdapter(ResponsesRequest)


class ResponsesSocket:
    """One connection. The last response stays known on it, whether it is stored or not."""

    def __init__(
        self,
        socket: WebSocket[Any, Any, Any],
        service: ModelService,
        stored: StoredResponses,
        settings: Settings,
        limits: RequestLimits,
        budget: BodyBudget,
    ) -> None:
        self._socket = socket
        self._service = service
        self._stored = stored
        self._settings = settings
        self._limits = limits
        self._budget = budget
        self._recent: dict[str, StoredResponse] = {}
        self._messages: asyncio.Queue[bytes] = asyncio.Queue()

    async def serve(self) -> None:
        """Answer until the client hangs up, which cancels the answer under way."""
        await self._socket.accept()
        worker = asyncio.create_task(self._answer_all())
        try:
            await self._read_all()
        finally:
            worker.cancel()
            with suppress(asyncio.CancelledError):
                await worker

    async def _read_all(self) -> None:
        while True:
            event: Any = await self._socket.receive()
            if event["type"] == "websocket.disconnect":
                return
            if self._messages.qsize() >= _MOST_WAITING:
                await self._send_error(InvalidRequest("Too many requests wait on this connection"))
                await self._socket.close(_POLICY)
                return
            self._messages.put_nowait(event.get("bytes") or (event.get("text") or "").encode(errors="surrogatepass"))

    async def _answer_all(self) -> None:
        while True:
            try:
                await self._answer(await self._messages.get())
            except AppError as error:
                await self._send_error(error)
            except Exception:
                log.exception("request on a socket failed")
                await self._send_error(ServerError())

    async def _answer(self, message: bytes) -> None:
        """Answer one request. Raises AppError for one that is not accepted."""
        arrival.set(time.perf_counter())  # not when the socket was opened
        self._service.require_open()
        plain = await self._read(message)
        kind = plain.get("type")
        if kind in _SILENT:
            return
        if kind != "response.create":
            raise InvalidRequest("This connection takes events of type response.create", param="type")
        body = {name: value for name, value in plain.items() if name not in _ENVELOPE} | {"stream": True}
        data = await _offload(len(message), lambda: validate(body, _ADAPTER, self._limits))
        earlier = await earlier_items(self._stored, data.previous_response_id, self._recent)
        data = await resolve_references(self._stored, data, earlier)
        dialect = response_stream(data, store=data.store and self._stored.enabled)

        async def keep() -> None:
            stored = StoredResponse.of(earlier, data.items, dialect.response)
            self._recent = {dialect.response.id: stored}
            if dialect.response.store:
                await asyncio.to_thread(self._stored.save, dialect.response.id, stored.encode())

        request = data.to_generation(self._limits, earlier)
        if plain.get("generate") is False:
            async with self._service.models.using(request.model) as model:
                await prefill(model, request)
                dialect.response.model = model.facts.id
            dialect.response.status = "completed"
            await keep()
            await self._send(ResponseCreated(response=dialect.response, sequence_number=0))
            await self._send(ResponseCompleted(response=dialect.response, sequence_number=1))
            return
        generation = await self._service.generate(request)
        log_fields, ping_seconds = log_fields_of(self._socket.scope), self._settings.sse_ping_interval
        steps = batches(generation, dialect, log_fields, ping_seconds=ping_seconds, before_end=keep)
        try:
            async with aclosing(steps):
                async for replies in steps:
                    for reply in replies:
                        await self._send(reply)
        except AppError as error:
            await self._send(dialect.failure(error))
        finally:
            end_answer(self._socket.scope)

    async def _read(self, message: bytes) -> dict[str, Any]:
        """Read a JSON object, within the limits of bodies. Raises AppError."""
        size = JsonSize(self._settings.max_values, self._settings.max_nesting)
        for start in range(0, len(message), _PIECE):
            size.feed(message[start : start + _PIECE])
            await asyncio.sleep(0)
        self._budget.take(self._socket.scope, cost(len(message), size.values))
        plain: dict[str, Any] = await _offload(len(message), lambda: decode(message))
        return plain

    async def _send_error(self, error: AppError) -> None:
        await self._send(SocketError.of(error))

    async def _send(self, reply: Reply | dict[str, Any]) -> None:
        with suppress(OSError, RuntimeError, WebSocketDisconnect):  # the client has hung up, as the reader will see
            await self._socket.send_text(msgspec.json.encode(reply).decode())


async def _offload(size: int, work: Any) -> Any:
    """Do what takes long for a large message on a thread."""
    return await asyncio.to_thread(work) if size > _LARGE else work()
