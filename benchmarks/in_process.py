"""mlx-lm without a server, in a process of its own that is asked over its standard input."""

import asyncio
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from benchmarks import names
from benchmarks.client import SECONDS
from benchmarks.errors import BenchmarkError
from benchmarks.model import Model
from benchmarks.reply import Message, Reply
from benchmarks.server import NOTHING, awake, end, environment
from benchmarks.target import More

LINE_BYTES = 2**24


class InProcess:
    """`stream_generate` for one conversation, `BatchGenerator` for many, with our BLAS."""

    name = names.IN_PROCESS

    def __init__(self, model: Model, home: Path) -> None:
        self.model = model
        with (home / "in-process.log").open("wb") as log:
            self.process: Any = psutil.Popen(
                [sys.executable, "-m", "benchmarks.worker", str(model.folder)],
                stdin=-1,
                stdout=-1,
                stderr=log,
                env=environment(home),
            )

    async def chat(self, messages: list[Message], tokens: int, more: More = NOTHING) -> Reply:
        self._refuse(more)
        [reply] = await self._ask({"job": "chat", "conversations": [messages], "tokens": tokens})
        return reply

    async def chats(
        self, conversations: list[list[Message]], tokens: int, at_once: int, more: More = NOTHING
    ) -> list[Reply]:
        self._refuse(more)
        return await self._ask({"job": "chats", "conversations": conversations, "tokens": tokens, "at_once": at_once})

    def _refuse(self, more: More) -> None:
        if more:
            raise BenchmarkError(f"{self.name}: cannot {', '.join(more)}")

    async def _ask(self, question: dict[str, Any]) -> list[Reply]:
        line = await asyncio.wait_for(asyncio.to_thread(self._talk, json.dumps(question)), SECONDS)
        if not line:
            raise BenchmarkError(f"{self.name}: the worker ended with {self.process.poll()}")
        return [Reply(**fields) for fields in json.loads(line)]

    def _talk(self, question: str) -> bytes:
        self.process.stdin.write(question.encode() + b"\n")
        self.process.stdin.flush()
        answer: bytes = self.process.stdout.readline(LINE_BYTES)
        return answer

    @contextmanager
    def awake(self) -> Iterator[None]:
        with awake(self.process):
            yield

    async def stop(self) -> None:
        await asyncio.to_thread(end, self.process)
