"""A generation as one body or as a stream. A client that hangs up cancels it, either way."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import aclosing
from typing import Any, Protocol, TypeVar

import msgspec
import structlog
from litestar import Request, Response
from litestar.response import Stream

from app.dto.shared.base import Dialect, Reply
from app.dto.shared.errors import ErrorReply
from app.request_context import LogFields, end_answer, log_fields_of
from app.services.errors import AppError, ServerError
from app.services.generation import (
    Completion,
    Embedded,
    Event,
    Finished,
    Generation,
    Ranked,
    Reasoning,
    Scored,
    Started,
    Text,
    Timings,
)

log = structlog.get_logger()

T = TypeVar("T")
F = TypeVar("F", bound="Fold")
R = TypeVar("R", Embedded, Ranked, Scored)

PING = b": ping\n\n"
LINES = "application/x-ndjson"
HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}


class Fold(Protocol):
    """What takes the events of an answer in."""

    def add(self, event: Event) -> None:
        """Take in the next event."""


class ClientGone(Exception):
    """The client has hung up."""


async def collect(generation: Generation, request: Request[Any, Any, Any]) -> list[Completion]:
    """Fold the events into the whole answers. Raises the AppError that ended one, ClientGone if nobody waits."""
    return await fold(generation, request, [Completion() for _ in range(generation.choices)])


async def fold(generation: Generation, request: Request[Any, Any, Any], folds: list[F]) -> list[F]:
    """Fold the events of each answer into what takes them; a dialect's stream does. Raises as `collect` does."""
    log_fields, last_events = log_fields_of(request.scope), list[Event]()
    try:
        await unless_gone(_fold(generation, folds, log_fields, last_events), request)
    except (ClientGone, AppError):
        note_break(last_events, log_fields)
        raise
    finally:
        generation.cancel()
    return folds


def stream(
    generation: Generation,
    request: Request[Any, Any, Any],
    dialect: Dialect,
    *,
    ping_seconds: float,
    ignored: str,
    before_end: Callable[[], Awaitable[None]] | None = None,
) -> Response[Any]:
    """Answer with server-sent events, or with lines of JSON. The request is accepted by now: errors come as events.

    `before_end` is awaited when the answer is whole, before its last events are sent.
    """
    events = encode_stream(generation, request, dialect, ping_seconds=ping_seconds, before_end=before_end)
    if dialect.lines:
        return Stream(events, media_type=LINES, headers=HEADERS | header(ignored))
    return sse(events, ignored)


def sse(events: AsyncIterator[bytes], ignored: str = "") -> Response[Any]:
    """Send server-sent events."""
    return Stream(events, media_type="text/event-stream", headers=HEADERS | header(ignored))


def header(ignored: str) -> dict[str, str]:
    """Name the parameters that had no effect."""
    return {"X-Tiles-Ignored": ignored} if ignored else {}


async def unless_gone(work: Coroutine[Any, Any, T], request: Request[Any, Any, Any]) -> T:
    """Do the work, but stop and raise ClientGone when the client hangs up: Litestar does not cancel handlers."""
    task = asyncio.ensure_future(work)
    watch = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait({task, watch}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientGone
        return task.result()
    finally:
        watch.cancel()
        task.cancel()


async def result_of(work: Coroutine[Any, Any, R], request: Request[Any, Any, Any]) -> R:
    """Wait for an answer that comes in one piece, as `unless_gone` does, and note its model and tokens for the log."""
    result = await unless_gone(work, request)
    log_fields_of(request.scope).update(model=result.model, prompt_tokens=result.prompt_tokens)
    return result


class KeepAlive:
    """Wakes the reader of a generation when nothing was sent for a while."""

    def __init__(self, generation: Generation, seconds: float) -> None:
        self.due = False
        self._generation = generation
        self._seconds = seconds
        self._loop = asyncio.get_running_loop()
        self._last_sent = self._loop.time()
        self._timer = self._loop.call_later(seconds, self._look) if seconds > 0 else None

    def reset(self) -> None:
        """Note that something was sent."""
        self._last_sent = self._loop.time()
        self.due = False

    def stop(self) -> None:
        """Stop waking."""
        if self._timer is not None:
            self._timer.cancel()

    def _look(self) -> None:
        silent = self._loop.time() - self._last_sent
        if silent >= self._seconds * 0.999:
            self.due, silent = True, 0.0
            self._generation.wake()
        self._timer = self._loop.call_later(self._seconds - silent, self._look)


async def _fold(generation: Generation, folds: Sequence[Fold], log_fields: LogFields, last_events: list[Event]) -> None:
    unfinished = len(folds)
    while unfinished:
        if events := await generation.ready():
            last_events[:] = events
        for event in events:
            folds[event.choice].add(event)
            note(event, log_fields)
            unfinished -= isinstance(event, Finished)


async def encode_stream(
    generation: Generation,
    request: Request[Any, Any, Any],
    dialect: Dialect,
    *,
    ping_seconds: float,
    before_end: Callable[[], Awaitable[None]] | None = None,
) -> AsyncIterator[bytes]:
    """Give an answer as the bytes of its stream, as `stream` sends them. To leave off reading them cancels it."""
    log_fields, encode = log_fields_of(request.scope), _encoder(dialect)
    try:
        steps = batches(generation, dialect, log_fields, ping_seconds=ping_seconds, before_end=before_end)
        async with aclosing(steps):
            async for replies in steps:
                yield b"".join(map(encode, replies)) or PING
        if dialect.end:
            yield dialect.end
    except AppError as error:
        yield error_event(error, dialect)
    finally:
        end_answer(request.scope)


async def batches(
    generation: Generation,
    dialect: Dialect,
    log_fields: LogFields,
    *,
    ping_seconds: float,
    before_end: Callable[[], Awaitable[None]] | None = None,
) -> AsyncGenerator[list[Reply | dict[str, Any]], None]:
    """Give an answer as its dialect's replies, those of a step together.

    After a silence they are what keeps the stream alive, none where that is for the wire to do. Raises the AppError
    that ended the answer. To leave off reading cancels it.
    """
    unfinished = generation.choices
    last_events: Sequence[Event] = ()
    keep_alive = KeepAlive(generation, ping_seconds)
    try:
        while unfinished:
            events = await generation.ready()
            last_events = events or last_events
            unfinished -= sum(isinstance(event, Finished) for event in events)
            replies = [reply for event in events for reply in dialect.feed(event)]
            for event in events:
                note(event, log_fields)
            if not unfinished and before_end is not None:
                await before_end()
            if replies:
                keep_alive.reset()
                yield replies
            elif keep_alive.due:
                keep_alive.reset()
                yield [] if (reply := dialect.silence()) is None else [reply]
    except AppError as error:
        log_fields["error"] = error.code or error.kind
        raise
    except Exception:
        log.exception("answer failed while it was streamed")
        log_fields["error"] = "server_error"
        raise ServerError from None
    finally:
        if unfinished:
            note_break(last_events, log_fields)
        keep_alive.stop()
        generation.cancel()


def _encoder(dialect: Dialect) -> Callable[[msgspec.Struct | dict[str, Any]], bytes]:
    return encode_line if dialect.lines else encode_event


def encode_line(reply: msgspec.Struct | dict[str, Any]) -> bytes:
    """Encode a line of JSON."""
    return msgspec.json.encode(reply) + b"\n"


def encode_event(reply: msgspec.Struct | dict[str, Any]) -> bytes:
    """Encode a server-sent event; a reply with a tag is an event of that name."""
    data = b"data: " + msgspec.json.encode(reply) + b"\n\n"
    name = reply.__struct_config__.tag if isinstance(reply, msgspec.Struct) else None
    return data if name is None else f"event: {name}\n".encode() + data


def error_event(error: AppError, dialect: Dialect) -> bytes:
    """Encode a late error. The stream ends after it, with the end mark only if the dialect has an event for errors."""
    if (reply := dialect.failure(error)) is not None:
        return _encoder(dialect)(reply) + dialect.end
    return b"data: " + msgspec.json.encode({"error": ErrorReply.of(error).error} | dialect.beside_error) + b"\n\n"


def note(event: Event, log_fields: LogFields) -> None:
    """Keep what the log line of the request says; of several answers the tokens add up."""
    if isinstance(event, Started):
        log_fields.update(model=event.model, prompt_tokens=log_fields.get("prompt_tokens", 0) + event.prompt_tokens)
    elif isinstance(event, Finished):
        timings, before = event.timings, log_fields.stages
        if event.stages and (before is None or event.stages.client >= before.client):  # of several, the last
            log_fields.stages = event.stages
        _add_tokens(timings, log_fields)
        speed = (timings.completion_tokens - 1) * 1000 / timings.completion_ms if timings.completion_ms else 0.0
        log_fields.update(
            ttft_ms=round(timings.first_token_ms, 1),
            tokens_per_second=round(speed, 1),
            finish=event.reason,
            cause=event.cause,
        )


def note_break(last_events: Sequence[Event], log_fields: LogFields) -> None:
    """Keep the tokens of answers that were broken off, from the last events that came of them."""
    ended = {event.choice for event in last_events if isinstance(event, Finished)}
    timings = {event.choice: event.timings for event in last_events if isinstance(event, Text | Reasoning)}
    for choice in timings.keys() - ended:
        _add_tokens(timings[choice], log_fields)


def _add_tokens(timings: Timings, log_fields: LogFields) -> None:
    for name in ("cached_tokens", "completion_tokens"):
        log_fields[name] = log_fields.get(name, 0) + getattr(timings, name)


async def _disconnected(request: Request[Any, Any, Any]) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
