"""Servers as processes: this one and its peer."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import psutil

from app.services.engine.model import blas
from benchmarks import client, names, processes
from benchmarks.errors import BenchmarkError
from benchmarks.model import TEMPLATE, Model
from benchmarks.reply import Message, Reply
from benchmarks.target import More

START_SECONDS = 120.0
STOP_SECONDS = 15.0
NOTHING: More = MappingProxyType({})


@dataclass(frozen=True)
class Recipe:
    """How a server is started."""

    name: str
    command: Callable[[Path, int], list[str]]
    environment: dict[str, str] = field(default_factory=dict)
    more: More = field(default_factory=dict)  # fields of every request's body


def _ours(folder: Path, port: int) -> list[str]:
    return [sys.executable, "-m", "app", "serve", "--model", str(folder), "--port", str(port), "--log-format", "json"]


def _mlx_lm(folder: Path, port: int) -> list[str]:
    return [sys.executable, "-m", "mlx_lm", "server", "--model", str(folder), "--port", str(port)]


OURS = Recipe(names.OURS, _ours)
PEER = Recipe(names.PEER, _mlx_lm)


def peer_with_blas() -> Recipe | None:
    """The peer with the BLAS that we load ourselves, which its users do not get; None where there is none."""
    name = blas.preload("system")
    return Recipe(names.PEER_WITH_BLAS, _mlx_lm, {"LD_PRELOAD": name}) if name not in (None, blas.REFERENCE) else None


def llama_server() -> Recipe | None:
    """llama.cpp's server on the GGUF that the real model comes from, as it is; None where there is none.

    Its weights are not those without tokens that end an answer, so that it has to ignore them.
    """
    program = os.environ.get("TILES_TEST_LLAMA_SERVER") or shutil.which(names.LLAMA_SERVER)
    if program is None:
        return None

    def command(folder: Path, port: int) -> list[str]:
        model = ["--model", str(folder / "source.gguf"), "--jinja", "--chat-template-file", str(folder / TEMPLATE)]
        slots = ["--parallel", "8", "--ctx-size", "32768", "--kv-unified"]
        return [program, *model, *slots, "--port", str(port), "--offline"]

    return Recipe(names.LLAMA_SERVER, command, more={"ignore_eos": True})


class Server:
    """A running server."""

    def __init__(self, recipe: Recipe, model: Model, home: Path) -> None:
        """Start it; `home` takes its files and its log, and gives what an earlier one with the same home has kept."""
        self.name, self.recipe, self.model, self.port = recipe.name, recipe, model, processes.free_port()
        self._log = home / f"{self.port}.log"
        with self._log.open("wb") as log:
            self.born = time.perf_counter()
            self.process: Any = psutil.Popen(
                recipe.command(model.folder, self.port),
                stdout=log,
                stderr=log,
                env=environment(home) | recipe.environment,
            )

    async def chat(self, messages: list[Message], tokens: int, more: More = NOTHING) -> Reply:
        try:
            return await client.stream_chat(self.port, self._body(messages, tokens, more))
        except (BenchmarkError, OSError, TimeoutError) as error:
            raise BenchmarkError(f"{self.name}: {error!r}; {self._last_words()}") from error

    async def chats(
        self, conversations: list[list[Message]], tokens: int, at_once: int, more: More = NOTHING
    ) -> list[Reply]:
        places = asyncio.Semaphore(at_once)

        async def one(messages: list[Message]) -> Reply:
            async with places:
                return await self.chat(messages, tokens, more)

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(messages)) for messages in conversations]
        return [task.result() for task in tasks]

    async def begin(self, messages: list[Message], tokens: int) -> client.Exchange:
        """Start a stream that is read while it runs; the caller hangs up."""
        body = json.dumps(self._body(messages, tokens, NOTHING)).encode()
        return await client.opened(self.port, "POST", "/v1/chat/completions", body)

    def _body(self, messages: list[Message], tokens: int, more: More) -> dict[str, Any]:
        return {
            "model": "default_model",  # the peer's name for the model of its command line; ours takes any
            "messages": messages,
            "max_tokens": tokens,
            "temperature": 0.0,
            "stream": True,
            "stream_options": {"include_usage": True},
            **self.recipe.more,
            **more,
        }

    async def health(self) -> float:
        """Wait until /health answers with any status. Returns seconds since the process was started."""
        while await client.status(self.port, "/health") is None:
            await self._pause()
        return time.perf_counter() - self.born

    async def ready(self) -> float:
        """Wait for a first token. Returns seconds since the process was started."""
        await self.health()
        while await client.status(self.port, "/health") == 503:
            await self._pause()
        await self.chat([{"role": "user", "content": "Hello"}], 2)
        return time.perf_counter() - self.born

    async def _pause(self) -> None:
        if self.process.poll() is not None or time.perf_counter() > self.born + START_SECONDS:
            raise BenchmarkError(f"{self.name} did not start ({self.process.poll()}); {self._last_words()}")
        await asyncio.sleep(0.01)

    @contextmanager
    def awake(self) -> Iterator[None]:
        with awake(self.process):
            yield

    async def stop(self) -> None:
        await asyncio.to_thread(end, self.process)

    def _last_words(self) -> str:
        return f"its log ends: {self._log.read_bytes()[-2000:].decode(errors='replace')}"


@asynccontextmanager
async def another(server: Server, home: Path | None = None) -> AsyncIterator[Server]:
    """Start one more of the same kind, with nothing kept unless in `home`, and end it."""
    with tempfile.TemporaryDirectory() as empty:
        one = Server(server.recipe, server.model, home or Path(empty))
        try:
            yield one
        finally:
            await one.stop()


@contextmanager
def awake(process: Any) -> Iterator[None]:
    """Let a process run until the block ends. Those of this package are suspended once their workload is prepared."""
    process.send_signal(signal.SIGCONT)
    try:
        yield
    finally:
        if process.is_running():
            process.send_signal(signal.SIGSTOP)


def end(process: Any) -> None:
    """Ask a process to end, suspended or not, and then do not ask."""
    if process.poll() is not None:
        return
    process.send_signal(signal.SIGCONT)
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except (psutil.TimeoutExpired, subprocess.TimeoutExpired):
        process.kill()
        process.wait(STOP_SECONDS)


def environment(home: Path) -> dict[str, str]:
    """What a process of the benchmark sees: none of the user's own settings, caches or preloaded libraries."""
    told = {"LD_PRELOAD", "DYLD_INSERT_LIBRARIES"}
    kept = {name: value for name, value in os.environ.items() if name not in told and not name.startswith("TILES_")}
    return kept | {"HOME": str(home), "HF_HUB_OFFLINE": "1", "NO_COLOR": "1", "PYTHONUNBUFFERED": "1"}
