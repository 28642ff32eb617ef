"""A loaded model with its queue limit and its running answers."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from app.services.active_generations import ActiveGenerations
from app.services.caller import Caller, caller
from app.services.context_length import ContextLength
from app.services.engine.scheduler.running_request import RunningRequest, RunningResult
from app.services.errors import AppError, InvalidRequest, PromptTooLong, QueueFull
from app.services.facts import ModelFacts, SlotFacts
from app.services.generation import (
    Generation,
    GenerationRequest,
    Message,
)
from app.services.inference import EngineModel
from app.services.merged_generation import MergedGeneration
from app.settings import Settings

T = TypeVar("T")
GRACE_PERIOD = 10.0  # seconds that the answers of a model may still take once it is to be unloaded


class ServedModel:
    """Refuses what would wait too long, and knows when nobody needs the model. Its methods are for the event loop."""

    def __init__(
        self,
        model: EngineModel,
        settings: Settings,
        active: ActiveGenerations,
        system_prompt: Callable[[], str],
        on_idle: Callable[[], None] = lambda: None,
    ) -> None:
        self.model = model
        self.names = {model.facts.id}  # by any of which a request may mean it
        self._settings = settings
        self._active = active  # of all models
        self._system_prompt = system_prompt  # of the session at the moment, or "" if that is another model's
        self._on_idle = on_idle  # called when nothing is under way any more
        self._running = ActiveGenerations(on_end=self._check_idle)
        self._preparing = 0  # requests whose prompts are being rendered and tokenized
        self._holds = 0  # how often it is held
        self._idle = asyncio.Event()

    @property
    def facts(self) -> ModelFacts:
        """Facts of the model, with the sampling that a preset says."""
        facts = self.model.facts
        sampling = self._settings.presets.sampling(facts.id, facts.defaults)
        return facts if sampling is facts.defaults else replace(facts, defaults=sampling)

    @property
    def busy(self) -> bool:
        """Whether it answers, or somebody holds it."""
        return bool(self._running or self._holds)

    def hold(self) -> None:
        """Keep it from being unloaded until `release`."""
        self._holds += 1
        self._idle.clear()

    def release(self) -> None:
        """End a `hold`."""
        self._holds -= 1
        self._check_idle()

    async def wait_idle(self) -> None:
        """Wait until it answers nobody and nobody holds it."""
        while self.busy:
            await self._idle.wait()

    def need_readers(self, error: AppError | None) -> None:
        """End answers with an error as soon as nobody reads them; with None let them go on again."""
        self._running.need_readers(error)

    def fail_all(self, error: AppError) -> None:
        """End its answers with an error."""
        self._running.fail_all(error)

    async def generate(self, requests: Sequence[GenerationRequest]) -> Generation:
        """Begin the answers to several requests side by side: all of them or, with an AppError, none."""
        sender = caller.get()
        self._require_queue_space(sender)
        requests = [self._complete(request) for request in requests]
        with self._preparing_prompts(len(requests)):
            generations = await self.model.generate(requests, sender)
            self._register(generations)
        return generations[0] if len(generations) == 1 else MergedGeneration(generations)

    async def compute(self, begin: Callable[[EngineModel, Caller], Awaitable[RunningResult[T]]]) -> T:
        """Have the engine compute what has a single result: vectors, or probabilities. Raises AppError.

        To cancel this stops it within one engine step.
        """
        sender = caller.get()
        self._require_queue_space(sender)
        with self._preparing_prompts(1):
            running = await begin(self.model, sender)
            self._register([running])
        return await running.result()

    async def render(self, request: GenerationRequest) -> str:
        """Give the prompt that a conversation becomes. Raises AppError."""
        return await self.model.render(self._complete(request))

    async def count(self, request: GenerationRequest) -> int:
        """Count the tokens of the prompt that a request becomes, whether or not it fits. Raises AppError."""
        return await self.model.count(self._complete(request))

    async def tokenize(self, content: tuple[str | int, ...], *, special: bool) -> list[tuple[int, bytes]]:
        """Give the token ids of text and ids, each with its bytes. Raises AppError."""
        return await self.model.tokenize(content, special=special)

    async def detokenize(self, tokens: list[int]) -> str:
        """Give the text of token ids. Raises AppError."""
        return await self.model.detokenize(tokens)

    async def measure(self, request: GenerationRequest) -> tuple[int, ContextLength]:
        """Give the tokens of a request's prompt, and the context that has to hold them. Raises AppError."""
        try:
            return await self.model.measure(self._complete(request)), self.facts.context
        except PromptTooLong as error:
            return error.prompt_tokens, self.facts.context

    async def slots(self) -> list[SlotFacts]:
        """Say what is in each slot of the batch."""
        return await self.model.slots()

    async def save_slot(self, slot: int, name: str) -> tuple[int, int]:
        """Write what an idle slot of the batch holds to a file. Returns tokens and bytes. Raises AppError."""
        return await self.model.save_slot(slot, self._slot_file(name))

    async def restore_slot(self, slot: int, name: str) -> tuple[int, int]:
        """Read such a file into an idle slot. Returns tokens and bytes. Raises AppError."""
        return await self.model.restore_slot(slot, self._slot_file(name))

    async def erase_slot(self, slot: int) -> int:
        """Forget what an idle slot of the batch holds, in memory and on disk. Returns tokens. Raises AppError."""
        return await self.model.erase_slot(slot)

    def _complete(self, request: GenerationRequest) -> GenerationRequest:
        """Give a request what a preset says and it does not, and the session's system prompt.

        The prompt comes first, unless the request begins with its own or is no conversation.
        """
        request = self._settings.presets.complete(request, self.model.facts.id)
        prompt = self._system_prompt()
        if not prompt or request.prompt is not None or [message.role for message in request.messages[:1]] == ["system"]:
            return request
        return replace(request, messages=(Message("system", prompt), *request.messages))

    def _slot_file(self, name: str) -> Path:
        folder = self._settings.data_dir / "slots"
        if (folder / name).parent != folder or name.startswith("."):
            raise InvalidRequest("Invalid filename", param="filename")
        return folder / f"{name}.safetensors"  # by which MLX knows its own

    @contextmanager
    def _preparing_prompts(self, requests: int) -> Iterator[None]:
        self._preparing += requests
        try:
            yield
        finally:
            self._preparing -= requests

    def _register(self, generations: Sequence[RunningRequest]) -> None:
        self._idle.clear()
        self._active.add(generations)
        self._running.add(generations)

    def _check_idle(self) -> None:
        if not self.busy:
            self._idle.set()
            self._on_idle()

    def _require_queue_space(self, sender: Caller) -> None:
        """Raise QueueFull if too many wait; a caller with nothing else under way has room in twice as long a queue."""
        waiting = len(self._running) + self._preparing - self._settings.max_batch
        is_only = all(request.caller.who != sender.who for request in self._running)
        if waiting >= self._settings.max_queue * (2 if is_only else 1):
            oldest = max((request.age() for request in self._running), default=1.0)
            raise QueueFull(waiting, retry_after=max(1, min(60, round(oldest))))
