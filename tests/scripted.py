"""A server whose model says what a test has written down: for turns that a random model would never take."""

import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import uvicorn

from app.application import create_app
from app.services.caller import Caller
from app.services.context_length import ContextLength
from app.services.engine.scheduler.meter import Meter
from app.services.engine.scheduler.running_generation import RunningGeneration
from app.services.engine.scheduler.running_request import RunningRequest
from app.services.errors import AppError
from app.services.facts import ModelFacts
from app.services.generation import (
    Event,
    FinishCause,
    Finished,
    GenerationRequest,
    Progress,
    Reasoning,
    Sampling,
    Started,
    Text,
    Timings,
    ToolCall,
)
from app.services.model_folder import ModelFolder
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


FACTS = ModelFacts(
    id="scripted",
    path=Path("scripted"),
    model_type="scripted",
    context=ContextLength(8192, 8192, "max_position_embeddings in config.json"),
    vocabulary=768,
    hidden_size=64,
    parameters=2**18,
    weight_bytes=2**20,
    precision="float32",
    created=0,
    chat_template="",
    bos_token="",
    eos_token="",
    end_tokens=frozenset(),
    defaults=Sampling(),
    calls_tools=True,
    reasons=True,
    max_rows=32,
)


@dataclass
class ScriptedModel:
    """Answers with one script after another, or raises it. One without Finished never ends by itself."""

    scripts: list[Sequence[Event | AppError] | Exception] = field(default_factory=list)
    requests: list[GenerationRequest] = field(default_factory=list)
    cancelled: int = 0
    facts: ModelFacts = FACTS

    async def generate(self, requests: Sequence[GenerationRequest], caller: Caller) -> list[RunningGeneration]:
        self.requests += requests
        return [self._begin(self.scripts.pop(0), caller) for _ in requests]

    async def count(self, request: GenerationRequest) -> int:
        return PROMPT_TOKENS

    def _begin(self, script: Sequence[Event | AppError] | Exception, caller: Caller) -> RunningGeneration:
        if isinstance(script, Exception):
            raise script
        generation = RunningGeneration(self._cancel, caller)
        for outcome in script:
            generation.put(outcome)
        return generation

    def _cancel(self, generation: RunningRequest) -> None:
        self.cancelled += 1


@dataclass
class ScriptedEngine:
    """Whatever it is to load, it loads one model, at once."""

    model: ScriptedModel
    back_end: str = "scripted"
    device: None = None
    group: None = None
    meter: Meter = field(default_factory=Meter)

    def start(self) -> None:
        pass

    def stop(self) -> None:
        pass

    def stuck_for(self) -> float:
        return 0.0

    async def load(self, folder: ModelFolder, progress: Callable[[float], None]) -> ScriptedModel:
        return self.model

    def give_up_loads(self, error: AppError) -> None:
        pass


@contextmanager
def serving(model: ScriptedModel | None, home: Path, **more: str) -> Iterator[str]:
    """Serve a model, or none, on a port of its own, over real sockets, until the block ends."""
    demo = model is not None
    settings = Settings(data_dir=home / "data", demo=demo, skip_session_persist=True, **more)  # type: ignore[arg-type]
    service = ModelService(settings, engine=ScriptedEngine(model or ScriptedModel()))  # type: ignore[arg-type]
    app = create_app(settings, service)
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="on", timeout_graceful_shutdown=1))
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        while not (server.started and (model is None or service.models.facts)) and thread.is_alive():
            time.sleep(0.005)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        thread.join(10)
