"""What is loaded: it loads and unloads models, keeps the session, and lets the loaded model answer."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import Any

import structlog

from app.services import bootstrap, catalog, free_memory, memory_path, session
from app.services.answers import Answers
from app.services.catalog import ModelFolder
from app.services.engine.engine import MLXEngine
from app.services.engine.limits import EngineLimits
from app.services.engine.scheduler.meter import Meter
from app.services.engine.speculative.draft_config import DraftConfig
from app.services.errors import (
    AppError,
    EngineStuck,
    InvalidRequest,
    LoadFailed,
    ModelLoading,
    ModelNotLoaded,
    ShuttingDown,
)
from app.services.facts import AdapterFacts, ModelFacts
from app.services.generation import Embedded, EmbeddingRequest, Generation, GenerationRequest, Message
from app.services.inference import Engine
from app.services.loading import Loading
from app.services.memory import store
from app.services.models_router import PATIENCE, UNLOADED, ModelsRouter
from app.services.pending_generation import PendingGeneration
from app.services.served_model import ServedModel
from app.services.session import Session
from app.settings import Settings

log = structlog.get_logger()


class ModelService:
    """A singleton of the application. Its methods are for the event loop."""

    def __init__(
        self,
        settings: Settings,
        on_progress: Callable[[str, float], None] = lambda model, done: None,
        on_stuck: Callable[[], None] = lambda: None,
        engine: Engine | None = None,  # None is MLX's
    ) -> None:
        self.stuck: str | None = None  # why nothing can be answered, although a model is loaded
        self._on_stuck = on_stuck
        self._on_progress = on_progress  # called on the engine thread with a model's id and 0 to 1
        self.last_error: str | None = None  # of the last load, None once one has worked
        self._settings = settings
        self._engine = engine or MLXEngine(_limits(settings), _drafting(settings))
        self._answers = Answers()
        self.router = self._routing(settings)  # None when one model is served
        self._served: ServedModel | None = None
        self._session: Session | None = None
        self._loading: Loading | None = None
        self._one_at_a_time = asyncio.Lock()
        self._first_load: asyncio.Task[None] | None = None
        self._draining = False

    def _routing(self, settings: Settings) -> ModelsRouter | None:
        if settings.models_dir is None:
            return None
        return ModelsRouter(settings.models_dir, settings, self._engine, self._answers, self._on_progress)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run the engine; the first model loads while the server already listens."""
        self._engine.start()
        candidates = bootstrap.candidates(self._settings)
        if candidates and self.router is None:
            self._loading = Loading(candidates[0].session.model)
        self._first_load = asyncio.create_task(self._load_first(candidates))
        watch = asyncio.create_task(self._watch())
        try:
            yield
        finally:
            watch.cancel()
            self._end_loads()
            await asyncio.to_thread(self._engine.stop)

    @property
    def meter(self) -> Meter:
        """What the engine counts."""
        return self._engine.meter

    @property
    def facts(self) -> ModelFacts | None:
        """Facts of the model that answers; of several, of the session's or of the one that was used last."""
        served = self.router.recent() if self.router else self._served
        return served.facts if served else None

    @property
    def session(self) -> Session | None:
        """The session that `/start`, `/models/load` or the start-up began."""
        return self._session

    @property
    def loading(self) -> Loading | None:
        """The load under way while no model can answer."""
        return self._loading if self._served is None else None

    def expect(self, model: str | None = None) -> None:
        """Raise AppError unless a request that names this model, or none, can be answered, if need be after a load."""
        self._require_work()
        if self.router is not None:
            self.router.find(model)
        elif self._served is None:
            self.require_no_load()
            raise ModelNotLoaded

    def find(self, model: str | None = None) -> ServedModel:
        """Give the model for a request that names one, or none, without loading it. Raises AppError."""
        self.expect(model)
        if self.router is None:
            assert self._served is not None
            return self._served
        return self.router.find(model).require()

    @asynccontextmanager
    async def using(self, model: str | None, *, autoload: bool = True) -> AsyncIterator[ServedModel]:
        """Hold the model for a request that names one, or none, for as long as this lasts. Raises AppError.

        One model is served under every name. Of several it is the one that is named; it is loaded first, if need be.
        """
        if self.router is None:
            yield self.find()
            return
        self._require_work()
        async with self.router.using(model, autoload=autoload) as served:
            yield served

    def require_open(self) -> None:
        """Raise Unavailable once the server is about to end."""
        if self._draining:
            raise ShuttingDown(retry_after=5)

    def _require_work(self) -> None:
        self.require_open()
        if self.stuck is not None:
            raise EngineStuck(self.stuck, retry_after=5)

    def require_no_load(self) -> None:
        """Raise Unavailable while the first model loads."""
        if (loading := self.loading) is not None:
            raise ModelLoading(retry_after=loading.seconds_left())

    async def generate(self, request: GenerationRequest) -> Generation:
        """Begin the answers to a request, one as a rule, to be read as one.

        Returns once the request is accepted; raises AppError for what is refused.
        """
        return await self.generate_all((request,))

    async def generate_all(self, requests: Sequence[GenerationRequest]) -> Generation:
        """Begin the answers to several requests side by side: all of them or, with an AppError, none."""
        answers = sum(request.answers for request in requests)
        return await self._begin(requests[0].model, self._generate(requests), answers)

    async def embed(self, request: EmbeddingRequest) -> Embedded:
        """Turn texts into vectors. Raises AppError. To cancel this stops it within one engine step."""
        async with self.using(request.model) as model:
            return await model.embed(request)

    def adapters(self, model: str | None = None) -> list[AdapterFacts]:
        """Give the adapters of the model that answers, none without one. Raises Unavailable while it loads."""
        self.require_no_load()
        return self.find(model).model.adapters() if self._served or self.router else []

    def set_adapters(self, scales: dict[int, float], model: str | None = None) -> None:
        """Say how much each adapter counts where a request says nothing. Raises InvalidRequest, and as `find` does."""
        self.find(model).model.set_adapters(scales)

    async def render(self, request: GenerationRequest) -> str:
        """Give the prompt that a conversation becomes. Raises AppError."""
        async with self.using(request.model) as model:
            return await model.render(self._with_system_prompt(request, model))

    async def count(self, request: GenerationRequest) -> int:
        """Count the tokens of the prompt that a request becomes, whether or not it fits. Raises AppError."""
        async with self.using(request.model) as model:
            return await model.count(self._with_system_prompt(request, model))

    async def tokenize(
        self, content: tuple[str | int, ...], *, special: bool, model: str | None = None
    ) -> list[tuple[int, bytes]]:
        """Give the token ids of text and ids, each with its bytes. Raises AppError."""
        async with self.using(model) as served:
            return await served.tokenize(content, special=special)

    async def detokenize(self, tokens: list[int], *, model: str | None = None) -> str:
        """Give the text of token ids. Raises AppError."""
        async with self.using(model) as served:
            return await served.detokenize(tokens)

    async def measure(self, request: GenerationRequest) -> tuple[int, int]:
        """Give the tokens of a request's prompt, and those that the context holds. Raises AppError."""
        async with self.using(request.model) as model:
            return await model.measure(self._with_system_prompt(request, model))

    async def start(self, wanted: Session) -> None:
        """Load the model of a session and save the session. The memory agent's conversation begins anew.

        Raises LoadFailed, and InvalidRequest for a memory folder that may not be one; what was loaded then goes on.
        """
        new = await asyncio.to_thread(memory_path.missing, wanted.memory_path) if wanted.memory_path else []
        try:
            await self._start(wanted)
        except BaseException:
            memory_path.remove(new)
            raise

    async def _start(self, wanted: Session) -> None:
        if wanted.memory_path:
            where = (wanted.memory_path, self._settings.data_dir, self._settings.session_file)
            await asyncio.to_thread(memory_path.prepare, *where)
        async with self._one_at_a_time:
            try:
                await self._load(wanted, partial(catalog.resolve, wanted.model, wanted.model_cache_path or None))
            finally:
                self._loading = None
            await self._save(wanted)

    async def load_configured(self, model_id: str) -> None:
        """Load a model from the configured folder, as POST /models/load does. Raises AppError."""
        folder = self._settings.model_cache_path or self._settings.bootstrap_model_cache_path
        if not model_id.strip():
            raise InvalidRequest("The model id is empty", param="model")
        if not folder:
            raise InvalidRequest("No folder to load models from is configured: set TILES_MODEL_CACHE_PATH")
        memory = self._settings.bootstrap_memory_path or ""
        kept = self._session or Session(model_id, folder, memory, bootstrap.DEFAULT_SYSTEM_PROMPT)
        await self.start(replace(kept, model=model_id, model_cache_path=folder))

    async def unload(self, model_id: str) -> bool:
        """Take the model out. False if it is not loaded.

        Its running answers may take a while longer, those that nobody reads may not.
        """
        async with self._one_at_a_time:
            if self._served is None or model_id not in {self._served.facts.id, self._asked_for()}:
                return False
            model, self._served, self._session = self._served, None, None
            model.need_readers(UNLOADED)
            with suppress(TimeoutError):
                await asyncio.wait_for(model.at_rest(), PATIENCE)
            model.fail_all(UNLOADED)
            await model.model.unload(now=True)
            log.info("model unloaded", model=model.facts.id)
            return True

    async def drain(self, seconds: float) -> None:
        """Refuse new requests, give up loads, and wait for the running answers; what takes longer gets an error."""
        self._draining = True
        self._end_loads()
        self._answers.need_readers(ShuttingDown())
        await self._answers.over(seconds)
        self._answers.fail_all(ShuttingDown())

    async def _begin(self, model: str | None, beginning: Coroutine[Any, Any, Generation], answers: int) -> Generation:
        if self.router is None or self.router.ready(model) is not None:
            return await beginning
        return await PendingGeneration.begin(beginning, answers)

    async def _generate(self, requests: Sequence[GenerationRequest]) -> Generation:
        async with self.using(requests[0].model) as model:
            return await model.generate_all([self._with_system_prompt(request, model) for request in requests])

    def _end_loads(self) -> None:
        ending = ShuttingDown()
        if self._first_load is not None:
            self._first_load.cancel()
        if self.router is not None:
            self.router.close(ending)
        self._engine.give_up_loads(ending)

    async def _watch(self) -> None:
        """Notice a step that does not return, or does so at last; sleeps while there is nothing to watch."""
        limit, asleep = self._settings.watchdog_seconds, 0.0
        while limit > 0:
            if self.stuck is None:
                await self._answers.at_work.wait()
            asleep += await _overslept(min(5.0, limit / 10))
            seconds = self._engine.stuck_for()
            if not seconds:
                asleep = 0.0
            if (seconds := seconds - asleep) <= limit:
                self.stuck = None
            elif self.stuck is None:
                self.stuck = f"The engine has not come back from a step for {seconds:.0f} s"
                log.error("engine stuck", seconds=round(seconds))
                self._answers.fail_all(EngineStuck(self.stuck))
                self._on_stuck()

    async def _load_first(self, candidates: list[bootstrap.Candidate]) -> None:
        async with self._one_at_a_time:
            for candidate in candidates:
                try:
                    await self._load(candidate.session, partial(bootstrap.locate, candidate))
                except LoadFailed as error:
                    log.warning("load failed", source=candidate.source, error=error.message)
                    continue
                if candidate.persist:
                    await self._save(candidate.session)
                break
            self._loading = None

    async def _load(self, wanted: Session, locate: Callable[[], ModelFolder]) -> None:
        try:
            if self.router is not None:
                await self.router.start(await asyncio.to_thread(locate))
                self._session = wanted
            elif self._served is not None and self._session is not None and _same_model(self._session, wanted):
                self._session = wanted
            else:
                await self._replace(await asyncio.to_thread(locate), wanted)
        except AppError as error:
            self.last_error = error.message
            raise
        self.last_error = None

    async def _replace(self, folder: ModelFolder, wanted: Session) -> None:
        old, old_session = self._served, self._session
        if old is not None and not free_memory.fits(folder, self._engine.back_end):
            self._served = None
            await old.model.unload(now=True)
        self._loading = Loading(folder.id)
        try:
            model = await self._serve(folder)
        except LoadFailed:
            if old is not None and self._served is None:
                await self._bring_back(old.facts, old_session)
            raise
        finally:
            self._on_progress(folder.id, 1.0)
        previous, self._served, self._session = self._served, model, wanted
        log.info("model loaded", model=folder.id, type=folder.model_type, context=model.facts.context_length)
        if previous is not None:
            previous.need_readers(UNLOADED)
            await previous.model.unload()

    async def _serve(self, folder: ModelFolder) -> ServedModel:
        model = await self._engine.load(folder, self._note_progress)
        return ServedModel(model, self._settings, self._answers)

    async def _bring_back(self, facts: ModelFacts, old_session: Session | None) -> None:
        """Load the previous model again, after its successor would not load in its place."""
        try:
            self._served = await self._serve(await asyncio.to_thread(catalog.inspect, facts.path, facts.id))
            self._session = old_session
        except LoadFailed as error:
            log.error("the previous model could not be brought back", model=facts.id, error=error.message)

    def _note_progress(self, progress: float) -> None:
        if (loading := self._loading) is not None:
            self._loading = replace(loading, progress=progress)
            self._on_progress(loading.model, progress)

    async def _save(self, saved: Session) -> None:
        if not self._settings.skip_session_persist:
            await asyncio.to_thread(store.forget, store.beside(self._settings.session_file))
            await asyncio.to_thread(session.write, self._settings.session_file, saved)

    def _with_system_prompt(self, request: GenerationRequest, model: ServedModel) -> GenerationRequest:
        """Put the session's system prompt first, if the session is this model's and the request begins with none."""
        if self._session is None or (self.router is not None and model.facts.id != self.router.default):
            return request
        prompt = self._session.system_prompt
        if not prompt or request.prompt is not None or [message.role for message in request.messages[:1]] == ["system"]:
            return request
        return replace(request, messages=(Message("system", prompt), *request.messages))

    def _asked_for(self) -> str:
        return self._session.model if self._session else ""


async def _overslept(seconds: float) -> float:
    """Sleep, and say how much longer that was: while the whole process is suspended, no step is stuck."""
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
        max_lookup_tokens=settings.prompt_lookup,
        stop_repetition=settings.stop_repetition,
        store_folder=settings.data_dir / "prefixes",
        store_bytes=settings.cache_disk,
        adapters=settings.adapters,
    )


def _drafting(settings: Settings) -> DraftConfig | None:
    """Who guesses for the models; one that is served alone was meant to have its guesses."""
    if settings.draft_model is None:
        return None
    return DraftConfig(settings.draft_model, settings.draft_tokens, strict=settings.models_dir is None)


def _same_model(one: Session, other: Session) -> bool:
    return (one.model, one.model_cache_path) == (other.model, other.model_cache_path)
