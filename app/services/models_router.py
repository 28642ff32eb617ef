"""Several models behind one address: each is loaded when it is asked for, and goes when another needs its place."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import structlog

from app.services import catalog, free_memory, models_folder
from app.services.active_generations import ActiveGenerations
from app.services.catalog import ModelFolder
from app.services.errors import (
    AppError,
    LoadCancelled,
    LoadFailed,
    ModelAlreadyRunning,
    ModelLoading,
    ModelNameMissing,
    ModelNotFound,
    ModelNotLoaded,
    QueueFull,
    ShuttingDown,
)
from app.services.facts import ModelFacts, RouterFacts
from app.services.inference import Engine
from app.services.model_events import Change, Kind, ModelEvents
from app.services.model_state import ModelState
from app.services.routed_model import RoutedModel
from app.services.served_model import GRACE_PERIOD, UNLOADED, ServedModel
from app.services.session import Session
from app.settings import Settings

log = structlog.get_logger()

_MOST_NAMED = 20  # in the message about a model that is not there


class ModelsRouter:
    """Owns the models of a folder and those that sessions bring along. Its methods are for the event loop.

    Models load one after the other, in the order in which they were asked for. Before one loads, the least recently
    used of the others go until there is room. One that answers is never interrupted: when all do, the first that comes
    to rest goes, and so that one does, the least recently used takes no more requests meanwhile.
    """

    def __init__(
        self,
        folder: Path,
        settings: Settings,
        engine: Engine,
        active: ActiveGenerations,
        on_progress: Callable[[str, float], None],
        *,
        require_work: Callable[[], None],  # raises AppError while nothing can be answered
    ) -> None:
        self.session: Session | None = None
        self._default: str | None = None  # the session's model, which answers where none is named
        self._events = ModelEvents()
        self._folder = folder
        self._settings = settings
        self._engine = engine
        self._active = active
        self._on_progress = on_progress
        self._require_work = require_work
        self._models: dict[str, RoutedModel] = {}
        self._one_load_at_a_time = asyncio.Lock()
        self._closed = False

    @property
    def facts(self) -> ModelFacts | None:
        """Facts of the session's model, else of the one that was used last, if it is loaded."""
        loaded = [model for model in self._models.values() if model.ready]
        last = max(loaded, key=lambda model: (model.id == self._default, model.used), default=None)
        return last.ready.facts if last and last.ready else None

    @property
    def loading(self) -> None:
        """No load keeps all requests waiting."""
        return None

    def expect(self, name: str | None = None) -> None:
        """Raise AppError unless a request for this model can be answered, if need be after a load."""
        self._require_work()
        self._find(name)

    def find(self, name: str | None = None) -> ServedModel:
        """Give a model without loading it. Raises AppError."""
        self._require_work()
        return self._find(name).require()

    @asynccontextmanager
    async def using(self, name: str | None, *, autoload: bool = True) -> AsyncIterator[ServedModel]:
        """Hold a model for as long as this lasts; it is loaded first, if need be and allowed. Raises AppError."""
        self._require_work()
        served = await self._take(name, autoload=autoload)
        try:
            yield served
        finally:
            served.release()

    def must_load(self, name: str | None) -> bool:
        """Whether a request for this model waits for a load."""
        model = self._models.get(name or self._default or "")
        return model is None or model.ready is None

    def refuse_autoload(self, name: str | None) -> None:
        """Raise InvalidRequest if a request for this model would load it."""
        self.find(name)

    def expect_load(self, name: str) -> None:
        """A first load keeps nobody waiting."""

    async def states(self) -> list[ModelState]:
        """Look into the folder again, and say how every model stands, by id."""
        await self._refresh()
        return [model.state() for _, model in sorted(self._models.items())]

    async def state(self, name: str) -> ModelState:
        """Say how one model stands. Raises NotFound."""
        return (await self._find_anew(name)).state()

    async def props(self, name: str | None, *, autoload: bool = True) -> ModelFacts | RouterFacts:
        """Give the facts of a model, which is loaded first, if need be and allowed; without a name those of all."""
        if not name:
            return RouterFacts(self._settings.max_models)
        async with self.using(name, autoload=autoload) as served:
            return served.facts

    def events(self, ping_seconds: float) -> AsyncIterator[Change | None]:
        """Give what happens to the models from now on; None after so many seconds of silence, 0 is never."""
        return self._events.listen(ping_seconds)

    def describe(self) -> str:
        """Say in a sentence what is served."""
        last = f" {self.facts.id} is loaded." if self.facts else ""
        return f"There are several models; each is loaded when a request names it.{last}"

    async def load(self, name: str) -> None:
        """Begin to load a model. Raises NotFound, and InvalidRequest for one that is loaded or loading."""
        model = await self._find_anew(name)
        if model.load is not None or model.ready is not None:
            raise ModelAlreadyRunning
        model.asked = True
        self._see_to(model)

    async def unload(self, name: str) -> None:
        """Have a model go, or give up its load. Raises NotFound or InvalidRequest.

        Its answers may take a while longer, those that nobody reads may not.
        """
        model = self._find(name)
        if model.load is not None:
            model.load.cancel()
        elif model.served is not None:
            model.dismiss(GRACE_PERIOD)
            self._leave(model)
        else:
            raise ModelNotLoaded("model is not running")

    async def start(self, session: Session, locate: Callable[[], ModelFolder]) -> None:
        """Load the model that a session brings along, and make it the default. Raises LoadFailed."""
        model = await self._adopt(await asyncio.to_thread(locate))
        (model.take() or await self._wait(model)).release()
        self._default, self.session = model.id, session

    async def _refresh(self) -> None:
        """Look which models are in the folder now."""
        found = await asyncio.to_thread(models_folder.scan, self._folder)
        for identity, model in list(self._models.items()):
            if not (identity in found or model.adopted or model.served or model.load):
                del self._models[identity]
                self._tell(model, "removed")
        new = [RoutedModel(identity, path) for identity, path in found.items() if identity not in self._models]
        self._models |= {model.id: model for model in new}
        if new:
            self._tell(new[0], "listed")

    def close(self, error: AppError) -> None:
        """Load nothing any more; those who wait get the error, those who listen hear no more."""
        self._closed = True
        for model in self._models.values():
            model.stop_alarm()
            model.refuse(error)
            if model.load is not None:
                model.load.cancel()
        self._events.close()

    async def _take(self, name: str | None, *, autoload: bool) -> ServedModel:
        model = await self._find_anew(name)
        if (served := model.take()) is not None:
            return served
        if not autoload:
            model.require()
        return await self._wait(model)

    async def _find_anew(self, name: str | None) -> RoutedModel:
        """Find a model that may have come into the folder just now."""
        if name and name not in self._models:
            await self._refresh()
        return self._find(name)

    def _find(self, name: str | None) -> RoutedModel:
        """Give a model by its id; without one, that of the session. Raises NotFound, or InvalidRequest for no name."""
        name = name or self._default
        if not name:
            raise ModelNameMissing
        if (model := self._models.get(name)) is not None:
            return model
        there = ", ".join(f"'{identity}'" for identity in sorted(self._models)[:_MOST_NAMED]) or "none"
        raise ModelNotFound(f"model '{name[:200]}' not found; those that are here: {there}")

    async def _adopt(self, folder: ModelFolder) -> RoutedModel:
        """Give the row of a folder; another folder under the same id makes way."""
        await self._refresh()
        model = self._models.get(folder.id)
        if model is not None and folder.path.is_relative_to(model.path):
            return model
        if model is not None and model.load is not None:
            model.load.cancel()
            await asyncio.wait({model.load})
        if model is not None and model.served is not None:
            model.replaced = True
            model.dismiss(GRACE_PERIOD)
            await self._leave(model)
        self._models[folder.id] = model = RoutedModel(folder.id, folder.path, adopted=True)
        self._tell(model, "listed")
        return model

    async def _wait(self, model: RoutedModel) -> ServedModel:
        if self._closed:
            raise ShuttingDown
        waiting = sum(other.waiting for other in self._models.values())
        if waiting >= self._settings.max_queue:
            raise QueueFull(waiting)
        place = model.queue()
        self._see_to(model)
        try:
            return await model.wait(place)
        finally:
            if model.load is not None and not model.begun and not model.wanted:
                model.load.cancel()  # nobody waits any more, and it has cost nothing yet

    def _see_to(self, model: RoutedModel) -> None:
        """Begin to load a model that is wanted."""
        if model.replaced:
            model.refuse(ModelLoading("Another model takes its place"))
        elif model.wanted and model.load is None and model.served is None and not self._closed:
            model.begun, model.progress, model.error = False, 0.0, None
            model.load = asyncio.create_task(self._load(model))
            model.load.add_done_callback(partial(self._never_began, model))
            self._tell(model, "begun")

    def _never_began(self, model: RoutedModel, load: "asyncio.Task[None]") -> None:
        """Clean up after a load that was cancelled before its first step, which it cannot do itself."""
        if model.load is load:
            self._give_up(model, LoadCancelled())

    async def _load(self, model: RoutedModel) -> None:
        error: AppError
        try:
            folder = await asyncio.to_thread(catalog.inspect, model.path, model.id)
            async with self._one_load_at_a_time:
                await self._make_room(folder)
                model.begun = True
                model.served = await self._read(model, folder)
        except asyncio.CancelledError:
            error = LoadCancelled()
        except LoadFailed as failure:
            error, model.error = failure, failure.message
            log.warning("load failed", model=model.id, error=failure.message)
        except Exception:
            log.exception("load failed", model=model.id)
            error = LoadFailed(f"{model.id}: the model could not be loaded; the log says more")
            model.error = error.message
        else:
            self._loaded(model)
            return
        self._give_up(model, error)

    def _give_up(self, model: RoutedModel, error: AppError) -> None:
        """End a load that came to nothing."""
        model.load, model.asked = None, False
        self._on_progress(model.id, 1.0)
        model.refuse(error)
        self._tell(model, "status")

    def _loaded(self, model: RoutedModel) -> None:
        assert model.served is not None
        model.load, model.asked = None, False
        log.info("model loaded", model=model.id, type=model.served.facts.model_type)
        model.served.on_rest = partial(self._rest, model)
        model.hand_out()
        if not model.served.busy:
            self._rest(model)
        self._tell(model, "status")

    async def _read(self, model: RoutedModel, folder: ModelFolder) -> ServedModel:
        loop = asyncio.get_running_loop()

        def progress(done: float) -> None:
            loop.call_soon_threadsafe(self._progress, model, done)

        self._progress(model, 0.0)
        loaded = await self._engine.load(folder, progress)
        return ServedModel(loaded, self._settings, self._active, partial(self._system_prompt, model.id))

    def _system_prompt(self, identity: str) -> str:
        return self.session.system_prompt if self.session and identity == self._default else ""

    def _progress(self, model: RoutedModel, done: float) -> None:
        if model.load is not None and model.served is None:
            model.progress = done
            self._on_progress(model.id, done)
            self._tell(model, "status")

    async def _make_room(self, folder: ModelFolder) -> None:
        """Let others go until there is a place and memory for a model."""
        while others := [model for model in self._models.values() if model.served is not None]:
            if len(others) < self._settings.max_models and free_memory.fits(folder, self._engine.back_end):
                return
            await self._make_one_go(others)

    async def _make_one_go(self, others: list[RoutedModel]) -> None:
        """Wait until one has gone, or until another than the one that was to go is at rest."""
        model = min(others, key=_claim)
        goes_anyway = model.leave is not None
        leave = self._leave(model)
        rests = [asyncio.ensure_future(other.served.at_rest()) for other in others if other.served and other != model]
        try:
            await asyncio.wait({leave, *rests}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for rest in rests:
                rest.cancel()
            busy = model.served is not None and model.served.busy
            stays = busy and not goes_anyway and not model.told
            if stays:
                leave.cancel()  # its place is not needed any more
        if stays or not busy:
            await asyncio.wait({leave})

    def _leave(self, model: RoutedModel) -> "asyncio.Task[None]":
        """Have a model go: it takes no more requests, and its answers are finished, if they are read."""
        if model.leave is None:
            model.leave = asyncio.create_task(self._let_go(model))
            self._tell(model, "status")
        return model.leave

    async def _let_go(self, model: RoutedModel) -> None:
        served = model.served
        assert served is not None
        served.need_readers(UNLOADED)
        ends = [asyncio.ensure_future(served.at_rest()), asyncio.ensure_future(model.overdue.wait())]
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            served.need_readers(None)
            model.leave, model.asked = None, False
            model.hand_out()
            self._tell(model, "status")
            raise
        finally:
            for end in ends:
                end.cancel()
        model.stop_alarm()
        served.on_rest = lambda: None
        served.fail_all(UNLOADED)
        await served.model.unload(now=True)
        model.gone()
        log.info("model unloaded", model=model.id)
        self._tell(model, "status")
        self._see_to(model)  # for those who came meanwhile

    def _rest(self, model: RoutedModel) -> None:
        model.rest(self._settings.sleep_idle_seconds, partial(self._fall_asleep, model))

    def _fall_asleep(self, model: RoutedModel) -> None:
        if model.served is not None and not model.served.busy:
            log.info("model idle", model=model.id, seconds=self._settings.sleep_idle_seconds)
            self._leave(model)

    def _tell(self, model: RoutedModel, kind: Kind) -> None:
        self._events.tell(Change(kind, model.state()))


def _claim(model: RoutedModel) -> tuple[bool, bool, float]:
    """How much a model should stay: not at rest, then not if it is to go already, then as it was used recently."""
    assert model.served is not None
    return model.served.busy, model.leave is None, model.used
