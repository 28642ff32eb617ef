"""The service under the routes: it begins answers and sessions, watches the engine, and ends in good order."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from itertools import chain, repeat
from pathlib import Path

import structlog

from app.services import bootstrap, catalog, memory_path, ranking
from app.services import session as sessions
from app.services.active_generations import ActiveGenerations
from app.services.engine.engine import MLXEngine
from app.services.engine.limits import EngineLimits
from app.services.engine.scheduler.meter import Meter
from app.services.engine.speculative.draft_config import DraftConfig
from app.services.errors import AppError, EngineStuck, GroupLost, GroupNotFormed, ShuttingDown
from app.services.estimates import hardware
from app.services.estimates.estimator import Estimator
from app.services.estimates.hardware import Hardware
from app.services.facts import GroupFacts, ModelFacts
from app.services.generation import (
    Embedded,
    EmbeddingRequest,
    Generation,
    GenerationRequest,
    Ranked,
    RankRequest,
    Scored,
    ScoringRequest,
)
from app.services.hostfile import GroupConfig
from app.services.inference import Engine
from app.services.model_events import ModelEvents
from app.services.model_folder import ModelFolder
from app.services.models import Models
from app.services.models_router import ModelsRouter
from app.services.named_model import NamedModel
from app.services.pending_generation import PendingGeneration
from app.services.session import Session
from app.services.single_model import SingleModel
from app.services.tiles.agent_prompts import AgentPrompts
from app.services.tiles.prefill import prefill
from app.settings import Settings

log = structlog.get_logger()


class ModelService:
    """A singleton of the application. Its methods are for the event loop."""

    def __init__(
        self,
        settings: Settings,
        on_progress: Callable[[str, float], None] = lambda model, progress: None,
        on_stuck: Callable[[], None] = lambda: None,
        engine: Engine | None = None,  # None is MLX's
        on_lost: Callable[[], None] = lambda: None,
    ) -> None:
        self.stuck: EngineStuck | GroupLost | None = None  # why nothing can be answered, although a model is loaded
        self._on_stuck = on_stuck
        self._on_lost = on_lost  # once the machines of --hostfile serve together no more
        self._loop: asyncio.AbstractEventLoop | None = None
        self._on_progress = on_progress  # called with a model's id and 0 to 1, on the engine thread or the event loop
        self.last_error: str | None = None  # of the last load, None once one has worked
        self._settings = settings
        self._engine = engine or MLXEngine(_limits(settings), _draft_config(settings), self._lose_group)
        self.estimator = Estimator(self._engine, settings.context_length)
        self.active = ActiveGenerations()  # of all models
        self.events = ModelEvents()
        self.models = self._choose_models()
        self._agent_prompts = AgentPrompts(settings.data_dir / "agent_prompts" if settings.cache_disk else None)
        self._one_at_a_time = asyncio.Lock()
        self._first_load: asyncio.Task[None] | None = None
        self._draining = False

    def _choose_models(self) -> Models:
        common = self._settings, self._engine, self.active, self._on_progress
        if self._settings.models_dir is None:
            only_model = NamedModel if self._settings.load_by_name else SingleModel
            return only_model(*common, require_work=self._require_work, start_session=self.start)
        return ModelsRouter(self._settings.models_dir, *common, self.events, require_work=self._require_work)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run the engine; the first model loads while the server already listens."""
        for warning in self._settings.warnings:
            log.warning("configuration of Tiles not used", reason=warning)
        self._loop = asyncio.get_running_loop()
        self._engine.start()
        candidates = bootstrap.candidates(self._settings)
        if candidates:
            self.models.expect_load(candidates[0].session.model)
        self._first_load = asyncio.create_task(self._load_first(candidates))
        watch = asyncio.create_task(self._watch())
        try:
            yield
        finally:
            watch.cancel()
            self._end_loads()
            await asyncio.to_thread(self._engine.stop)

    @property
    def group(self) -> GroupFacts | None:
        """The machines that serve the model together; None where it is this one alone."""
        return self._engine.group

    @property
    def meter(self) -> Meter:
        """What the engine counts."""
        return self._engine.meter

    def hardware(self) -> Hardware:
        """Look what this machine has for models."""
        return hardware.read(self._engine)

    def require_open(self) -> None:
        """Raise ShuttingDown once the server shuts down."""
        if self._draining:
            raise ShuttingDown(retry_after=5)

    def _require_work(self) -> None:
        self.require_open()
        if self.stuck is not None:
            raise self.stuck.with_traceback(None)

    async def generate(self, *requests: GenerationRequest, note_prompt: bool = False) -> Generation:
        """Begin the answers to requests for one model side by side, to be read as one: all or, with an AppError, none.

        Returns once they are accepted. With `note_prompt` the system prompt and the tools are what `warm_up` computes.
        """
        name = requests[0].model

        async def begin() -> Generation:
            async with self.models.using(name) as model:
                generation = await model.generate(requests)
                if note_prompt:
                    self._agent_prompts.note(model.facts.id, requests[0])
                return generation

        if self.models.must_load(name):
            return await PendingGeneration.begin(begin, sum(request.answers for request in requests))
        return await begin()

    async def warm_up(self, name: str) -> tuple[bool, list[str]]:
        """Load a model, and compute the system prompt and tools that its agent last sent. Raises AppError.

        Gives whether there were any, and sentences for the user. What fails after the load is one of these.
        """
        async with self.models.using(name) as model:
            warnings = self.warnings(model.facts)
            if (prompt := await self._agent_prompts.get(model.facts.id)) is None:
                return False, warnings
            try:
                await prefill(model, prompt)
            except AppError as error:
                log.warning("agent prompt not computed", model=model.facts.id, code=error.code)
                return False, [*warnings, f"The agent's prompt could not be computed ahead: {error.message}"]
            return True, warnings

    async def embed(self, request: EmbeddingRequest) -> Embedded:
        """Turn texts into vectors. Raises AppError. To cancel this stops it within one engine step."""
        async with self.models.using(self.models.name_for("embedding", request.model)) as model:
            return await model.compute(lambda engine, caller: engine.embed(request, caller))

    async def rank(self, request: RankRequest) -> Ranked:
        """Say how well documents answer a query. Raises AppError. To cancel this stops it within one engine step."""
        async with self.models.using(self.models.name_for("rerank", request.model)) as model:
            return await ranking.rank(request, model)

    async def score(self, request: ScoringRequest) -> Scored:
        """Compute how likely texts are behind prompts. Raises AppError. To cancel this stops it within one step."""
        async with self.models.using(request.model) as model:
            return await model.compute(lambda engine, caller: engine.score(request, caller))

    async def start(self, session: Session) -> list[str]:
        """Load the model of a session and save the session. The memory agent's conversation begins anew.

        Gives sentences that say what is not as the session has it. Raises LoadFailed; what was loaded then goes on. A
        memory folder that cannot be used keeps nobody from the model: it is a warning, and turns of memory mode are
        refused with the reason.
        """
        new_folders, memory_warning = await self._prepare_memory(session.memory_path)
        try:
            async with self._one_at_a_time:
                await self._load(session, partial(catalog.resolve, session.model, session.model_cache_path or None))
                is_saved = await self._save(session)
                facts = self.models.facts
        except BaseException:
            memory_path.remove(new_folders)
            raise
        save_warning = None if is_saved else f"The session could not be saved to {self._settings.session_file}"
        return [warning for warning in (memory_warning, save_warning) if warning] + self.warnings(facts)

    def warnings(self, facts: ModelFacts | None) -> list[str]:
        """Give sentences that say what the user of a model should know, but cannot see from its answers."""
        if facts is None:
            return [*self._settings.warnings]
        context, served = self._settings.context_length, facts.context.tokens
        short = [f"The context is {served} tokens, not {context}: {facts.id} has no more"]
        return [*self._settings.warnings, *facts.warnings, *(short if context and served < context else ())]

    async def _prepare_memory(self, path: str) -> tuple[list[Path], str | None]:
        """Make the memory folder of a session, if it names one. Gives the folders that are new, and a warning."""
        if not path:
            return [], None
        own = self._settings.data_dir, self._settings.session_file
        new_folders, problem = await asyncio.to_thread(memory_path.try_prepare, path, *own)
        if problem is None:
            return new_folders, None
        log.warning("memory folder not usable", reason=problem)
        return [], f"Memory mode does not work: {problem}"

    async def drain(self, seconds: float) -> None:
        """Refuse new requests, give up loads, and wait for the running answers; what takes longer gets an error."""
        self._draining = True
        self._end_loads()
        await self.active.drain(seconds, ShuttingDown())

    def _end_loads(self) -> None:
        ending = ShuttingDown()
        if self._first_load is not None:
            self._first_load.cancel()
        self.models.close(ending)
        self.events.close()
        self._engine.give_up_loads(ending)

    async def _watch(self) -> None:
        """Notice a step that does not return, or does so at last; sleeps while there is nothing to watch."""
        limit, asleep = self._settings.watchdog_seconds, 0.0
        while limit > 0:
            if self.stuck is None:
                await self.active.not_empty.wait()
            asleep += await _oversleep(min(5.0, limit / 10))
            if isinstance(self.stuck, GroupLost):
                return
            seconds = self._engine.stuck_for()
            if not seconds:
                asleep = 0.0
            if (seconds := seconds - asleep) <= limit:
                self.stuck = None
            elif self.stuck is None:
                log.error("engine stuck", seconds=round(seconds))
                error = EngineStuck(f"The engine has not come back from a step for {seconds:.0f} s", retry_after=5)
                self._stick(error, self._on_stuck)

    def _stick(self, error: EngineStuck | GroupLost, restart: Callable[[], None]) -> None:
        """End all answers, and begin none."""
        self.stuck = error
        self.active.fail_all(error)
        restart()

    def _lose_group(self, reason: str) -> None:
        """On any thread."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._stick, GroupLost(reason, retry_after=10), self._on_lost)

    async def _load_first(self, candidates: list[bootstrap.Candidate]) -> None:
        async with self._one_at_a_time:
            await self.models.load_beside()
            for candidate in candidates:
                try:
                    await self._load_patiently(candidate)
                except AppError as error:  # a machine is lost that just took part, say
                    log.warning("load failed", source=candidate.source, error=error.message)
                    continue
                if candidate.persist:
                    await self._save(candidate.session)
                break

    async def _load_patiently(self, candidate: bootstrap.Candidate) -> None:
        """Load a model. Machines that cannot be brought together now are tried again, less and less often."""
        for pause in chain((1, 2, 4, 8, 16, 32), repeat(60)):
            self.models.expect_load(candidate.session.model)
            try:
                await self._load(candidate.session, partial(bootstrap.locate, candidate))
                return
            except GroupNotFormed as error:
                log.warning("group not formed", reason=error.message, again_in=pause)
            self.models.expect_load(candidate.session.model)
            await asyncio.sleep(pause)

    async def _load(self, session: Session, locate: Callable[[], ModelFolder]) -> None:
        try:
            await self.models.start(session, locate)
        except AppError as error:
            self.last_error = error.message
            raise
        self.last_error = None

    async def _save(self, session: Session) -> bool:
        """Save a session unless that is switched off. False if it failed."""
        if self._settings.skip_session_persist:
            return True
        await asyncio.to_thread(sessions.forget_conversation, self._settings.session_file)
        return await asyncio.to_thread(sessions.write, self._settings.session_file, session)


async def _oversleep(seconds: float) -> float:
    """Sleep, and give the seconds beyond: while the whole process is suspended, no step is stuck."""
    began = time.monotonic()
    await asyncio.sleep(seconds)
    return time.monotonic() - began - seconds


def _limits(settings: Settings) -> EngineLimits:
    return EngineLimits(
        max_rows=settings.max_batch,
        max_models=settings.max_models if settings.models_dir else 1,
        cache_bytes=settings.cache_ram,
        context_length=settings.context_length,
        max_memory=settings.max_memory,
        kv_bits=settings.kv_bits,
        max_lookup_tokens=settings.prompt_lookup,
        blas=settings.blas,
        stop_repetition=settings.stop_repetition,
        image_tokens=settings.image_tokens,
        mmproj=settings.mmproj,
        fetches_images=settings.allow_image_urls,
        tool_call_grammar="off" if settings.tool_call_grammar == "off" else "lazy",
        store_folder=settings.data_dir / "prefixes",
        store_bytes=0 if settings.hostfile else settings.cache_disk,  # each machine has a part of a KV cache
        adapters=settings.adapters,
        gguf_folder=settings.gguf_folder,
        gguf_bytes=settings.gguf_cache,
        group=_group(settings),
    )


def _group(settings: Settings) -> GroupConfig | None:
    if settings.hostfile is None:
        return None
    return GroupConfig(settings.machines, settings.sharding, settings.layer_split or (), settings.group_seconds)


def _draft_config(settings: Settings) -> DraftConfig | None:
    """Give the draft model of the settings. It has to fit a model that is served alone, not each of a folder."""
    if settings.draft_model is None:
        return None
    strict = settings.models_dir is None
    return DraftConfig(settings.draft_model, settings.draft_tokens, strict, settings.context_length)
