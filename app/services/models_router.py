"""Several models behind one address: each is loaded when a request names it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from app.services import models_folder
from app.services.active_generations import ActiveGenerations
from app.services.errors import (
    AppError,
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
from app.services.model_events import ModelChange, ModelEvents
from app.services.model_folder import ModelFolder, Task
from app.services.model_loader import ModelLoader
from app.services.model_state import ModelState, Status
from app.services.routed_model import RoutedModel
from app.services.served_model import ServedModel
from app.services.session import Session
from app.settings import Settings

_MAX_NAMES = 20  # in the message about a model that is not there


class ModelsRouter:
    """Owns the models of a folder and those that sessions bring along. Its methods are for the event loop."""

    def __init__(
        self,
        folder: Path,
        settings: Settings,
        engine: Engine,
        active: ActiveGenerations,
        on_progress: Callable[[str, float], None],
        events: ModelEvents,
        *,
        require_work: Callable[[], None],  # raises AppError while nothing can be answered
    ) -> None:
        self.session: Session | None = None
        self._default: str | None = None  # the session's model, which answers where none is named
        self._events = events
        self._folder = folder
        self._settings = settings
        self._require_work = require_work
        self._models: dict[str, RoutedModel] = {}
        self._loader = ModelLoader(self._models, settings, engine, active, on_progress, self._system_prompt)

    @property
    def facts(self) -> ModelFacts | None:
        """Facts of the session's model, else of the one that was used last, if it is loaded."""
        loaded = [model for model in self._models.values() if model.ready]
        last = max(loaded, key=lambda model: (model.id == self._default, model.last_used), default=None)
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
        return _require_ready(self._find(name))

    @asynccontextmanager
    async def using(self, name: str | None, *, autoload: bool = True) -> AsyncIterator[ServedModel]:
        """Hold a model for as long as this lasts; it is loaded first, if need be and allowed. Raises AppError."""
        self._require_work()
        served = await self._acquire(name, autoload=autoload)
        try:
            yield served
        finally:
            served.release()

    def must_load(self, name: str | None) -> bool:
        """Whether a request for this model waits for a load."""
        model = self._models.get(self._identity(name) or "")
        return model is None or model.ready is None

    def refuse_autoload(self, name: str | None) -> None:
        """Raise ModelNotLoaded if a request for this model would load it."""
        self.find(name)

    def name_for(self, task: Task, name: str | None) -> str | None:
        """Give the name as it is."""
        return name

    async def load_beside(self) -> None:
        """None stands beside the others."""

    def expect_load(self, name: str) -> None:
        """A first load keeps nobody waiting."""

    async def states(self) -> list[ModelState]:
        """Look into the folder again, and say how every model stands, by id."""
        await self._refresh()
        return [self._state(model) for _, model in sorted(self._models.items())]

    async def state(self, name: str) -> ModelState:
        """Say how one model stands. Raises ModelNotFound."""
        return self._state(await self._find_or_refresh(name))

    def _state(self, model: RoutedModel) -> ModelState:
        return replace(model.state(), aliases=tuple(self._settings.presets.aliases(model.id)))

    async def props(self, name: str | None, *, autoload: bool = True) -> ModelFacts | RouterFacts:
        """Give the facts of a model, which is loaded first, if need be and allowed; without a name those of all."""
        if not name:
            return RouterFacts(self._settings.max_models)
        async with self.using(name, autoload=autoload) as served:
            return served.facts

    async def load(self, name: str) -> None:
        """Begin to load a model. Raises ModelNotFound, and ModelAlreadyRunning for one that is loaded or loading."""
        model = await self._find_or_refresh(name)
        if model.status in {Status.QUEUED, Status.LOADING, Status.LOADED}:
            raise ModelAlreadyRunning
        model.request_load()
        self._loader.ensure_loading(model)

    async def unload(self, name: str) -> None:
        """Have a model go, or give up its load. Raises ModelNotFound or ModelNotLoaded.

        Its answers may take a while longer, those that nobody reads may not.
        """
        model = self._find(name)
        if model.is_unloaded:
            raise ModelNotLoaded("model is not running")
        if model.served is None:
            model.cancel_load()
        else:
            self._loader.unload(model)

    async def start(self, session: Session, locate: Callable[[], ModelFolder]) -> None:
        """Load the model that a session brings along, and make it the default. Raises LoadFailed."""
        model = await self._adopt(await asyncio.to_thread(locate))
        (model.hold() or await self._wait_for_load(model)).release()
        self._default, self.session = model.id, session

    async def _refresh(self) -> None:
        """Look which models are in the folder now."""
        folders = await asyncio.to_thread(models_folder.scan, self._folder)
        for identity, model in list(self._models.items()):
            if identity not in folders and not model.adopted and model.is_unloaded:
                del self._models[identity]
                self._events.publish(ModelChange("model_goes", model.state()))
        new = [RoutedModel(name, path, self._events) for name, path in folders.items() if name not in self._models]
        self._models.update({model.id: model for model in new})
        if new:
            self._events.publish(ModelChange("list_grows", new[0].state()))

    def close(self, error: AppError) -> None:
        """Load nothing any more; those who wait get the error."""
        self._loader.close(error)

    async def _acquire(self, name: str | None, *, autoload: bool) -> ServedModel:
        model = await self._find_or_refresh(name)
        if (served := model.hold()) is not None:
            return served
        if not autoload:
            _require_ready(model)
        return await self._wait_for_load(model)

    async def _find_or_refresh(self, name: str | None) -> RoutedModel:
        """Find a model that may have come into the folder just now."""
        if name and self._identity(name) not in self._models:
            await self._refresh()
        return self._find(name)

    def _identity(self, name: str | None) -> str | None:
        """Give the id of the model that a request means; without a name, that of the session's."""
        return self._settings.presets.model(name or self._default)

    def _find(self, name: str | None) -> RoutedModel:
        """Give a model by its id; without one, that of the session. Raises ModelNotFound, or ModelNameMissing."""
        if not (name := self._identity(name)):
            raise ModelNameMissing
        if (model := self._models.get(name)) is not None:
            return model
        there = ", ".join(f"'{identity}'" for identity in sorted(self._models)[:_MAX_NAMES]) or "none"
        raise ModelNotFound(f"model '{name[:200]}' not found; those that are here: {there}")

    async def _adopt(self, folder: ModelFolder) -> RoutedModel:
        """Give the model of a folder; another folder under the same id makes way."""
        await self._refresh()
        model = self._models.get(folder.id)
        if model is not None and folder.path.is_relative_to(model.path):
            return model
        if model is not None and model.served is None and model.task is not None:
            model.cancel_load()
            await asyncio.wait({model.task})
        if model is not None and model.served is not None:
            model.replace()
            await self._loader.unload(model)
        self._models[folder.id] = model = RoutedModel(folder.id, folder.path, self._events, adopted=True)
        self._events.publish(ModelChange("list_grows", model.state()))
        return model

    async def _wait_for_load(self, model: RoutedModel) -> ServedModel:
        if self._loader.closed:
            raise ShuttingDown
        waiting = sum(other.waiting for other in self._models.values())
        if waiting >= self._settings.max_queue:
            raise QueueFull(waiting)
        if model.is_replaced:
            raise ModelLoading("Another model takes its place")
        self._loader.ensure_loading(model)
        try:
            return await model.wait()
        finally:
            if model.status is Status.QUEUED and not model.is_wanted:
                model.cancel_load()  # nobody waits any more, and it has cost nothing yet

    def _system_prompt(self, identity: str) -> str:
        return self.session.system_prompt if self.session and identity == self._default else ""


def _require_ready(model: RoutedModel) -> ServedModel:
    if model.ready is None:
        raise ModelNotLoaded
    return model.ready
