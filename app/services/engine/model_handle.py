"""A loaded model as the event loop sees it: each method is work for the engine thread or for the thread of prompts."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import structlog

from app.services.caller import Caller
from app.services.engine.cache.disk_thread import disk
from app.services.engine.scheduler.commands import CommandQueue
from app.services.engine.scheduler.running_generation import Outbox, RunningGeneration
from app.services.engine.scheduler.running_request import RunningEmbedding, RunningRequest, RunningScoring
from app.services.errors import AppError, EngineFailed, ModelUnloaded, UnprocessableBody
from app.services.facts import AdapterFacts, ModelFacts, SlotFacts
from app.services.generation import EmbeddingRequest, GenerationRequest, ScoringRequest, Started
from app.services.inference import EngineModel

if TYPE_CHECKING:  # they import MLX, which takes seconds and belongs on the engine thread
    from app.services.engine.loaded_model import LoadedModel
    from app.services.engine.prompt import Prompt

log = structlog.get_logger()

P = ParamSpec("P")
T = TypeVar("T")
_MAX_INPUT_TOKENS = 2**20  # of one request for vectors
_INPUTS_AT_ONCE = 16  # texts of one request that are tokenized in one go
_PARTS_AT_ONCE = 1024  # texts and ids of one request that are tokenized in one go


class ModelHandle(EngineModel):
    """Hands the work to one of two threads: the engine's, or the only one of `prompts`, which renders and tokenizes."""

    def __init__(
        self,
        model: "LoadedModel",
        *,
        commands: CommandQueue,
        prompts: Executor,
        outbox: Outbox,
        unload: Callable[[bool], None],  # on the engine thread; with True it ends the answers under way
    ) -> None:
        self._model = model
        self._commands = commands
        self._prompts = prompts
        self._outbox = outbox
        self._unload = unload

    @property
    def facts(self) -> ModelFacts:
        """What there is to know of the model."""
        return self._model.facts

    def adapters(self) -> list[AdapterFacts]:
        """Give the LoRA adapters and their default scales."""
        return self._model.adapters.facts()

    def set_adapters(self, scales: dict[int, float]) -> None:
        """Set the default scales of adapters by number."""
        self._model.adapters.set_defaults(scales)

    async def generate(self, requests: Sequence[GenerationRequest], caller: Caller) -> list[RunningGeneration]:
        """Prepare all requests, then queue all."""
        prompts = [await self._prepare(request) for request in requests]
        submitted = [self._submit(prompt, request, caller) for prompt, request in zip(prompts, requests, strict=True)]
        return [generation for generations in submitted for generation in generations]

    async def embed(self, request: EmbeddingRequest, caller: Caller) -> RunningEmbedding:
        """Tokenize the texts a few at a time, then queue them all."""
        model = self._model
        running = RunningEmbedding(self._cancel, caller)
        model.check_dimensions(request)
        _check_input_tokens(model.prompts.min_tokens([part for parts in request.inputs for part in parts]))
        inputs: list[list[int]] = []
        for start in range(0, len(request.inputs), _INPUTS_AT_ONCE):  # so that other prompts come in between
            inputs += await self._off_loop(model.tokenize_inputs, request.inputs[start : start + _INPUTS_AT_ONCE])
            _check_input_tokens(sum(map(len, inputs)))
        embedding = await self._off_loop(model.make_embedding, request, inputs, running)
        self._queue(partial(model.scheduler.embed, embedding), [running])
        return running

    async def score(self, request: ScoringRequest, caller: Caller) -> RunningScoring:
        """Tokenize the prompts one by one, then queue what they have in common as a row."""
        model = self._model
        running = RunningScoring(self._cancel, caller)
        prompts = [await self._off_loop(model.tokenize_continuations, each) for each in request.prompts]
        row = await self._off_loop(model.make_scoring, prompts, running)
        self._queue(partial(model.scheduler.submit, row), [running])
        return running

    async def render(self, request: GenerationRequest) -> str:
        """Give the prompt as text."""
        return await self._off_loop(self._model.prompts.render, request)

    async def shared_prefix(self, request: GenerationRequest) -> list[int]:
        """Give what conversations have in common that begin like this one."""
        return await self._off_loop(self._model.prompts.shared_prefix, request)

    async def count(self, request: GenerationRequest) -> int:
        """Count the tokens of a prompt, whether or not it fits."""
        return await self._off_loop(self._model.prompts.count, request)

    async def measure(self, request: GenerationRequest) -> int:
        """Count the tokens of a prompt that `generate` would take."""
        return len((await self._prepare(request)).tokens)

    async def tokenize(self, content: tuple[str | int, ...], *, special: bool) -> list[tuple[int, bytes]]:
        """Give token ids with their bytes."""
        self._model.prompts.check_length(content, "content")
        tokens: list[tuple[int, bytes]] = []
        for start in range(0, len(content), _PARTS_AT_ONCE):  # so that other prompts come in between
            parts = content[start : start + _PARTS_AT_ONCE]
            tokens += await self._off_loop(self._model.tokenize, parts, special=special and start == 0)
        return tokens

    async def detokenize(self, tokens: list[int]) -> str:
        """Give the text of token ids."""
        return await self._off_loop(self._model.detokenize, tokens)

    async def slots(self) -> list[SlotFacts]:
        """Say what is in each slot of the batch."""
        return await self._commands.call(self._model.scheduler.slots.facts)

    async def save_slot(self, slot: int, path: Path) -> tuple[int, int]:
        """Copy what an idle slot holds between two steps, and write it on the thread for the disk."""
        tokens, layers = await self._commands.call(self._model.scheduler.slots.layers, slot)
        write = partial(self._model.write_slot, path, tokens, layers)
        return len(tokens), await asyncio.wrap_future(disk.call(write))

    async def restore_slot(self, slot: int, path: Path) -> tuple[int, int]:
        """Read a file into an idle slot, between two steps."""
        return await self._commands.call(self._model.scheduler.slots.fill, slot, partial(self._model.read_slot, path))

    async def erase_slot(self, slot: int) -> int:
        """Forget what an idle slot holds."""
        return await self._commands.call(self._model.scheduler.slots.erase, slot)

    async def unload(self, *, now: bool = False) -> None:
        """Take the model out of memory, between two steps."""
        await self._commands.call(self._unload, now)

    async def _prepare(self, request: GenerationRequest) -> "Prompt":
        return await self._off_loop(self._model.prepare, request)

    async def _off_loop(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._prompts, partial(work, *args, **kwargs))

    def _submit(self, prompt: "Prompt", request: GenerationRequest, caller: Caller) -> list[RunningGeneration]:
        model, facts = self._model, self._model.facts
        started = Started(facts.id, len(prompt.tokens), prompt.text, facts.context.tokens, facts.defaults)
        generations = [
            RunningGeneration(self._cancel, caller, close_reasoning=self._close_reasoning)
            for _ in range(request.answers)
        ]
        for generation in generations:
            generation.put(started)
        self._queue(lambda: model.scheduler.submit(model.make_rows(prompt, request, generations)), generations)
        return generations

    def _queue(self, submit: Callable[[], None], requests: Sequence[RunningRequest]) -> None:
        self._commands.put(partial(self._submit_or_fail, submit, requests))

    def _cancel(self, request: RunningRequest) -> None:
        self._commands.put(partial(self._model.scheduler.cancel, request))

    def _close_reasoning(self, generation: RunningGeneration) -> None:
        self._commands.put(partial(self._model.scheduler.close_reasoning, generation))

    def _submit_or_fail(self, submit: Callable[[], None], requests: Sequence[RunningRequest]) -> None:
        """Have the scheduler take requests; what hinders that is their error. On the engine thread."""
        error: AppError = ModelUnloaded("The model was unloaded")
        if not self._model.scheduler.retired:
            try:
                submit()
            except Exception:
                log.exception("request could not be queued")
                error = EngineFailed("The engine failed before it began this answer")
            else:
                return
        for request in requests:
            self._outbox.put(request, [error])


def _check_input_tokens(tokens: int) -> None:
    if tokens > _MAX_INPUT_TOKENS:
        raise UnprocessableBody(
            f"input: more than {_MAX_INPUT_TOKENS} tokens in one request; send fewer at a time", param="input"
        )
