"""The measuring client: when which piece came, and what is made of it."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from benchmarks import client
from benchmarks.errors import BenchmarkError

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def answering(answer: Answer) -> AsyncIterator[int]:
    """Give the port of a server that answers like this."""

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await answer(reader, writer)
        writer.close()

    server = await asyncio.start_server(one, client.HOST, 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


def sent(*events: dict[str, Any]) -> bytes:
    return HEAD + b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events) + b"data: [DONE]\n\n"


def said(text: str, reason: str | None = None) -> dict[str, Any]:
    return {"choices": [{"delta": {"content": text}, "finish_reason": reason}]}


def streamed(content: bytes) -> client.Reply:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(content)

    async def ask() -> client.Reply:
        async with answering(answer) as port:
            return await client.stream_chat(port, {})

    return asyncio.run(ask())


USAGE = {"prompt_tokens": 9, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 4}}


def test_a_stream_is_understood_when_it_is_over() -> None:
    end = {"choices": [], "usage": USAGE, "metrics": {"total_latency_s": 0.25}}
    reply = streamed(sent(said(""), said("Hello"), said(" you", "length"), end))
    assert (reply.text, len(reply.times)) == ("Hello you", 2)
    assert (reply.prompt_tokens, reply.cached_tokens, reply.completion_tokens) == (9, 4, 2)
    assert reply.engine_seconds == 0.25
    assert reply.sent <= reply.times[0] <= reply.times[-1] <= reply.ended


def test_an_answer_that_shows_nothing_counts_from_its_end() -> None:
    reply = streamed(sent(said("", "length"), {"choices": [], "usage": USAGE}))
    assert (reply.text, len(reply.times), reply.engine_seconds) == ("", 1, None)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"HTTP/1.1 503 Busy\r\n\r\ngo away", "go away"),
        (sent({"error": {"message": "broken"}}), "broken"),
        (sent(said("Hello", "stop")), "without usage"),
        (b"", "refused"),
    ],
)
def test_what_is_no_answer_is_an_error_with_its_words(content: bytes, words: str) -> None:
    with pytest.raises(BenchmarkError, match=words):
        streamed(content)


def test_a_running_stream_can_be_followed_and_left() -> None:
    async def follow() -> tuple[int, bool]:
        more, gone = asyncio.Event(), asyncio.Event()

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(sent(said("one")))
            await more.wait()
            writer.write(sent(said("two")))
            await reader.read()
            gone.set()

        async with answering(answer) as port:
            exchange = await client.opened(port, "POST", "/")
            await exchange.heard(1)
            more.set()
            await exchange.heard(len(exchange.pieces) + 1)
            exchange.close()
            await asyncio.wait_for(gone.wait(), 30)
            return len(list(exchange.events())), exchange.status == 200

    assert asyncio.run(follow()) == (2, True)


def test_a_stream_that_ends_too_soon_is_an_error_for_who_follows_it() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(sent(said("one")))

    async def follow() -> None:
        async with answering(answer) as port:
            await (await client.opened(port, "POST", "/")).heard(100)

    with pytest.raises(BenchmarkError, match="ended after"):
        asyncio.run(follow())
