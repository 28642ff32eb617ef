"""One model, which answers whatever name a request gives."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace

import structlog

from app.services import bootstrap, catalog, free_memory, hub
from app.services.active_generations import ActiveGenerations
from app.services.errors import (
    AppError,
    InvalidRequest,
    LoadFailed,
    ModelLoading,
    ModelNotFound,
    ModelUnloaded,
    NothingLoaded,
)
from app.services.facts import ModelFacts
from app.services.inference import Engine
from app.services.model_folder import ModelFolder, Task
from app.services.model_state import Loading, ModelState
from app.services.served_model import GRACE_PERIOD, ServedModel
from app.services.session import Session
from app.services.side_model import SideModel
from app.settings import Settings

log = structlog.get_logger()

_OF_SEVERAL_MACHINES = "Several machines serve the model that they were started with; start the server anew for another"


class SingleModel:
    """Owns the model of the session; another takes its place with the next session.

    Its methods are for the event loop.
    """

    def __init__(
        self,
        settings: Settings,
        engine: Engine,
        active: ActiveGenerations,
        on_progress: Callable[[str, float], None],
        *,
        require_work: Callable[[], None],  # raises AppError while nothing can be answered
        start_session: Callable[[Session], Awaitable[object]],  # which also saves it
    ) -> None:
        self.session: Session | None = None
        self._settings = settings
        self._engine = engine
        self._active = active
        self._on_progress = on_progress
        self._require_work = require_work
        self._start_session = start_session
        beside = settings.embedding_model
        self._beside = SideModel(beside, settings, engine, active, on_progress) if beside else None
        self._served: ServedModel | None = None
        self._loading: Loading | None = None
        self._one_at_a_time = asyncio.Lock()

    @property
    def facts(self) -> ModelFacts | None:
        """Facts of the model, if one is loaded."""
        return self._served.facts if self._served else None

    @property
    def loading(self) -> Loading | None:
        """The load under way while no model can answer."""
        return self._loading if self._served is None else None

    def expect(self, name: str | None = None) -> None:
        """Raise AppError unless a model is loaded and can answer."""
        self.find(name)

    def find(self, name: str | None = None) -> ServedModel:
        """Give the model, or the one beside it if that is named. Raises AppError."""
        self._require_work()
        if self._beside is not None and self._beside.answers_to(name):
            return self._beside.get()
        self._require_no_load()
        if self._served is None:
            raise NothingLoaded
        return self._served

    @asynccontextmanager
    async def using(self, name: str | None, *, autoload: bool = True) -> AsyncIterator[ServedModel]:
        """Give the model for as long as this lasts. Raises AppError."""
        yield self.find(name)

    def must_load(self, name: str | None) -> bool:
        """No request loads a model."""
        return False

    def refuse_autoload(self, name: str | None) -> None:
        """No request loads a model."""

    def name_for(self, task: Task, name: str | None) -> str | None:
        """Give the name of the model beside the one that answers, unless a request names the latter."""
        if self._beside is None or not self._beside.does(task) or self._is_named(name):
            return name
        return self._beside.id

    def _is_named(self, name: str | None) -> bool:
        """Whether a request names the model that answers."""
        names = self._served.names if self._served else set()
        return bool(name) and (name in names or (self.session is not None and name == self.session.model))

    async def load_beside(self) -> None:
        """Load the model of --embedding-model."""
        if self._beside is not None:
            await self._beside.load()

    def expect_load(self, name: str) -> None:
        """Note that the first model is about to be loaded."""
        self._loading = Loading(name)

    async def start(self, session: Session, locate: Callable[[], ModelFolder]) -> None:
        """Load the model of a session in place of what is loaded. Raises LoadFailed; what was loaded then goes on."""
        async with self._one_at_a_time:
            if self._served is not None and self.session is not None and _same_model(self.session, session):
                self.session = session
                return
            try:
                await self._replace(await asyncio.to_thread(locate), session)
            finally:
                self._loading = None

    async def load(self, name: str) -> str | None:
        """Load a model, for a session that is otherwise the last one. Gives what failed.

        It comes from the configured folder or, where none is configured, from a cache of this machine, by its repo id.
        """
        try:
            await self._start_session(self._session_of(name))
        except AppError as error:
            return error.message
        return None

    async def unload(self, name: str) -> str | None:
        """Take the model out. Gives what failed, if it is not loaded.

        Its running answers may take a while longer, those that nobody reads may not.
        """
        async with self._one_at_a_time:
            session_model = self.session.model if self.session else ""
            if self._served is None or name not in {self._served.facts.id, session_model}:
                return f"The model '{name[:200]}' is not loaded"
            if self._served.facts.machines > 1:
                return _OF_SEVERAL_MACHINES
            model, self._served, self.session = self._served, None, None
            model.need_readers(ModelUnloaded())
            with suppress(TimeoutError):
                await asyncio.wait_for(model.wait_idle(), GRACE_PERIOD)
            model.fail_all(ModelUnloaded())
            await model.model.unload(now=True)
            log.info("model unloaded", model=model.facts.id)
            return None

    async def states(self) -> list[ModelState]:
        """Describe the model, if one is loaded. Raises ModelLoading while the first one loads."""
        self._require_no_load()
        own = [ModelState.of(self._served.facts)] if self._served else []
        return own + (self._beside.states() if self._beside else [])

    async def state(self, name: str) -> ModelState:
        """Describe the model. Raises ModelNotFound for another, and ModelLoading while the first one loads."""
        states = await self.states()
        for state in states:
            if state.id == name:
                return state
        names = " and ".join(f"'{state.id}'" for state in states)
        loaded = f"there is {names}" if states else "nothing is loaded"
        raise ModelNotFound(f"There is no model '{name[:200]}' here; {loaded}")

    async def props(self, name: str | None, *, autoload: bool = True) -> ModelFacts | None:
        """Give the facts of the model, if one is loaded. Raises ModelLoading while the first one loads."""
        self._require_no_load()
        return self.facts

    def close(self, error: AppError) -> None:
        """Nobody waits for a load here."""

    def _require_no_load(self) -> None:
        if (loading := self.loading) is not None:
            raise ModelLoading(retry_after=loading.seconds_left())

    def _session_of(self, name: str) -> Session:
        folder = self._settings.model_cache_path or self._settings.bootstrap_model_cache_path
        if not name.strip():
            raise InvalidRequest("The model id is empty", param="model")
        if not folder and not hub.has(name):
            raise InvalidRequest("No folder to load models from is configured: set TILES_MODEL_CACHE_PATH")
        memory = self._settings.bootstrap_memory_path or ""
        last = self.session or Session(name, memory_path=memory, system_prompt=bootstrap.DEFAULT_SYSTEM_PROMPT)
        return replace(last, model=name, model_cache_path=folder or "")

    async def _replace(self, folder: ModelFolder, session: Session) -> None:
        old, old_session = self._served, self.session
        if old is not None and old.facts.machines > 1:
            raise LoadFailed(_OF_SEVERAL_MACHINES)
        if old is not None and not free_memory.fits(folder, self._engine.back_end):
            self._served = None
            await old.model.unload(now=True)
        self._loading = Loading(folder.id)
        try:
            model = await self._load(folder)
        except LoadFailed:
            if old is not None and self._served is None:
                await self._bring_back(old.facts, old_session)
            raise
        finally:
            self._on_progress(folder.id, 1.0)
        previous, self._served, self.session = self._served, model, session
        log.info("model loaded", model=folder.id, type=folder.model_type, context=model.facts.context.tokens)
        if previous is not None:
            previous.need_readers(ModelUnloaded())
            await previous.model.unload()

    async def _load(self, folder: ModelFolder) -> ServedModel:
        model = await self._engine.load(self._settings.presets.limited(folder), self._note_progress)
        return ServedModel(model, self._settings, self._active, self._system_prompt)

    async def _bring_back(self, facts: ModelFacts, session: Session | None) -> None:
        """Load the previous model again, after its successor would not load in its place."""
        try:
            self._served = await self._load(await asyncio.to_thread(catalog.inspect, facts.path, facts.id))
            self.session = session
        except LoadFailed as error:
            log.error("the previous model could not be brought back", model=facts.id, error=error.message)

    def _note_progress(self, progress: float) -> None:
        """Note how much of the model is read. On the engine thread."""
        if (loading := self._loading) is not None:
            self._loading = replace(loading, progress=progress)
            self._on_progress(loading.model, progress)

    def _system_prompt(self) -> str:
        return self.session.system_prompt if self.session else ""


def _same_model(one: Session, other: Session) -> bool:
    return (one.model, one.model_cache_path) == (other.model, other.model_cache_path)
