"""A loaded model as the event loop sees it: each method is work for the engine thread or for the thread of prompts."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from app.services.caller import Caller
from app.services.engine.cache.disk_thread import disk
from app.services.engine.model.image_markers import replaced
from app.services.engine.scheduler.handle import INPUTS_AT_ONCE, Handle
from app.services.engine.scheduler.running_generation import RunningGeneration
from app.services.engine.scheduler.running_request import RunningEmbedding, RunningScoring
from app.services.engine.vision.reading import read_images, read_shared_images
from app.services.errors import NoRanking
from app.services.facts import AdapterFacts, SlotFacts
from app.services.generation import (
    EncodedImage,
    GenerationRequest,
    RankRequest,
    ScoringRequest,
    Started,
)
from app.services.inference import EngineModel
from app.services.media_marker import MEDIA_MARKER

if TYPE_CHECKING:  # they import MLX, which takes seconds and belongs on the engine thread
    from app.services.engine.loaded_model import LoadedModel
    from app.services.engine.prompt import Prompt


class ModelHandle(Handle, EngineModel):
    """A model that answers."""

    _model: "LoadedModel"

    def adapters(self) -> list[AdapterFacts]:
        """Give the LoRA adapters and their default scales."""
        return self._model.adapters.facts()

    def set_adapters(self, scales: dict[int, float]) -> None:
        """Set the default scales of adapters by number."""
        self._model.adapters.set_defaults(scales)

    async def generate(self, requests: Sequence[GenerationRequest], caller: Caller) -> list[RunningGeneration]:
        """Prepare all requests, then queue all."""
        began = time.perf_counter()
        prompts = [await self._prepare(request) for request in requests]
        submitted = [
            self._submit(prompt, request, caller, began) for prompt, request in zip(prompts, requests, strict=True)
        ]
        return [generation for generations in submitted for generation in generations]

    async def rank(self, request: RankRequest, caller: Caller) -> RunningEmbedding:
        """Refuse to rank."""
        raise NoRanking(f"{self.facts.id} cannot rank documents")

    async def score(self, request: ScoringRequest, caller: Caller) -> RunningScoring:
        """Tokenize the prompts a few at a time, then queue what they have in common as a row."""
        model = self._model
        shown, images = await read_shared_images(request.prompts, model.vision, model.image_fetcher)
        running = RunningScoring(self._cancel, caller)
        tokenized, prompts = model.tokenize_prompts(shown, images), []
        while some := await self._off_loop(list, islice(tokenized, INPUTS_AT_ONCE)):  # others' prompts come in between
            prompts += some
        row = await self._off_loop(model.make_scoring, prompts, running)
        self._queue(partial(model.scheduler.submit, row), [running])
        return running

    async def render(self, request: GenerationRequest) -> str:
        """Give the prompt as text, as it can be sent with the images that its markers stand for."""
        request, _ = await self._read_images(request)
        text = await self._off_loop(self._model.prompts.render, request)
        return replaced(text, lambda _: MEDIA_MARKER)

    async def shared_prefix(self, request: GenerationRequest) -> list[int]:
        """Give what conversations have in common that begin like this one."""
        return await self._off_loop(self._model.prompts.shared_prefix, request)

    async def count(self, request: GenerationRequest) -> int:
        """Count the tokens of a prompt, whether or not it fits."""
        return await self._off_loop(self._model.prompts.count, *await self._read_images(request))

    async def measure(self, request: GenerationRequest) -> int:
        """Count the tokens of a prompt that `generate` would take."""
        return len((await self._prepare(request)).tokens)

    async def slots(self) -> list[SlotFacts]:
        """Say what is in each slot of the batch."""
        return await self._commands.call(self._model.scheduler.slots.facts)

    async def save_slot(self, slot: int, path: Path) -> tuple[int, int]:
        """Copy what an idle slot holds between two steps, and write it on the thread for the disk."""
        self.facts.check_slot_files()
        tokens, layers = await self._commands.call(self._model.scheduler.slots.layers, slot)
        write = partial(self._model.write_slot, path, tokens, layers)
        return len(tokens), await asyncio.wrap_future(disk.call(write))

    async def restore_slot(self, slot: int, path: Path) -> tuple[int, int]:
        """Read a file into an idle slot, between two steps."""
        self.facts.check_slot_files()
        return await self._commands.call(self._model.scheduler.slots.fill, slot, partial(self._model.read_slot, path))

    async def erase_slot(self, slot: int) -> int:
        """Forget what an idle slot holds."""
        return await self._commands.call(self._model.scheduler.slots.erase, slot)

    async def _prepare(self, request: GenerationRequest) -> "Prompt":
        return await self._off_loop(self._model.prepare, *await self._read_images(request))

    async def _read_images(self, request: GenerationRequest) -> tuple[GenerationRequest, Mapping[bytes, EncodedImage]]:
        return await read_images(request, self._model.vision, self._model.image_fetcher)

    def _submit(
        self, prompt: "Prompt", request: GenerationRequest, caller: Caller, began: float
    ) -> list[RunningGeneration]:
        model, facts = self._model, self._model.facts
        text = model.prompts.shown(prompt.text)
        started = Started(facts.id, len(prompt.tokens), text, facts.context.tokens, facts.defaults)
        generations = [
            RunningGeneration(self._cancel, caller, close_reasoning=self._close_reasoning, prepared_from=began)
            for _ in range(request.answers)
        ]
        for generation in generations:
            generation.put(started)
        self._queue(lambda: model.scheduler.submit(model.make_rows(prompt, request, generations)), generations)
        return generations

    def _close_reasoning(self, generation: RunningGeneration) -> None:
        self._commands.put(partial(self._model.scheduler.close_reasoning, generation))
