"""A server whose model says what a test has written down: for turns that a random model would never take."""

import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import uvicorn

from app.application import create_app
from app.services.engine.scheduler.running_generation import RunningGeneration
from app.services.generation import (
    Event,
    FinishCause,
    Finished,
    Generation,
    GenerationRequest,
    Progress,
    Reasoning,
    Started,
    Text,
    Timings,
    ToolCall,
)
from app.services.model_service import ModelService
from app.settings import Settings

PROMPT_TOKENS = 10
CACHED_TOKENS = 3


def answer(
    *pieces: Event | str, reason: str | None = None, stop: str | None = None, cause: FinishCause = "end_token"
) -> list[Event]:
    """The events of an answer: a text is a Text, every piece a token."""
    said: list[Event] = [Started("scripted", PROMPT_TOKENS), Progress(CACHED_TOKENS, PROMPT_TOKENS, CACHED_TOKENS, 0.0)]
    for number, piece in enumerate(pieces, 1):
        said.append(Text(piece, timings(number)) if isinstance(piece, str) else piece)
    called = any(isinstance(piece, ToolCall) for piece in pieces)
    ended = reason or ("tool_calls" if called else "stop")
    return [*said, Finished(ended, stop, timings(len(pieces) + 1), cause)]  # type: ignore[arg-type]


def thought(text: str, tokens: int = 1) -> Reasoning:
    return Reasoning(text, timings(tokens))


def timings(tokens: int) -> Timings:
    return Timings(CACHED_TOKENS, PROMPT_TOKENS - CACHED_TOKENS, 14.0, tokens, 8.0, 15.0, 25.0)


class ScriptedModel:
    """What a prompt is counted by."""

    async def count(self, request: GenerationRequest) -> int:
        return PROMPT_TOKENS


@dataclass
class Scripted(ModelService):
    """Answers with one script after another; a script without Finished never ends by itself."""

    scripts: list[Sequence[Event]]
    asked: list[GenerationRequest] = field(default_factory=list)
    cancelled: int = 0

    def __post_init__(self) -> None:
        super().__init__(Settings())
        self.models.find = lambda name=None: ScriptedModel()  # type: ignore[method-assign,assignment,return-value]

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        yield

    async def generate(self, *requests: GenerationRequest) -> Generation:
        self.asked += requests
        generation = RunningGeneration(self._cancel)
        for event in self.scripts.pop(0):
            generation.put(event)
        return generation

    def _cancel(self, generation: RunningGeneration) -> None:
        self.cancelled += 1


@contextmanager
def serving(service: ModelService, home: Path, **more: str) -> Iterator[str]:
    """Serve on a port of its own, over real sockets, until the block ends."""
    app = create_app(Settings(data_dir=home / "data", **more), service)  # type: ignore[arg-type]
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="on", timeout_graceful_shutdown=1))
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        while not server.started and thread.is_alive():
            time.sleep(0.005)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        thread.join(10)
